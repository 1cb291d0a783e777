"""The MR series says where it lies, what it is and what it is made of."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet
from rebrain_node.domain.volume import StoredRange
from rebrain_node.errors import EngineError
from rebrain_node.steps.write import ObjectOptions, write
from rebrain_node.steps.write.encoding import decimal
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

SMALL = {"rows": 24, "columns": 24, "pixel_spacing_mm": (8.0, 8.0)}
FLAG = Finding(code="AGE", sentence="younger than 18 years", severity="flag", value=12.0)
MR_ONLY = ObjectOptions(companions=())


def written(instances: list[Dataset], options: ObjectOptions = MR_ONLY, **changes) -> DerivedSet:
    volume = synthetic_volume(instances, **changes)
    return write(volume, instances, provenance(), (FLAG,), options)


def read(derived: DerivedSet, kind: str = "MR") -> list[Dataset]:
    chosen = [instance for instance in derived.instances if instance.kind == kind]
    return [pydicom.dcmread(BytesIO(instance.content)) for instance in chosen]


@pytest.fixture(scope="module")
def source() -> list[Dataset]:
    return head_ct(**SMALL, gantry_tilt_deg=-17.3, slice_distances_mm=(-40.0, -34.0, -28.0, -17.5))


@pytest.fixture(scope="module")
def series(source) -> list[Dataset]:
    return read(written(source))


@pytest.mark.hazard("H6", "H21")
def test_every_slice_contains_every_mark(series):
    for image in series:
        assert image.SyntheticData == "YES"
        assert image.ContentQualification == "RESEARCH"
        assert tuple(image.ImageType) == marks.IMAGE_TYPE
        assert image.SeriesDescription.startswith(marks.SERIES_DESCRIPTION_PREFIX)
        assert image.ImageComments.startswith(marks.COMMENT_PREFIX)
        assert marks.NOT_FOR_DIAGNOSIS in image.ImageComments
        assert image.DerivationDescription.startswith(marks.DERIVATION_PREFIX)
        assert image.Manufacturer == marks.MANUFACTURER
        assert image.SOPInstanceUID.startswith(marks.UID_ROOT)
        assert image.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)


@pytest.mark.hazard("H21")
def test_no_value_claims_a_unit_that_could_be_measured(series):
    """Intensities are a display range: no rescale, no real world value, no quantity."""
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "Units",
                    "RealWorldValueMappingSequence", "QuantityDefinitionSequence"):  # fmt: skip
        assert not any(keyword in image for image in series)
    assert {tuple(image.ImageType)[:2] for image in series} == {("DERIVED", "SECONDARY")}


@pytest.mark.hazard("H6")
def test_nothing_pretends_to_a_scanner(series):
    for keyword in ("RepetitionTime", "EchoTime", "EchoTrainLength", "MRAcquisitionType"):
        assert all(keyword in image and not image[keyword].value for image in series)
    for keyword in ("MagneticFieldStrength", "ReceiveCoilName", "FlipAngle", "StationName"):
        assert not any(keyword in image for image in series)


def test_the_series_is_numbered_above_those_of_the_scanner(series):
    assert {image.SeriesNumber for image in series} == {9002}
    assert [image.InstanceNumber for image in series] == list(range(1, len(series) + 1))


def test_stored_values_are_the_intensities_in_twelve_bits(source, series):
    expected = synthetic_volume(source).intensity
    for image, plane in zip(series, expected, strict=True):
        assert np.abs(image.pixel_array / 4095.0 - plane).max() <= 0.5 / 4095.0 + 1e-6


@pytest.mark.parametrize("mr", ["classic", "enhanced"])
def test_the_recipe_s_range_decides_stored_values_and_window(source, mr):
    volume = replace(synthetic_volume(source), stored_range=StoredRange(black=96, white=3095))
    options = ObjectOptions(mr=mr, companions=())
    derived = write(volume, source, provenance(), (FLAG,), options)

    images = read(derived)
    pixels = np.concatenate([image.pixel_array.reshape(-1) for image in images])
    expected = np.rint(96 + np.clip(volume.intensity, 0, 1) * 2999).reshape(-1)
    np.testing.assert_array_equal(pixels, expected)
    for image in images:
        shown = image
        if mr == "enhanced":
            shown = image.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
        # linear window: black at centre - 0.5 - (width - 1) / 2, white at the other end
        centre, width = float(shown.WindowCenter), float(shown.WindowWidth)
        assert centre - 0.5 - (width - 1) / 2 == 96
        assert centre - 0.5 + (width - 1) / 2 == 3095


def test_positions_are_those_of_the_grid_without_drift(source, series):
    volume = synthetic_volume(source)
    grid = volume.grid
    for image, target in zip(series, volume.prepared.targets, strict=True):
        row, column = np.reshape(np.array(image.ImageOrientationPatient, dtype=float), (2, 3))
        spacing = np.array(image.PixelSpacing, dtype=float)
        corner = (
            np.array(image.ImagePositionPatient, dtype=float)
            + row * spacing[1] * (image.Columns - 1)
            + column * spacing[0] * (image.Rows - 1)
        )
        true = (
            grid.plane_origin_mm(target.distance_mm)
            + grid.row_direction * grid.pixel_mm * (grid.columns - 1)
            + grid.column_direction * grid.pixel_mm * (grid.rows - 1)
        )
        assert np.linalg.norm(corner - true) < 1e-6


@given(st.floats(min_value=-1e6, max_value=1e6, allow_nan=False))
@settings(max_examples=200, deadline=None)
def test_a_decimal_string_holds_its_number_in_sixteen_characters(value):
    text = decimal(value)
    assert len(text) <= 16
    assert abs(float(text) - value) <= max(1e-12, abs(value) * 1e-8)
    assert not text.startswith("-0.0") or float(text) != 0.0


def test_each_slice_names_the_measured_slices_that_bracket_it(source, series):
    volume = synthetic_volume(source)
    for image, guide in zip(series, volume.guides, strict=True):
        bracket = dict.fromkeys((guide.target.below, guide.target.above))
        expected = [volume.prepared.sop_instance_uids[n] for n in bracket]
        named = [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence]
        assert named == expected
    whole = series[0].ReferencedSeriesSequence[0]
    assert whole.SeriesInstanceUID == source[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in whole.ReferencedInstanceSequence} == {
        instance.SOPInstanceUID for instance in source
    }


def test_frames_of_an_enhanced_ct_are_named_by_number():
    source = enhanced_ct(**SMALL, slice_distances_mm=(0.0, 6.0, 12.0), shuffled=True)
    volume = synthetic_volume([source])
    series = read(written([source]))
    for image, guide in zip(series, volume.guides, strict=True):
        (item,) = image.SourceImageSequence
        bracket = dict.fromkeys((guide.target.below, guide.target.above))
        expected = [volume.prepared.frame_numbers[n] for n in bracket]
        named = item.ReferencedFrameNumber
        assert (list(named) if len(expected) > 1 else [named]) == expected
        block = image.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
        frames = block[marks.NEIGHBOUR_FRAMES.offset].value
        assert (list(frames) if len(expected) > 1 else [frames]) == expected


def test_the_private_block_tells_how_each_slice_came_about(source, series):
    volume = synthetic_volume(source)
    kinds = set()
    for image, guide in zip(series, volume.guides, strict=True):
        block = image.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
        kinds.add(guide.kind)
        assert block[marks.POSITION_KIND.offset].value == marks.POSITION_KINDS[guide.kind]
        assert block[marks.ALPHA.offset].value == guide.target.alpha
        assert block[marks.JOB.offset].value == provenance().digest
        assert block[marks.FINDINGS.offset].value == "AGE"
        assert (marks.SIMILARITY.offset in block) == (guide.kind == "retrieved")
        assert block[marks.UNCERTAIN_ABOVE.offset].value == MR_ONLY.uncertain_above
        assert marks.PREDECESSOR.offset not in block  # a first revision has none
        for element in (*marks.OBJECT_ELEMENTS, *marks.SLICE_ELEMENTS_ALWAYS):
            if element not in {marks.PREDECESSOR, marks.UNTRUSTED_ABOVE, marks.TISSUE_SHIFT}:
                assert element.vr == block[element.offset].VR
    assert kinds == {"measured", "retrieved", "interpolated"}


def test_the_three_machines_are_told_apart(series):
    codes = [
        item.PurposeOfReferenceCodeSequence[0].CodeValue
        for item in series[0].ContributingEquipmentSequence
    ]
    assert codes == ["109101", "109100", "109102"]
    scanner, model, _ = series[0].ContributingEquipmentSequence
    assert scanner.Manufacturer == "PHANTOM"
    assert model.ManufacturerModelName == "demo"
    assert model.DeviceUID.startswith(marks.UID_ROOT)


@pytest.mark.hazard("H15")
def test_a_value_that_is_not_finite_stops_the_writing(source):
    volume = synthetic_volume(source)
    volume.intensity[1, 2, 3] = np.nan
    with pytest.raises(EngineError, match=r"1 of .* voxels of the intensity"):
        write(volume, source, provenance(), (), MR_ONLY)
