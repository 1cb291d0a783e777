"""What a rule of the gate is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rebrain_node.steps.gate.evidence import Evidence, Written


@dataclass(frozen=True)
class Breach:
    """One place where a rule is broken; names no patient and no value of the patient's."""

    where: str  #: the object, e.g. ``MR 12``, or ``set``
    what: str  #: what is wrong with it


@dataclass(frozen=True)
class Rule:
    """One demand on a set of written objects."""

    code: str  #: stable, ``GATE-...``; docs/gate.md has a line for it
    demand: str  #: what must hold, one sentence
    breaches: Callable[[Evidence], Iterable[Breach]]  #: empty if it holds


def each(objects: Iterable[Written], fault: Callable[[Written], str | None]) -> Iterator[Breach]:
    """Ask the same of each object; ``fault`` says what is wrong with one, or None."""
    for written in objects:
        what = fault(written)
        if what is not None:
            yield Breach(written.name, what)
