"""Attributes of the objects that the node creates, read from objects that it has written.

Presence and source of a value are those of PS3.2: ALWAYS, VNAP (value not always present), ANAP
(attribute not always present), EMPTY; AUTO (made by the node), FIXED, COPY (of the CT).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from highdicom._standard_utils import (
    get_iod_module_map,
    get_module_attribute_map,
    get_sop_class_iod_map,
)
from pydicom.datadict import dictionary_description
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from rebrain_node.app.conformance.example import ExampleSet
from rebrain_node.domain import marks

Presence = Literal["ALWAYS", "VNAP", "ANAP", "EMPTY"]
ValueSource = Literal["AUTO", "FIXED", "COPY", ""]

#: beyond these characters a fixed value is not shown
_LONGEST: Final = 64
#: the content tree of a document is described by its templates
_TREES: Final = frozenset({"ContentSequence"})
_PRIVATE: Final = {
    each.offset: each.name
    for each in (*marks.OBJECT_ELEMENTS, *marks.SLICE_ELEMENTS, marks.SLICE_PROVENANCE)
}
#: in place of a module
EXTENDED: Final = "(Standard Extended)"
_PRIVATE_MODULE: Final = "(private)"


@dataclass(frozen=True, kw_only=True)
class AttributeRow:
    """One attribute of one kind of object."""

    path: tuple[str, ...]  #: tags as text, from the outermost sequence to the attribute
    name: str
    vr: str
    module: str  #: of the outermost attribute
    presence: Presence
    source: ValueSource
    value: str  #: a fixed value that is short, else what it is

    @property
    def depth(self) -> int:
        """Number of sequences around it."""
        return len(self.path) - 1

    @property
    def tag(self) -> str:
        """(gggg,eeee), behind one > for each sequence."""
        return ">" * self.depth + self.path[-1]


@dataclass(frozen=True)
class _Case:
    """Items of one example set at one place, and the CT."""

    items: tuple[Dataset, ...]
    source: Dataset


def attribute_rows(sets: Sequence[ExampleSet], kind: str) -> tuple[AttributeRow, ...]:
    """Describe every attribute of a kind of object that some set holds, in the order of tags."""
    cases = [_Case(tuple(each.objects[kind]), each.source) for each in sets]
    modules = _modules_of(str(cases[0].items[0].SOPClassUID))
    return tuple(_rows(cases, (), modules, None))


def modules_of(sop_class_uid: str) -> tuple[tuple[str, str, str], ...]:
    """Information entity, module and usage (M, C, U) of an IOD (PS3.3 annex A)."""
    entries = get_iod_module_map()[get_sop_class_iod_map()[sop_class_uid]]
    return tuple((one["ie"], one["key"].replace("-", " "), one["usage"]) for one in entries)


@cache
def _modules_of(sop_class_uid: str) -> Mapping[str, str]:
    """Return the first module of an IOD that has an outermost attribute, by keyword."""
    found: dict[str, str] = {}
    of = get_module_attribute_map()
    order = {"M": 0, "C": 1, "U": 2}
    entries = get_iod_module_map()[get_sop_class_iod_map()[sop_class_uid]]
    for entry in sorted(entries, key=lambda one: order[one["usage"]]):
        for one in of.get(entry["key"], ()):
            if not one["path"]:
                found.setdefault(one["keyword"], entry["key"].replace("-", " "))
    return found


def _rows(
    cases: Sequence[_Case],
    outer: tuple[str, ...],
    modules: Mapping[str, str],
    inherited: tuple[str, ValueSource] | None,
) -> Iterator[AttributeRow]:
    """Describe the attributes of some items; ``inherited``: module and source of the sequence."""
    tags = sorted({element.tag for case in cases for item in case.items for element in item})
    for tag in tags:
        element = next(i[tag] for case in cases for i in case.items if tag in i)
        found = [[_held(item, tag) for item in case.items] for case in cases]
        source = _source(cases, tag, found, None if inherited is None else inherited[1])
        module = inherited[0] if inherited is not None else _module(element, modules)
        path = (*outer, f"({tag.group:04X},{_element(tag)})")
        sequence = element.VR == "SQ"
        yield AttributeRow(
            path=path,
            name=_name(element),
            vr=element.VR,
            module=module,
            presence=_presence(found),
            source="" if sequence and source != "COPY" else source,
            value=_value(element, source, sequence=sequence),
        )
        if sequence and element.keyword not in _TREES:
            inner = [
                _Case(tuple(i for one in each if one is not None for i in one.value), case.source)
                for each, case in zip(found, cases, strict=True)
            ]
            filled = [case for case in inner if case.items]
            yield from _rows(filled, path, modules, (module, source))


def _held(dataset: Dataset, tag: BaseTag) -> DataElement | None:
    found: DataElement | None = dataset.get(tag)
    return found


def _element(tag: BaseTag) -> str:
    """Element number of a tag; of the private block with xx for the place of the block."""
    if tag.is_private and tag.elem > 0xFF:
        return f"xx{tag.elem & 0xFF:02X}"
    return f"{tag.elem:04X}"


def _name(element: DataElement) -> str:
    if not element.tag.is_private:
        return dictionary_description(element.tag)
    if element.tag.is_private_creator:
        return "Private Creator"
    return _PRIVATE.get(element.tag.elem & 0xFF, "private")


def _module(element: DataElement, modules: Mapping[str, str]) -> str:
    if element.tag.is_private:
        return _PRIVATE_MODULE
    return modules.get(element.keyword, EXTENDED)


def _presence(found: Sequence[Sequence[DataElement | None]]) -> Presence:
    every = [one for each in found for one in each]
    if any(one is None for one in every):
        return "ANAP"
    filled = [not one.is_empty for one in every if one is not None]
    return "ALWAYS" if all(filled) else "VNAP" if any(filled) else "EMPTY"


def _source(
    cases: Sequence[_Case],
    tag: BaseTag,
    found: Sequence[Sequence[DataElement | None]],
    inherited: ValueSource | None,
) -> ValueSource:
    if inherited == "COPY":
        return "COPY"
    held = [[one.value for one in each if one is not None and not one.is_empty] for each in found]
    values = [value for each in held for value in each]
    if not values:
        return ""
    if sum(map(bool, held)) > 1 and all(_same(one, values[0]) for one in values):
        return "FIXED"
    if inherited is None and all(_follows(case.source, tag, each) for case, each in
                                 zip(cases, found, strict=True)):  # fmt: skip
        return "COPY"
    return "AUTO"


def _same(one: Any, other: Any) -> bool:
    return bool(type(one) is type(other) and one == other)


def _follows(source: Dataset, tag: BaseTag, found: Sequence[DataElement | None]) -> bool:
    """Whether every value is the CT's; an attribute that the CT lacks is empty or missing."""
    held = _held(source, tag)
    for one in found:
        if one is None or one.is_empty:
            if held is not None and not held.is_empty:
                return False
        elif held is None or one.value != held.value:
            return False
    return True


def _value(element: DataElement, source: ValueSource, *, sequence: bool) -> str:
    if source == "COPY":
        return "of the CT"
    if sequence or source != "FIXED" or isinstance(element.value, bytes):
        return ""
    value = element.value
    parts = value if isinstance(value, list) or hasattr(value, "__iter__") else [value]
    text = str(value) if isinstance(value, str) else "\\".join(map(str, parts))
    return text if len(text) <= _LONGEST else ""
