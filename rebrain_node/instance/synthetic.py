"""The loop guard: whether an instance is synthetic, of this software or another."""

from __future__ import annotations

from pydicom.dataset import Dataset

from rebrain_node.domain import marks


def synthetic_mark(instance: Dataset) -> str | None:
    """Name the mark by which an instance is known as synthetic, or ``None``.

    One mark is enough: a PACS may drop private elements or rewrite a description. Source of the
    standard marks: PS3.3 C.12.1 (Synthetic Data), C.7.6.1 (Image Type), PS3.16 CID 7005.
    """
    if _text(instance, "SyntheticData") == marks.SYNTHETIC_DATA:
        return "Synthetic Data (0008,001C) is YES"
    if "SYNTHETIC" in _text(instance, "ImageType"):
        return "Image Type says SYNTHETIC"
    if _text(instance, "Manufacturer") == marks.MANUFACTURER.upper():
        return "the manufacturer is this software"
    if _text(instance, "ManufacturerModelName") == marks.MODEL_NAME.upper():
        return "the model name is this software's"
    if _has_synthesizing_equipment(instance):
        return "Contributing Equipment names a synthesizing equipment"
    if _text(instance, "SeriesDescription").startswith(marks.SERIES_DESCRIPTION_PREFIX):
        return "the description is one of this software's"
    if instance.get((marks.PRIVATE_GROUP, 0x0010)) is not None and any(
        str(instance[marks.PRIVATE_GROUP, creator].value) == marks.PRIVATE_CREATOR
        for creator in range(0x10, 0x20)
        if (marks.PRIVATE_GROUP, creator) in instance
    ):
        return "it contains this software's private block"
    return None


def _text(instance: Dataset, keyword: str) -> str:
    value = instance.get(keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) else list(value)
    return "\\".join(str(part).strip().upper() for part in parts)


def _has_synthesizing_equipment(instance: Dataset) -> bool:
    code, scheme, _ = marks.SYNTHESIZING_EQUIPMENT
    return any(
        purpose.get("CodeValue") == code and purpose.get("CodingSchemeDesignator") == scheme
        for equipment in instance.get("ContributingEquipmentSequence") or ()
        for purpose in equipment.get("PurposeOfReferenceCodeSequence") or ()
    )
