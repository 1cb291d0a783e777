"""Map, segmentation, preview, report and key objects say what the volume holds."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from io import BytesIO

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.pictures import KINDS, lettering
from rebrain_node.steps.write import AuditAnchor, ObjectOptions, codes, preview, write
from rebrain_node.steps.write.preview import BANNER, CAPTIONS, WARNING, draw
from rebrain_node.steps.write.report import NO_FINDING
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

TINY = {
    "rows": 16,
    "columns": 16,
    "pixel_spacing_mm": (14.0, 14.0),
    "slice_distances_mm": (-18.0, -6.0, 6.0, 18.0),
}
FLAG = Finding(code="AGE", sentence="older than 90° years", severity="flag", value=97.0, limit=90.0)
CALIBRATED = UncertaintyInterpretation(alpha=0.1, subjects=20)
HEAD = AuditAnchor(sequence=42, sha256="b" * 64)


def objects(
    options: ObjectOptions,
    source: list[Dataset] | None = None,
    anchor: AuditAnchor | None = None,
) -> dict[str, list]:
    source = source or head_ct(**TINY, gantry_tilt_deg=10.5)
    derived = write(synthetic_volume(source), source, provenance(), (FLAG,), options, anchor)
    found: dict[str, list] = {}
    for instance in derived.instances:
        found.setdefault(instance.kind, []).append(pydicom.dcmread(BytesIO(instance.content)))
    return found


@pytest.fixture(scope="module")
def full() -> dict[str, list]:
    return objects(ObjectOptions(), anchor=HEAD)


@pytest.fixture(scope="module")
def volume():
    return synthetic_volume(head_ct(**TINY, gantry_tilt_deg=10.5))


def test_no_database_of_highdicom_is_left_open(monkeypatch):
    made, connect = [], sqlite3.connect

    def recorded(place):
        made.append(connect(place))
        return made[-1]

    monkeypatch.setattr("highdicom.image.sqlite3.connect", recorded)
    objects(ObjectOptions())
    assert len(made) == 2
    for each in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            each.execute("SELECT 1")


def test_all_objects_are_of_one_study_and_their_own_series(full):
    datasets = [dataset for kind in full.values() for dataset in kind]
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == 1
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 7
    assert len({dataset.SeriesNumber for dataset in datasets}) == 7
    assert all(dataset.SyntheticData == "YES" for dataset in datasets)
    assert all(dataset.SeriesDescription.startswith("SYNTH ") for dataset in datasets)
    assert not any("InstanceCreationDate" in dataset for dataset in datasets)


@pytest.mark.parametrize("companions", [(), ("PM",), ("SR", "KOS"), ("SEG", "SC", "KOS")])
def test_only_the_companions_asked_for_are_written_in_the_order_of_sending(companions):
    found = objects(ObjectOptions(companions=companions))
    assert tuple(found) == ("MR", *companions)


def source_of(group: Dataset) -> str:
    """Which slice a frame belongs to."""
    (source,) = group.DerivationImageSequence[0].SourceImageSequence
    return source.ReferencedSOPInstanceUID


@pytest.mark.hazard("H16")
@pytest.mark.parametrize(("precision", "step"), [("float32", 1e-7), ("uint16", 0.5 / 65535)])
def test_the_map_gives_back_the_uncertainty(volume, precision, step):
    found = objects(ObjectOptions(companions=("PM",), map_precision=precision))
    map_image = highdicom.pm.ParametricMap.from_dataset(found["PM"][0])
    with closing(map_image._db_con):
        values = map_image.get_frames(apply_real_world_transform=True)
    order = [image.SOPInstanceUID for image in found["MR"]]
    for frame, group in zip(values, found["PM"][0].PerFrameFunctionalGroupsSequence, strict=True):
        k = order.index(source_of(group))
        assert np.abs(frame - volume.uncertainty[k]).max() <= step + 1e-7


@pytest.mark.hazard("H16")
def test_the_map_lies_on_the_series_frame_by_slice(full):
    (dataset,) = full["PM"]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert dataset.FrameOfReferenceUID == full["MR"][0].FrameOfReferenceUID
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert orientation == full["MR"][0].ImageOrientationPatient
    positions = {image.SOPInstanceUID: image.ImagePositionPatient for image in full["MR"]}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert position == positions.pop(source_of(group))
    assert not positions


def test_an_uncalibrated_uncertainty_says_so_everywhere(full):
    mapping = full["PM"][0].SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.LUTLabel == "UNCALIBRATED"
    assert "UNCALIBRATED" in full["PM"][0].SeriesDescription
    assert "UNCALIBRATED" in full["MR"][0].ImageComments
    assert "UNCALIBRATED" in full["SEG"][0].SegmentSequence[0].SegmentLabel


def test_a_calibrated_uncertainty_does_not():
    source = head_ct(**TINY)
    volume = synthetic_volume(source, meaning=CALIBRATED)
    for instance in write(volume, source, provenance(), (), ObjectOptions()).instances:
        assert b"UNCALIBRATED" not in instance.content


def test_the_segmentation_holds_the_voxels_above_the_limit_and_outside(volume):
    found = objects(ObjectOptions(companions=("SEG",), uncertain_above=0.15))
    segmentation = highdicom.seg.Segmentation.from_dataset(found["SEG"][0])
    with closing(segmentation._db_con):
        voxels = segmentation.get_pixels_by_source_instance(
            [image.SOPInstanceUID for image in found["MR"]],
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
    uncertain = volume.head & (volume.uncertainty > 0.15)
    assert 0 < uncertain.sum() < volume.head.sum()
    assert np.array_equal(voxels[..., 0], uncertain)
    assert np.array_equal(voxels[..., 1], ~volume.head)


def test_a_volume_without_doubt_or_outside_still_gives_a_segmentation(caplog):
    source = head_ct(**TINY)
    volume = synthetic_volume(source)
    volume.head[:] = True
    volume.uncertainty[:] = 0.0
    derived = write(volume, source, provenance(), (), ObjectOptions(companions=("SEG",)))
    dataset = pydicom.dcmread(BytesIO(derived.instances[-1].content))
    assert len(dataset.SegmentSequence) == 2
    assert not dataset.pixel_array.any()
    assert not caplog.records


def numbers(group: Dataset) -> dict[str, float]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def texts(group: Dataset) -> dict[str, str]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: item.TextValue
        for item in group.ContentSequence
        if item.ValueType == "TEXT"
    }


def coded(group: Dataset) -> dict[str, tuple[str, str]]:
    """Code value and scheme of each coded item, by the code of its name."""
    return {
        item.ConceptNameCodeSequence[0].CodeValue: (
            item.ConceptCodeSequence[0].CodeValue,
            item.ConceptCodeSequence[0].CodingSchemeDesignator,
        )
        for item in group.ContentSequence
        if item.ValueType == "CODE"
    }


def groups(report: Dataset) -> list[Dataset]:
    report = highdicom.sr.Comprehensive3DSR.from_dataset(report)
    return [g[0] for g in report.content.get_image_measurement_groups()]


@pytest.mark.parametrize("kind", ["PM", "SEG"])
def test_frames_lie_in_the_order_of_the_slices_of_the_series(full, volume, kind):
    (dataset,) = full[kind]
    heights = {d.SOPInstanceUID: float(d.ImagePositionPatient[2]) for d in full["MR"]}
    pixels = dataset.pixel_array
    by_segment: dict[int, list[int]] = {}
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = [*heights].index(source)
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert float(position[2]) == pytest.approx(heights[source])
        segment = frame.get("SegmentIdentificationSequence")
        segment_number = segment[0].ReferencedSegmentNumber if segment else 0
        by_segment.setdefault(segment_number, []).append(place)
        values = np.clip(volume.uncertainty[place], 0.0, 1.0)
        expected = {
            0: np.rint(values * 65535),
            1: volume.head[place] & (values > ObjectOptions().uncertain_above),
            2: ~volume.head[place],
        }[segment_number]
        assert np.array_equal(pixels[number], expected)
        index = frame.FrameContentSequence[0].DimensionIndexValues
        assert (index if isinstance(index, int) else index[-1]) == place + 1
    assert all(places == sorted(places) for places in by_segment.values())


def test_the_report_tells_the_whole(full, volume):
    (report,) = full["SR"]
    assert report.VerificationFlag == "UNVERIFIED"
    whole = texts(groups(report)[0])
    assert coded(groups(report)[0])[codes.COMPLETENESS[0]] == ("UNVERIFIED", "99REBRAIN")
    assert whole[codes.AUDIT_HEAD[0]] == f"42 {'b' * 64}"
    assert whole[codes.BUNDLE_DIGEST[0]] == "2" * 64
    assert whole[codes.CONFIGURATION_DIGEST[0]] == "3" * 64
    assert whole[codes.FINDING[0]].startswith("AGE: older than 90")
    assert "seen 97.0, limit 90.0" in whole[codes.FINDING[0]]
    assert whole["111001"] == "demo"
    mean = volume.uncertainty[volume.head].mean()
    assert numbers(groups(report)[0])[codes.UNCERTAINTY[0]] == pytest.approx(mean, rel=5e-3)


def test_the_report_begins_with_a_summary_in_sentences(full, volume):
    content = full["SR"][0].ContentSequence
    contained = [item for item in content if item.RelationshipType == "CONTAINS"]
    assert contained[0].ConceptNameCodeSequence[0].CodeMeaning == "Summary"
    text = contained[0].TextValue
    assert text.startswith("SYNTHETIC - NOT FOR DIAGNOSIS. The model demo ")
    counts = Counter(guide.kind for guide in volume.guides)
    assert f"{len(volume.guides)} slices: {counts['measured']} at an acquired CT slice" in text
    mean = volume.uncertainty[volume.head].mean()
    assert f"Mean uncertainty in the head: {mean:.3g}" in text
    assert "Findings: AGE." in text


def test_values_of_a_group_stand_on_their_own_and_show_three_digits(full):
    (report,) = full["SR"]
    measurements = report.ContentSequence[-1]
    assert measurements.ContinuityOfContent == "SEPARATE"
    assert {group.ContinuityOfContent for group in measurements.ContentSequence} == {"SEPARATE"}
    for item in groups(report)[1].ContentSequence:
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0]
            assert len(str(value.NumericValue).lstrip("-0.").replace(".", "")) <= 3
            assert float(value.NumericValue) == pytest.approx(value.FloatingPointValue, rel=5e-3)


def test_the_report_counts_the_slices_by_kind(full, volume):
    counts = {}
    for item in groups(full["SR"][0])[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == codes.COUNT[0]:
            kind = item.ContentSequence[0].ConceptCodeSequence[0].CodeValue.lower()
            assert str(item.MeasuredValueSequence[0].NumericValue).isdigit()
            counts[kind] = int(item.MeasuredValueSequence[0].NumericValue)
    assert counts == dict(Counter(guide.kind for guide in volume.guides))


def test_the_report_has_a_row_for_each_slice(full, volume):
    rows = groups(full["SR"][0])[1:]
    for row, guide, image in zip(rows, volume.guides, full["MR"], strict=True):
        seen = numbers(row)
        assert seen[codes.DISTANCE[0]] == pytest.approx(guide.target.distance_mm, rel=5e-3)
        assert seen[codes.ALPHA[0]] == pytest.approx(guide.target.alpha, rel=5e-3)
        assert (codes.SIMILARITY[0] in seen) == (guide.similarity is not None)
        assert (codes.EXEMPLAR[0] in texts(row)) == (guide.exemplar is not None)
        referenced = [
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in row.ContentSequence
            if item.ValueType == "IMAGE"
        ]
        bracket = dict.fromkeys((guide.target.below, guide.target.above))
        around = [volume.prepared.sop_instance_uids[n] for n in bracket]
        assert referenced == [*around, image.SOPInstanceUID]


def test_the_report_lists_frames_of_an_enhanced_ct():
    found = objects(ObjectOptions(companions=("SR",)), [enhanced_ct(**TINY)])
    row = groups(found["SR"][0])[1]
    (first, *_) = [item for item in row.ContentSequence if item.ValueType == "IMAGE"]
    assert first.ReferencedSOPSequence[0].ReferencedFrameNumber == 1


def test_a_report_without_finding_or_audit_log_says_none_and_anchors_nothing():
    source = head_ct(**TINY)
    derived = write(synthetic_volume(source), source, provenance(), (), ObjectOptions())
    report = next(i for i in derived.instances if i.kind == "SR")
    whole = texts(groups(pydicom.dcmread(BytesIO(report.content)))[0])
    assert whole[codes.FINDING[0]] == NO_FINDING
    assert codes.AUDIT_HEAD[0] not in whole


def evidence(document: Dataset) -> set[str]:
    return {
        instance.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def test_the_key_objects_list_everything_before_them_and_nothing_else(full):
    (document,) = full["KOS"]
    before = {d.SOPInstanceUID for kind, ds in full.items() if kind != "KOS" for d in ds}
    assert evidence(document) == before
    listed = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.ContentSequence
        if item.ValueType in {"IMAGE", "COMPOSITE"}
    }
    assert listed == before


def test_the_report_names_source_series_and_companions_as_evidence(full):
    source = {instance.SOPInstanceUID for instance in head_ct(**TINY, gantry_tilt_deg=10.5)}
    others = {d.SOPInstanceUID for kind in ("MR", "PM", "SEG", "SC", "PR") for d in full[kind]}
    assert evidence(full["SR"][0]) == source | others


def test_every_letter_of_the_banner_has_a_glyph():
    key = (*preview.KIND_WORDS.values(), *preview.MAP_ENDS, preview.LENGTH, *"RLAP")
    lines = (BANNER, preview.CALIBRATED, preview.UNCALIBRATED, *key)
    for text in (*lines, *(caption for row in CAPTIONS for caption in row)):
        assert lettering(text, 2).shape == (14, 12 * len(text))
        assert all(lettering(letter, 1).any() for letter in text if letter != " ")


def is_warning(picture: np.ndarray) -> np.ndarray:
    return (picture == np.array(WARNING)).all(axis=-1)


def test_without_a_banner_nothing_is_written_into_the_picture(volume):
    grey = draw(volume, "none")
    bars = np.isin(grey.reshape(-1, 3), list(KINDS.values())).all(axis=-1)
    assert is_warning(grey).sum() <= bars.sum()  # orange only in the bars of kinds


@pytest.mark.parametrize("banner", ["border", "full"])
def test_a_banner_stands_around_the_anatomy_never_on_it(volume, banner):
    plain, marked = draw(volume, "none"), draw(volume, banner)
    assert is_warning(marked[0]).all()
    assert is_warning(marked[-1]).all()
    assert is_warning(marked[:, 0]).all()
    ink = is_warning(marked[4:-4, 4:-4])
    assert ink.sum() > lettering(BANNER, 2).sum() * 0.9
    rows, columns = volume.grid.rows, volume.grid.columns
    half = plain.shape[0] // 2
    for panel in (plain[:rows, 3 : 3 + columns], plain[half : half + rows, 3 : 3 + columns]):
        assert holds(marked, panel)


def holds(picture: np.ndarray, panel: np.ndarray) -> bool:
    """Whether a part of the picture equals the panel."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, panel.shape)
    return bool((windows[:, :, 0] == panel).all(axis=(-3, -2, -1)).any())


@pytest.mark.parametrize("banner", ["border", "full"])
def test_the_preview_tells_sides_colours_and_a_length(volume, banner):
    marked = draw(volume, banner)
    for letter in "RLAP":
        ink = lettering(letter, 2)
        drawn = np.where(ink[..., None], np.array(WARNING, dtype=np.uint8), np.uint8(0))
        assert holds(marked, drawn), letter
    for colour in KINDS.values():
        assert holds(marked, np.full((14, 14, 3), colour, dtype=np.uint8))
    ruler = round(50.0 / volume.grid.pixel_mm)
    assert holds(marked, np.full((2, ruler, 3), WARNING, dtype=np.uint8))


def test_the_preview_shows_the_head_upright():
    source = head_ct(**TINY)
    volume = synthetic_volume(source, pixel_mm=2.0)
    volume.intensity[:] = 0.0
    volume.intensity[-1] = 1.0  # the uppermost slice
    picture = draw(volume, "none")
    panel = picture[: picture.shape[0] // 2, volume.grid.columns + 6 :]
    bright = np.flatnonzero((panel == 255).all(axis=(-1)).any(axis=1))
    assert bright.size
    assert bright.max() < panel.shape[0] / 4


@pytest.mark.hazard("H3")
@pytest.mark.parametrize(("row", "column"), [(1, 1), (-1, -1), (1, -1), (-1, 1)])
def test_the_preview_shows_the_left_of_the_patient_on_the_right_and_the_front_on_top(row, column):
    volume = synthetic_volume(head_ct(**TINY))
    prepared = volume.prepared
    grid = replace(
        prepared.grid,
        row_direction=row * np.array([1.0, 0.0, 0.0]),
        column_direction=column * np.array([0.0, 1.0, 0.0]),
    )
    volume = replace(volume, prepared=replace(prepared, grid=grid))
    volume.intensity[:] = 0.0
    bright = volume.intensity[:, :3] if column > 0 else volume.intensity[:, -3:]
    bright = bright[:, :, -3:] if row > 0 else bright[:, :, :3]
    bright[:] = 1.0  # the corner at the patient's front and left
    axial = draw(volume, "none")[: grid.rows, 3 : 3 + grid.columns, 0]
    assert np.argwhere(axial == 255).min(axis=0).tolist() == [0, grid.columns - 3]
    assert (axial == 255).sum() == 9
