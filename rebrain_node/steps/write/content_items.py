"""Content items of the report as plain data sets (PS3.3 C.17.3).

highdicom checks and copies each item of its classes, which takes 4 ms for the group of a slice.
The groups of all slices have one shape, so they are made here; the rest of the report is
highdicom's. Elements that repeat are shared between items, which are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from rebrain_node.steps.write.codes import Triple, concept
from rebrain_node.steps.write.references import reference

CONTAINS: Final = "CONTAINS"
HAS_OBS_CONTEXT: Final = "HAS OBS CONTEXT"


def text_item(name: Triple, value: str, relation: str = CONTAINS) -> Dataset:
    """Make a TEXT item."""
    return _item("TEXT", relation, name, _element("TextValue", value))


def uid_item(name: Triple, value: str, relation: str = CONTAINS) -> Dataset:
    """Make a UIDREF item."""
    return _item("UIDREF", relation, name, _element("UID", value))


def code_item(name: Triple, value: Triple) -> Dataset:
    """Make a CODE item."""
    return _item("CODE", CONTAINS, name, _concept("ConceptCodeSequence", value))


def number_item(name: Triple, value: float, unit: Triple) -> Dataset:
    """Make a NUM item: three significant digits are shown, the value is kept in full beside."""
    measured = _data_set(
        _element("NumericValue", f"{value:.3g}"),
        _element("FloatingPointValue", float(value)),
        _concept("MeasurementUnitsCodeSequence", unit),
    )
    return _item("NUM", CONTAINS, name, _element("MeasuredValueSequence", [measured]))


def image_item(
    name: Triple, class_uid: str, instance_uid: str, frame: int | None = None
) -> Dataset:
    """Make an IMAGE item that points at an instance or a frame of it."""
    items = [reference(class_uid, instance_uid, frame)]
    return _item("IMAGE", CONTAINS, name, _element("ReferencedSOPSequence", items))


def container_item(name: Triple, template: str, items: Iterable[Dataset]) -> Dataset:
    """Make a CONTAINER of items after a template of PS3.16, each item shown apart."""
    return _item(
        "CONTAINER",
        CONTAINS,
        name,
        _element("ContinuityOfContent", "SEPARATE"),
        _template(template),
        _element("ContentSequence", list(items)),
    )


def _item(value_type: str, relation: str, name: Triple, *elements: DataElement) -> Dataset:
    return _data_set(
        _shared("ValueType", value_type),
        _shared("RelationshipType", relation),
        _concept("ConceptNameCodeSequence", name),
        *elements,
    )


def _data_set(*elements: DataElement) -> Dataset:
    return Dataset({element.tag: element for element in elements})


def _element(keyword: str, value: str | float | Sequence[Dataset]) -> DataElement:
    return DataElement(Tag(keyword), dictionary_VR(keyword), value)


@cache
def _shared(keyword: str, value: str) -> DataElement:
    return _element(keyword, value)


@cache
def _concept(keyword: str, triple: Triple) -> DataElement:
    return _element(keyword, [concept(triple)])


@cache
def _template(identifier: str) -> DataElement:
    named = _data_set(
        _element("MappingResource", "DCMR"), _element("TemplateIdentifier", identifier)
    )
    return _element("ContentTemplateSequence", [named])
