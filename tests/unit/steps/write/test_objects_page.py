"""docs/objects.md names every attribute, private element and option that the writer knows."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from rebrain_node.domain import marks
from rebrain_node.domain.job import Predecessor
from rebrain_node.steps.write import AuditAnchor, ObjectOptions, write
from rebrain_node.steps.write.source import (
    IDENTITY_SEQUENCES,
    OPTIONAL_IDENTITY,
    REQUIRED_IDENTITY,
)
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "objects.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("mr", "precision"), [("classic", "float32"), ("enhanced", "uint16")])
def test_every_attribute_that_is_written_is_explained(mr, precision):
    source = head_ct(
        rows=16,
        columns=16,
        pixel_spacing_mm=(14.0, 14.0),
        slice_distances_mm=(0.0, 12.0, 24.0),
        extra={"LossyImageCompression": "01", "LossyImageCompressionRatio": 4.0},
    )
    options = ObjectOptions(mr=mr, map_precision=precision)
    anchor = AuditAnchor(sequence=1, sha256="a" * 64)
    before = Predecessor(
        revision=1, mr_series_uid="2.25.1", report_series_uid="2.25.2", report_uid="2.25.3"
    )
    made_by = provenance(revision=2, predecessor=before)
    derived = write(synthetic_volume(source), source, made_by, (), options, anchor)
    written = {
        element.keyword
        for instance in derived.instances
        for element in pydicom.dcmread(BytesIO(instance.content))
        if not element.tag.is_private
    }
    assert sorted(keyword for keyword in written if keyword not in PAGE) == []


def test_every_attribute_that_may_be_copied_is_listed():
    copied = (*REQUIRED_IDENTITY, *OPTIONAL_IDENTITY, *IDENTITY_SEQUENCES)
    assert [keyword for keyword in copied if keyword not in PAGE] == []


def test_every_private_element_has_its_row():
    for element in (*marks.OBJECT_ELEMENTS, *marks.SLICE_ELEMENTS, marks.SLICE_PROVENANCE):
        assert f"| {element.offset:02X} | {element.vr} |" in PAGE, element.name


def test_the_words_of_the_marks_stand_on_the_page():
    for word in (
        marks.MANUFACTURER,
        marks.MODEL_NAME,
        marks.SERIES_DESCRIPTION_PREFIX,
        "\\".join(marks.IMAGE_TYPE),
        marks.PRIVATE_CREATOR,
        marks.CODING_SCHEME,
        marks.IMPLEMENTATION_CLASS_UID,
        marks.IMPLEMENTATION_VERSION_NAME,
        marks.NOT_FOR_DIAGNOSIS,
    ):
        assert word in PAGE


def test_every_option_is_explained():
    for field in fields(ObjectOptions):
        assert f"`objects.{field.name}`" in PAGE
