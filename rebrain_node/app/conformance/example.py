"""Small sets of objects, written by the node's own writer from CTs that differ in everything.

The tables of attributes are read from them: what is the same in all is fixed, what follows the CT
is copied, and what is missing in some depends on the CT.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import Predecessor, Provenance
from rebrain_node.domain.uncertainty import RULE_OF_THUMB, UncertaintyInterpretation
from rebrain_node.domain.volume import (
    Grid,
    Guide,
    PlaneRegistration,
    PreparedVolume,
    StoredRange,
    SyntheticVolume,
    Target,
    TissueLevel,
)
from rebrain_node.steps.write import AuditAnchor, write
from rebrain_node.steps.write.source import OPTIONAL_IDENTITY

if TYPE_CHECKING:
    from rebrain_node.steps.write import ObjectOptions

_SLICES: Final = 4


@dataclass(frozen=True, kw_only=True)
class ExampleSet:
    """One set as it was written, and an instance of the CT that it was written from."""

    source: Dataset
    objects: dict[str, list[Dataset]]  #: by kind


def example_sets(options: ObjectOptions) -> tuple[ExampleSet, ...]:
    """Write four sets: two CTs with every attribute, one with the least, one of later revision."""
    before = Predecessor(
        revision=1, mr_series_uid="2.25.1", report_series_uid="2.25.2", report_uid="2.25.3"
    )
    calibrated = UncertaintyInterpretation(alpha=0.1, subjects=25, untrusted_above=0.5)
    uncalibrated = UncertaintyInterpretation(alpha=0.2, subjects=4, untrusted_above=0.01)
    anchor = AuditAnchor(sequence=1, sha256="a" * 64, signature="1 now key signature")
    flag = Finding(code="AGE", sentence="older than the heads of the training", severity="flag")
    cases = (
        ("1", _ct("1"), (flag,), RULE_OF_THUMB, anchor),
        ("2", _ct("2"), (), calibrated, anchor),
        ("3", _least(_ct("3")), (), RULE_OF_THUMB, None),
        ("4", _ct("4"), (), uncalibrated, None),
    )
    sets = []
    for name, instances, findings, meaning, head in cases:
        provenance = _provenance(name, before if name == "2" else None)
        volume = _volume(name, instances, meaning)
        derived = write(volume, instances, provenance, findings, options, head)
        objects: dict[str, list[Dataset]] = {}
        for each in derived.instances:
            objects.setdefault(each.kind, []).append(dcmread(BytesIO(each.content)))
        sets.append(ExampleSet(source=instances[0], objects=objects))
    return tuple(sets)


def _provenance(name: str, predecessor: Predecessor | None = None) -> Provenance:
    return Provenance(
        source_series_uid=f"2.25.{name}",
        input_digest=name * 64,
        bundle_name=f"bundle-{name}",
        bundle_version=f"{name}.0.0",
        bundle_digest=name * 64,
        engine_identity=f"engine {name}",
        configuration_digest=name * 64,
        software_version=f"0.{name}",
        revision=1 if predecessor is None else 2,
        predecessor=predecessor,
        completeness="VERIFIED" if name == "1" else "UNVERIFIED",
    )


def _ct(name: str) -> list[Dataset]:
    """Make a CT of three slices whose values hold the name, as it is read from the inbox."""
    return [_slice(name, number) for number in range(_SLICES)]


def _slice(name: str, number: int) -> Dataset:
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 100" if name == "1" else "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"2.25.{name}000{number}"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = f"2026010{name}"
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = f"10000{name}"
    image.Modality = "CT"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, keyword, f"2.25.{name}{len(keyword)}")
    for keyword in (*_TEXTS, *OPTIONAL_IDENTITY):
        if keyword not in image and keyword not in _OTHER:
            setattr(image, keyword, f"{keyword[:12]} {name}")
    image.PatientBirthDate, image.PatientBirthTime = f"1960010{name}", f"08000{name}"
    image.PatientSex, image.PatientAge = "FMOF"[int(name) - 1], f"06{name}Y"
    image.PatientSize, image.PatientWeight = f"1.7{name}", f"7{name}"
    image.TimezoneOffsetFromUTC = f"+0{name}00"
    image.TypeOfPatientID = "TEXT" if name == "1" else "RFID"
    image.SeriesNumber, image.InstanceNumber = int(name), number + 1
    along = _sign(name)
    image.ImagePositionPatient = [-60.0 * along, -60.0 - int(name), 5.0 * along * number]
    image.ImageOrientationPatient = [along, 0.0, 0.0, 0.0, 1.0, 0.0]
    image.PixelSpacing, image.SliceThickness = [_pixel_mm(name)] * 2, 5.0
    image.PatientPosition = "HFS" if along > 0 else "FFS"
    image.PositionReferenceIndicator = f"SN{name}"
    image.BodyPartExamined = "HEAD" if name == "1" else "BRAIN"
    image.Rows, image.Columns = _size(name)
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.PhotometricInterpretation = "MONOCHROME2"
    image.RescaleSlope, image.RescaleIntercept = 1.0, -1024.0
    if name in "24":
        image.LossyImageCompression, image.LossyImageCompressionRatio = "01", float(name)
        image.LossyImageCompressionMethod = "ISO_10918_1" if name == "2" else "ISO_14495_1"
    image.PixelData = bytes(2 * image.Rows * image.Columns)
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return dcmread(BytesIO(stream.getvalue()))


def _sign(name: str) -> float:
    """Direction of the rows, and with it of the slices: head first, or feet first."""
    return -1.0 if name == "2" else 1.0


def _pixel_mm(name: str) -> float:
    return 4.0 + int(name)


def _size(name: str) -> tuple[int, int]:
    """Rows and columns; one large enough that the preview is wider than its narrowest."""
    return (160, 170) if name == "4" else (20 + 2 * int(name), 22 + 2 * int(name))


_TEXTS: Final = (
    "PatientName", "PatientID", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "SeriesDescription", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber",
    "SoftwareVersions",
)  # fmt: skip
#: attributes whose values are no free text, or are to be missing in every example
_OTHER: Final = frozenset({
    "PatientBirthTime", "PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC",
    "TypeOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "LongitudinalTemporalInformationModified", "PatientBirthDate", "PatientSex",
})  # fmt: skip


def _least(instances: list[Dataset]) -> list[Dataset]:
    """Take away what the node does without."""
    gone = {*_TEXTS, *OPTIONAL_IDENTITY, "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
            "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "SeriesNumber",
            "InstanceNumber", "PositionReferenceIndicator", "BodyPartExamined"}  # fmt: skip
    for image in instances:
        for keyword in gone:
            image.pop(keyword, None)
    return instances


def _volume(
    name: str, instances: list[Dataset], meaning: UncertaintyInterpretation
) -> SyntheticVolume:
    """Make a disc of three slices: measured, guided by an exemplar, interpolated."""
    rows, columns = _size(name)
    spacing_mm = 4.0 + int(name) / 10
    places = [spacing_mm * k / 5.0 for k in range(4 if name == "4" else 3)]  # in source slices
    targets = tuple(
        Target(distance_mm=5.0 * p, below=int(p), above=int(p) + (p > 0), alpha=p - int(p))
        for p in places
    )
    across = np.hypot(*np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns),
                                   indexing="ij"))  # fmt: skip
    radius = across[None].repeat(len(targets), axis=0)
    head = radius < 0.9
    intensity = np.where(head, 0.9 - 0.1 * int(name) * radius, 0.0).astype(np.float32)
    return SyntheticVolume(
        intensity=intensity,
        uncertainty=np.where(head, 0.3 * (1.0 - intensity), 0.0).astype(np.float32),
        meaning=meaning,
        head=head,
        guides=_guides(int(name), targets),
        prepared=_prepared(name, instances, targets, limited=meaning.untrusted_above is not None),
        stored_range=StoredRange(black=10 * int(name), white=1000 * int(name)),
    )


def _guides(number: int, targets: tuple[Target, ...]) -> tuple[Guide, ...]:
    return (
        Guide(target=targets[0], kind="measured", reason="a measured slice lies here"),
        Guide(
            target=targets[1],
            kind="retrieved",
            reason="an exemplar is similar enough",
            similarity=0.9 + number / 100,
            tau=0.8 + number / 100,
            exemplar=str(number) * 32,
            position_difference_mm=-1.0 * number,
            registration=PlaneRegistration(
                rotation_deg=1.0 * number, scale=1.0, posterior_mm=0.0, left_mm=0.0
            ),
        ),
        *(
            Guide(target=each, kind="interpolated", reason="no exemplar is similar enough")
            for each in targets[2:]
        ),
    )


def _prepared(
    name: str, instances: list[Dataset], targets: tuple[Target, ...], *, limited: bool
) -> PreparedVolume:
    rows, columns = _size(name)
    shape = (_SLICES, rows, columns)
    grid = Grid(
        origin_mm=np.array(instances[0].ImagePositionPatient, dtype=float),
        row_direction=np.array([_sign(name), 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_mm=_pixel_mm(name),
        rows=rows,
        columns=columns,
    )
    shift = 3.0 + int(name)
    return PreparedVolume(
        hu=np.full(shape, 40.0, dtype=np.float32),
        head=np.ones(shape, dtype=bool),
        grid=grid,
        distances_mm=np.arange(_SLICES, dtype=np.float64) * 5.0,
        thickness_mm=(5.0,) * _SLICES,
        targets=targets,
        spacing_mm=targets[1].distance_mm,
        sop_instance_uids=tuple(str(each.SOPInstanceUID) for each in instances),
        frame_numbers=(None,) * _SLICES,
        frame_of_reference_uid=str(instances[0].FrameOfReferenceUID),
        tissue=TissueLevel(measured_hu=33.0 - shift, expected_hu=33.0, shift_hu=shift)
        if limited
        else None,
    )
