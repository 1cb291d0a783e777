"""What the statement is written from: settings, tables of the code, and objects that were made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rebrain_node.app.conformance.attributes import AttributeRow, attribute_rows
from rebrain_node.app.conformance.example import ExampleSet, example_sets
from rebrain_node.app.pacs_entries import PacsSetup, pacs_setup

if TYPE_CHECKING:
    from rebrain_node.settings import Settings
    from rebrain_node.steps.write import ObjectOptions


@dataclass(frozen=True, kw_only=True)
class StatementFacts:
    """One configuration of the node."""

    settings: Settings
    options: ObjectOptions  #: of the objects that are written

    @cached_property
    def setup(self) -> PacsSetup:
        """Contexts of receiver and sender."""
        return pacs_setup(self.settings)

    @cached_property
    def sets(self) -> tuple[ExampleSet, ...]:
        """Sets written under these options."""
        return example_sets(self.options)

    @cached_property
    def attributes(self) -> dict[str, tuple[AttributeRow, ...]]:
        """Attributes of each kind of object, by kind."""
        return {one.kind: attribute_rows(self.sets, one.kind) for one in self.setup.sent}
