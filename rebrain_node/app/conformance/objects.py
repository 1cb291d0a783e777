"""Annex A: the objects that the node creates, as they were really written (PS3.2 N annexes)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID

from rebrain_node.app.conformance.attributes import EXTENDED, AttributeRow, modules_of
from rebrain_node.app.conformance.facts import StatementFacts
from rebrain_node.domain import marks
from rebrain_node.report.statement import SectionBlock, TableBlock

_HEAD = ("tag", "attribute", "VR", "module", "presence", "source", "value")


def object_sections(facts: StatementFacts) -> tuple[SectionBlock, ...]:
    """Describe the attributes of every object, then what each kind has beside them."""
    common = _common(facts)
    return (
        SectionBlock(
            number="A.A.1",
            title="Attributes of every object",
            content=(_attributes("Table A-1", common),),
        ),
        *(_object(facts, number, kind, common) for number, kind in enumerate(facts.attributes, 2)),
    )


def annex_tables(facts: StatementFacts) -> dict[str, tuple[TableBlock, ...]]:
    """Return content trees and private attributes by the names of the template."""
    trees = [_tree(facts, kind) for kind in ("SR", "KOS") if kind in facts.attributes]
    return {"trees": tuple(trees), "private": (_private(),)}


def _common(facts: StatementFacts) -> tuple[AttributeRow, ...]:
    """Rows that every kind of object has alike."""
    first, *others = facts.attributes.values()
    return tuple(row for row in first if all(row in each for each in others))


def _object(
    facts: StatementFacts, number: int, kind: str, common: Sequence[AttributeRow]
) -> SectionBlock:
    rows = facts.attributes[kind]
    sop_class = UID(str(facts.sets[0].objects[kind][0].SOPClassUID))
    used = {row.module for row in rows}
    outside = sorted({row.name for row in rows if row.module == EXTENDED and not row.depth})
    extended = f"{', '.join(outside)} and the private attributes" if outside else (
        "the private attributes"
    )  # fmt: skip
    return SectionBlock(
        number=f"A.A.{number}",
        title=f"{kind}: {sop_class.name}",
        content=(
            f"SOP class {sop_class}, Standard Extended by {extended}.",
            TableBlock(
                caption=f"Table A-{number}a Modules that are present",
                head=("information entity", "module", "usage"),
                rows=tuple(one for one in modules_of(str(sop_class)) if one[1] in used),
            ),
            _attributes(
                f"Table A-{number}b Attributes beside those of table A-1",
                [row for row in rows if row not in common],
            ),
        ),
    )


def _attributes(caption: str, rows: Sequence[AttributeRow]) -> TableBlock:
    return TableBlock(
        caption=caption,
        head=_HEAD,
        rows=tuple(
            (row.tag, row.name, row.vr, row.module, row.presence, row.source, row.value)
            for row in rows
        ),
    )


def _tree(facts: StatementFacts, kind: str) -> TableBlock:
    """List each item of a content tree once, in order."""
    found = dict.fromkeys(
        row for each in facts.sets for document in each.objects[kind] for row in _items(document, 0)
    )
    return TableBlock(
        caption=f"Content tree of {kind}",
        head=("level", "relationship", "value type", "concept", "scheme", "meaning"),
        rows=tuple(found),
    )


def _items(item: Dataset, level: int) -> Iterator[tuple[str, ...]]:
    for one in item.get("ContentSequence") or ():
        concepts = one.get("ConceptNameCodeSequence") or ()
        concept = concepts[0] if concepts else Dataset()
        yield (
            ">" * level + str(level + 1),
            str(one.get("RelationshipType", "")),
            str(one.get("ValueType", "by reference")),
            str(concept.get("CodeValue") or concept.get("LongCodeValue", "-")),
            str(concept.get("CodingSchemeDesignator", "")),
            str(concept.get("CodeMeaning", "")),
        )
        yield from _items(one, level + 1)


def _private() -> TableBlock:
    elements = (*marks.OBJECT_ELEMENTS, *marks.SLICE_ELEMENTS, marks.SLICE_PROVENANCE)
    return TableBlock(
        caption="Table A.C-1",
        head=("tag", "attribute", "VR", "present"),
        rows=tuple(
            (
                f"({marks.PRIVATE_GROUP:04X},xx{one.offset:02X})",
                one.name,
                one.vr,
                one.condition or "always",
            )
            for one in elements
        ),
    )
