"""Every written object is valid, complete, of the right patient, and lies on the CT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedInstance, DerivedSet
from rebrain_node.steps.write import AuditAnchor, ObjectOptions, write
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.support.validators import dciodvfy_errors, missing_attributes

SMALL = {
    "rows": 16,
    "columns": 16,
    "pixel_spacing_mm": (14.0, 14.0),
    "slice_distances_mm": (-12.0, -4.0, 4.0, 12.0),
}
IRREGULAR = tuple(4.0 * k for k in range(5)) + tuple(14.9 + 7.0 * k for k in range(4))
OPTIONS = ObjectOptions()
ANCHOR = AuditAnchor(sequence=42, sha256="a" * 64)
FLAG = Finding(code="AGE", sentence="older than the model's training", severity="flag", value=97.0)

#: Specific Character Set and a name in it
NAMES = {
    "japanese": ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "japanese katakana": (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "korean": ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "greek": ("ISO_IR 126", "Διονυσιος"),
    "arabic": ("ISO_IR 127", "قباني^لنزار"),
    "cyrillic": ("ISO_IR 144", "Иванов^Юрий"),
    "thai": ("ISO_IR 166", "นามสกุล^ชื่อ"),
    "chinese gb18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "chinese utf-8": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "german": ("ISO_IR 100", "Äneas^Rüdiger"),
}
#: what a source may lack, or hold empty
OPTIONAL = (
    "PatientAge",
    "StudyDescription",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "SeriesDate",
    "SeriesTime",
    "ContentDate",
    "ContentTime",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientBirthDate",
    "PatientSex",
    "BodyPartExamined",
    "PositionReferenceIndicator",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "SpecificCharacterSet",
    "SeriesDescription",
)


def stored(instances: list[Dataset]) -> list[Dataset]:
    """Read the instances from bytes, as they come from the inbox."""
    read = []
    for instance in instances:
        buffer = BytesIO()
        instance.save_as(buffer, enforce_file_format=True)
        read.append(pydicom.dcmread(BytesIO(buffer.getvalue())))
    return read


def named(case: str) -> list[Dataset]:
    character_set, name = NAMES[case]
    institution = name.split("=")[-1].replace("^", " ")
    return head_ct(
        **SMALL,
        character_set=character_set,
        patient_name=name,
        extra={"InstitutionName": institution, "StudyDescription": institution},
    )


def without_optional() -> list[Dataset]:
    source = head_ct(**SMALL)
    for instance in source:
        for keyword in OPTIONAL:
            instance.pop(keyword, None)
    return source


def implicit() -> list[Dataset]:
    source = head_ct(**SMALL)
    for instance in source:
        instance.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        instance["PixelData"].VR = "OW"
    return source


CASES: dict[str, Callable[[], list[Dataset]]] = {
    "tilted": lambda: head_ct(**SMALL, gantry_tilt_deg=10.5),
    "irregular": lambda: head_ct(**SMALL | {"slice_distances_mm": IRREGULAR}, gantry_tilt_deg=18.0),
    "feet first": lambda: head_ct(**SMALL, patient_position="FFP", shuffled=True),
    "enhanced": lambda: [enhanced_ct(**SMALL, shuffled=True)],
    "lossy": lambda: head_ct(
        **SMALL,
        extra={
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": 12.5,
            "LossyImageCompressionMethod": "ISO_10918_1",
        },
    ),
    "big endian": lambda: head_ct(**SMALL, transfer_syntax=pydicom.uid.ExplicitVRBigEndian),
    "implicit": implicit,
    "without optional attributes": without_optional,
    **{case: lambda case=case: named(case) for case in NAMES},
}


def written(source: list[Dataset], options: ObjectOptions = OPTIONS) -> DerivedSet:
    volume = synthetic_volume(source, rows=20, columns=18, pixel_mm=9.0)
    return write(volume, source, provenance(), (FLAG,), options, ANCHOR)


@cache
def written_once(case: str) -> DerivedSet:
    return written(stored(CASES[case]()))


def one_of_each(derived: DerivedSet) -> list[DerivedInstance]:
    kinds = {instance.kind: instance for instance in derived.instances}
    first = derived.instances[0]
    return [first, *kinds.values()]


@pytest.mark.hazard("H2")
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid_and_of_the_source_s_patient(case, tmp_path):
    source = stored(CASES[case]())
    raw = {
        keyword: source[0].get_item(keyword).value
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDescription")
        if keyword in source[0]
    }
    derived = written_once(case)
    assert {i.kind for i in derived.instances} == {"MR", "PM", "SEG", "SC", "PR", "SR", "KOS"}
    for instance in one_of_each(derived):
        assert dciodvfy_errors(instance.content, tmp_path) == []
        dataset = pydicom.dcmread(BytesIO(instance.content))
        for keyword, value in raw.items():
            assert dataset.get_item(keyword).value == value, f"{instance.kind} {keyword}"
        assert missing_attributes(dataset) == []
        assert dataset.get("SpecificCharacterSet") == source[0].get("SpecificCharacterSet")
        scanner = dataset.ContributingEquipmentSequence[0]
        assert scanner.get("Manufacturer") == source[0].get("Manufacturer", "UNKNOWN")
        assert "InstitutionName" not in scanner
        assert "StationName" not in scanner


#: the others are judged with REBRAIN_FULL=1
_QUICK = ("irregular", "enhanced", "without optional attributes")


@pytest.mark.parametrize(
    "case", [c if c in _QUICK else pytest.param(c, marks=pytest.mark.full) for c in CASES]
)
def test_an_enhanced_mr_and_its_companions_are_valid(case, tmp_path):
    derived = written(stored(CASES[case]()), replace(OPTIONS, mr="enhanced"))
    assert [i.kind for i in derived.instances] == ["MR", "PM", "SEG", "SC", "PR", "SR", "KOS"]
    for instance in derived.instances:
        assert dciodvfy_errors(instance.content, tmp_path) == []
        assert missing_attributes(pydicom.dcmread(BytesIO(instance.content))) == []


def test_an_independent_reader_finds_the_enhanced_mr_where_the_grid_is(tmp_path):
    source = head_ct(**SMALL | {"slice_distances_mm": IRREGULAR}, gantry_tilt_deg=-23.7)
    volume = synthetic_volume(source, rows=20, columns=18, pixel_mm=9.0)
    options = ObjectOptions(mr="enhanced", companions=())
    (instance,) = write(volume, source, provenance(), (), options).instances
    path = tmp_path / "mr.dcm"
    path.write_bytes(instance.content)
    image = SimpleITK.ReadImage(str(path))
    grid = volume.grid
    for k in (0, len(volume.guides) - 1):
        true = grid.plane_origin_mm(volume.prepared.targets[k].distance_mm)
        found = image.TransformIndexToPhysicalPoint((0, 0, k))
        assert np.linalg.norm(np.array(found) - true) <= 0.01
    values = SimpleITK.GetArrayFromImage(image)
    assert np.abs(values / 4095.0 - volume.intensity).max() < 1e-3


@pytest.mark.parametrize("precision", ["float32", "uint16"])
def test_both_precisions_of_the_map_are_valid(precision, tmp_path):
    derived = written(head_ct(**SMALL), ObjectOptions(companions=("PM",), map_precision=precision))
    assert dciodvfy_errors(derived.instances[-1].content, tmp_path) == []


def test_the_judges_are_not_blind(tmp_path):
    derived = written(head_ct(**SMALL), ObjectOptions(companions=()))
    dataset = pydicom.dcmread(BytesIO(derived.instances[0].content))
    del dataset.ScanningSequence
    del dataset.EchoTime
    buffer = BytesIO()
    dataset.save_as(buffer)
    assert len(dciodvfy_errors(buffer.getvalue(), tmp_path)) >= 2
    assert missing_attributes(dataset)


@pytest.mark.parametrize("case", CASES)
def test_the_same_input_gives_the_same_bytes(case):
    read_through = stored(CASES[case]())
    for instance in read_through:  # as after steps that have looked at every element
        for element in instance.iterall():
            _ = element.value
    second = written(read_through)
    assert [i.sha256 for i in written_once(case).instances] == [i.sha256 for i in second.instances]


@pytest.mark.hazard("H3", "H4")
@pytest.mark.parametrize(
    "changes",
    [
        {"gantry_tilt_deg": 10.5},
        {"gantry_tilt_deg": -23.7, "patient_position": "FFP"},
        {"orientation": (0.96, 0.28, 0.0, -0.28 * 0.8, 0.96 * 0.8, 0.6)},
        {"slice_distances_mm": IRREGULAR, "shuffled": True},
    ],
)
def test_an_independent_reader_finds_the_series_where_the_grid_is(changes, tmp_path):
    source = head_ct(**SMALL | changes)
    volume = synthetic_volume(source, rows=20, columns=18, pixel_mm=9.0, spacing_mm=1.0 / 0.3)
    derived = write(volume, source, provenance(), (), ObjectOptions(companions=()))
    image = read_with_simpleitk(derived, tmp_path)
    assert image.GetSize() == (18, 20, len(volume.guides))
    grid, last = volume.grid, volume.prepared.targets[-1]
    for c, r, k, distance in [
        (c, r, k, d)
        for c in (0, 17)
        for r in (0, 19)
        for k, d in ((0, 0.0), (len(volume.guides) - 1, last.distance_mm))
    ]:
        true = (
            grid.plane_origin_mm(distance)
            + grid.row_direction * grid.pixel_mm * c
            + grid.column_direction * grid.pixel_mm * r
        )
        found = image.TransformIndexToPhysicalPoint((c, r, k))
        assert np.linalg.norm(np.array(found) - true) <= 0.01
    values = SimpleITK.GetArrayFromImage(image)
    assert np.abs(values / 4095.0 - volume.intensity).max() < 1e-3


def read_with_simpleitk(derived: DerivedSet, folder: Path) -> SimpleITK.Image:
    for place, instance in enumerate(reversed(derived.instances)):  # order must not matter
        (folder / f"{place:03d}.dcm").write_bytes(instance.content)
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    return reader.Execute()


def test_once_lossy_is_always_lossy():
    derived = written_once("lossy")
    for instance in one_of_each(derived)[:-3]:  # images only
        dataset = pydicom.dcmread(BytesIO(instance.content))
        assert dataset.LossyImageCompression == "01"
        assert dataset.LossyImageCompressionRatio == 12.5


def test_a_toshiba_series_becomes_valid_objects(shared_data, tmp_path):
    paths = sorted((shared_data / "ct_toshiba_head_study").rglob("*"))
    instances = [pydicom.dcmread(p, stop_before_pixels=True) for p in paths if p.is_file()]
    source = [i for i in instances if i.get("SeriesDescription") == "Brain Head 5.0"]
    assert len(source) == 33
    derived = written(source)
    for instance in one_of_each(derived):
        assert dciodvfy_errors(instance.content, tmp_path) == []
        dataset = pydicom.dcmread(BytesIO(instance.content))
        assert missing_attributes(dataset) == []
        assert dataset.PatientID == source[0].PatientID
        assert dataset.SyntheticData == marks.SYNTHETIC_DATA
