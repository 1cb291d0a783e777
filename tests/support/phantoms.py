"""Head CT phantoms of known shape, as complete and valid CT instances.

The head is a stack of ellipsoids in patient coordinates (LPS, mm, origin in the middle of the
brain), painted in order; every instance samples it at its own voxel centres, averaged over the
slice thickness, so whatever the orientation, the anatomy stays where it is in the patient.
A cyst-like marker of 200 HU lies left, anterior and superior: a flip along any axis moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from rebrain_node.instance.jpeg_xl import JPEG_XL_LOSSLESS

AIR_HU = -1000.0
#: LPS of the marker, mm: left, anterior, superior
MARKER_MM = (28.0, -35.0, 30.0)
MARKER_RADIUS_MM = 9.0
MARKER_HU = 200.0

#: Image Orientation (Patient) of an axial image for each Patient Position (0018,5100)
ORIENTATIONS = {
    "HFS": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "HFP": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "FFS": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "FFP": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "HFDR": (0.0, -1.0, 0.0, 1.0, 0.0, 0.0),
    "HFDL": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
}

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """One painted part of the head."""

    centre_mm: Vector
    semi_axes_mm: Vector
    hu: float


#: painted in order, later parts over earlier ones
HEAD = (
    Ellipsoid((0.0, -96.0, -30.0), (11.0, 14.0, 16.0), 20.0),  # nose
    Ellipsoid((0.0, 0.0, 0.0), (77.0, 96.0, 92.0), -95.0),  # scalp fat
    Ellipsoid((0.0, 0.0, 0.0), (73.0, 92.0, 88.0), 1100.0),  # outer table of the skull
    Ellipsoid((0.0, 0.0, 0.0), (69.0, 88.0, 84.0), 900.0),  # diploe
    Ellipsoid((0.0, 0.0, 0.0), (66.0, 85.0, 81.0), 8.0),  # cerebrospinal fluid
    Ellipsoid((0.0, 0.0, 0.0), (63.0, 82.0, 78.0), 38.0),  # grey matter
    Ellipsoid((28.0, 0.0, 5.0), (26.0, 66.0, 58.0), 29.0),  # white matter, left
    Ellipsoid((-28.0, 0.0, 5.0), (26.0, 66.0, 58.0), 29.0),  # white matter, right
    Ellipsoid((11.0, -8.0, 10.0), (6.0, 26.0, 13.0), 6.0),  # lateral ventricle, left
    Ellipsoid((-11.0, -4.0, 10.0), (5.0, 22.0, 12.0), 6.0),  # lateral ventricle, right
    Ellipsoid((0.0, 34.0, -52.0), (38.0, 26.0, 22.0), 36.0),  # cerebellum
)
_MARKER = Ellipsoid(MARKER_MM, (MARKER_RADIUS_MM,) * 3, MARKER_HU)
_VESSELS = (
    Ellipsoid((0.0, -10.0, -30.0), (28.0, 3.0, 3.0), 300.0),
    Ellipsoid((0.0, -25.0, -25.0), (3.0, 20.0, 3.0), 300.0),
    Ellipsoid((0.0, 74.0, 10.0), (4.0, 5.0, 60.0), 220.0),
)
_METAL = Ellipsoid((-18.0, -20.0, -10.0), (6.0, 6.0, 6.0), 9000.0)


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """Everything that can differ between two phantoms."""

    seed: int = 0  #: of noise, shuffling and UIDs
    # geometry
    rows: int = 128
    columns: int = 128
    pixel_spacing_mm: tuple[float, float] = (2.0, 2.0)  #: between rows, between columns
    slice_distances_mm: tuple[float, ...] = tuple(-60.0 + 6.0 * k for k in range(24))
    slice_thickness_mm: float | tuple[float, ...] = 5.0
    gantry_tilt_deg: float = 0.0  #: planes lean about their row axis, the table moves straight
    orientation: tuple[float, ...] | None = None  #: six cosines; default by patient position
    patient_position: str = "HFS"
    offset_mm: Vector = (0.0, 0.0, 0.0)  #: of the head against the scanner's centre, LPS
    # what is scanned
    scale: float = 1.0  #: of the head; a child's is about 0.75
    table: bool = True
    noise_hu: float = 0.0
    vessels: bool = False
    metal: bool = False
    craniectomy: bool = False
    motion_mm: float = 0.0  #: ghost shifted by so much in every second slice
    blank: bool = False  #: air everywhere: quick, for what reads headers only
    parts: tuple[Ellipsoid, ...] = ()  #: painted last
    # how it is stored: from here on nothing changes the Hounsfield units
    slope: float = 1.0
    intercept: float = -1024.0
    signed: bool = True
    bits_stored: int = 16
    padding: int | None = None  #: stored value outside the circle of the field of view
    declare_padding: bool = True
    transfer_syntax: str = ExplicitVRLittleEndian
    shuffled: bool = False
    instance_numbers: bool = True
    # header
    series_description: str = "Head 5.0 H31s"
    series_number: int = 2
    kernel: str = "H31s"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    contrast_agent: str | None = None
    patient_name: str = "PHANTOM^HEAD"
    patient_id: str = "PHANTOM-1"
    patient_age: str = "050Y"
    character_set: str | None = "ISO_IR 100"
    manufacturer: str = "PHANTOM"
    study_uid: str | None = None  #: default: from patient and seed
    frame_of_reference_uid: str | None = None
    extra: dict[str, object] = field(default_factory=dict)  #: keyword to value, set last

    @property
    def thicknesses_mm(self) -> tuple[float, ...]:
        """Thickness of each slice."""
        if isinstance(self.slice_thickness_mm, tuple):
            return self.slice_thickness_mm
        return (self.slice_thickness_mm,) * len(self.slice_distances_mm)

    @property
    def axes(self) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
        """Row direction, column direction (both after tilt) and the table's direction."""
        cosines = np.asarray(self.orientation or ORIENTATIONS[self.patient_position], dtype=float)
        row, column = cosines[:3], cosines[3:]
        table = np.cross(row, column)
        lean = np.radians(self.gantry_tilt_deg)
        return row, np.cos(lean) * column + np.sin(lean) * table, table

    @property
    def positions_mm(self) -> npt.NDArray:
        """LPS of voxel (0, 0) of each slice, (n, 3), in the order of ``slice_distances_mm``."""
        row, column, table = self.axes
        normal = np.cross(row, column)
        corner = -row * self.pixel_spacing_mm[1] * (self.columns - 1) / 2
        corner = corner - column * self.pixel_spacing_mm[0] * (self.rows - 1) / 2
        along = np.asarray(self.slice_distances_mm) / (table @ normal)
        return corner + along[:, None] * table


def head_hu(points_mm: npt.NDArray, spec: PhantomSpec) -> npt.NDArray[np.float32]:
    """Hounsfield units of the head at patient positions, (..., 3) LPS mm to (...)."""
    points = np.asarray(points_mm, dtype=np.float64) - np.asarray(spec.offset_mm)
    head = np.ascontiguousarray(np.moveaxis(points / spec.scale, -1, 0))  # x, y and z apart: quick
    hu = np.full(points.shape[:-1], AIR_HU, dtype=np.float32)
    for part in (*HEAD, *(_VESSELS if spec.vessels else ()), _MARKER, *spec.parts):
        _paint(hu, head, part)
    if spec.craniectomy:
        opening = (head[0] > 30.0) & (head[2] > -20.0) & (head[1] < 50.0)
        hu[opening & (hu > 500.0)] = 20.0
    if spec.metal:
        _paint(hu, head, _METAL)
    if spec.table:
        arc = np.hypot(points[..., 0], points[..., 1] - 20.0) / spec.scale
        hu[(arc > 100.0) & (arc < 104.0) & (points[..., 1] > 60.0)] = 120.0
    return hu


def _paint(hu: npt.NDArray[np.float32], points: npt.NDArray, part: Ellipsoid) -> None:
    """Paint a part where points (3, ...) lie in it."""
    axes = zip(points, part.centre_mm, part.semi_axes_mm, strict=True)
    hu[sum(((along - middle) / size) ** 2 for along, middle, size in axes) <= 1.0] = part.hu


_FIELDS = tuple(each.name for each in fields(PhantomSpec))
#: fields that the Hounsfield units follow from
_SCANNED = _FIELDS[: _FIELDS.index("slope")]


def slice_hu(spec: PhantomSpec, index: int) -> npt.NDArray[np.float32]:
    """Hounsfield units of one slice, (rows, columns), averaged over its thickness."""
    return _slice_hu(index, *(getattr(spec, name) for name in _SCANNED)).copy()


@lru_cache(maxsize=1024)  # 64 MB of slices of 128 x 128
def _slice_hu(index: int, *scanned: object) -> npt.NDArray[np.float32]:
    """Make a slice once: many tests scan the same head and differ in its header."""
    spec = PhantomSpec(**dict(zip(_SCANNED, scanned, strict=True)))
    if spec.blank:
        return np.full((spec.rows, spec.columns), AIR_HU, dtype=np.float32)
    row, column, _ = spec.axes
    normal = np.cross(row, column)
    r = np.arange(spec.rows)[:, None, None] * spec.pixel_spacing_mm[0]
    c = np.arange(spec.columns)[None, :, None] * spec.pixel_spacing_mm[1]
    plane = spec.positions_mm[index] + r * column + c * row
    depths = spec.thicknesses_mm[index] * np.array([-1 / 3, 0.0, 1 / 3])
    hu = np.mean([head_hu(plane + depth * normal, spec) for depth in depths], axis=0)
    if spec.motion_mm and index % 2:
        ghost = head_hu(plane + row * spec.motion_mm, spec)
        hu = 0.5 * hu + 0.5 * ghost
    random = np.random.default_rng((spec.seed, index))
    if spec.metal and hu.max() > 3000.0:
        hu = hu + random.normal(0.0, 250.0, (spec.rows, 1))
    if spec.noise_hu:
        hu = hu + random.normal(0.0, spec.noise_hu, hu.shape)
    return hu.astype(np.float32)


def head_ct(spec: PhantomSpec | None = None, **changes: object) -> list[Dataset]:
    """Make one series of classic CT instances.

    Parameters
    ----------
    spec : PhantomSpec, optional
        Default: axial, head first, supine, 24 slices of 128 x 128.
    changes
        Fields of the specification to replace.
    """
    spec = replace(spec or PhantomSpec(), **changes)
    instances = [_instance(spec, index) for index in range(len(spec.slice_distances_mm))]
    if spec.shuffled:
        np.random.default_rng(spec.seed).shuffle(instances)
    return instances


def localizer(spec: PhantomSpec | None = None, **changes: object) -> list[Dataset]:
    """Make a lateral localizer: one instance, a projection of the head seen from its side."""
    spec = replace(
        spec or PhantomSpec(),
        orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        slice_distances_mm=(0.0,),
        slice_thickness_mm=100.0,
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
        series_description="Topogram",
        series_number=1,
        kernel="T20s",
    )
    return head_ct(replace(spec, **changes))


def derived_mpr(spec: PhantomSpec | None = None, **changes: object) -> list[Dataset]:
    """Make a coronal reformat, DERIVED\\PRIMARY\\MPR."""
    spec = replace(
        spec or PhantomSpec(),
        orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
        image_type=("DERIVED", "PRIMARY", "MPR"),
        series_description="Coronal 3.0",
        series_number=3,
    )
    return head_ct(replace(spec, **changes))


def enhanced_ct(spec: PhantomSpec | None = None, **changes: object) -> Dataset:
    """Make the same head as one Enhanced CT instance (PS3.3 A.38), a frame for each slice."""
    spec = replace(spec or PhantomSpec(), **changes)
    order = np.arange(len(spec.slice_distances_mm))
    if spec.shuffled:
        np.random.default_rng(spec.seed).shuffle(order)
    instance = _patient_to_equipment(spec, EnhancedCTImageStorage)
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = _uid(spec, "enhanced")
    instance.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    instance.InstanceNumber = 1
    instance.PixelPresentation = "MONOCHROME"
    instance.VolumetricProperties = "VOLUME"
    instance.VolumeBasedCalculationTechnique = "NONE"
    instance.ContentQualification = "RESEARCH"
    instance.AcquisitionDateTime = "20260102101500"
    instance.AcquisitionDuration = 5.0
    instance.AcquisitionNumber = 1
    instance.PresentationLUTShape = "IDENTITY"
    instance.LossyImageCompression = "00"
    instance.NumberOfFrames = len(order)
    _pixel_format(instance, spec)
    instance.SharedFunctionalGroupsSequence = Items([_shared_group(spec)])
    instance.PerFrameFunctionalGroupsSequence = Items(
        [_frame_group(spec, int(k), place) for place, k in enumerate(order)]
    )
    instance.PixelData = b"".join(_stored(spec, int(k)).tobytes() for k in order)
    return instance


def write(instances: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write DICOM files (PS3.10) named by their place; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{place:04d}.dcm" for place in range(len(instances))]
    for path, instance in zip(paths, instances, strict=True):
        instance.save_as(path, enforce_file_format=True)
    return paths


def _uid(spec: PhantomSpec, *words: object) -> str:
    return generate_uid(entropy_srcs=["phantom", spec.patient_id, str(spec.seed), *map(str, words)])


def _instance(spec: PhantomSpec, index: int) -> Dataset:
    instance = _patient_to_equipment(spec, CTImageStorage)
    uid = _uid(spec, spec.series_number, spec.series_description, index)
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = uid
    instance.ImageType = list(spec.image_type)
    instance.InstanceNumber = index + 1 if spec.instance_numbers else None
    instance.AcquisitionNumber = 1
    instance.AcquisitionDate, instance.AcquisitionTime = "20260102", "101500"
    row, column, _ = spec.axes
    instance.ImagePositionPatient = [_decimal(v) for v in spec.positions_mm[index]]
    instance.ImageOrientationPatient = [_decimal(v) for v in (*row, *column)]
    instance.PixelSpacing = list(spec.pixel_spacing_mm)
    instance.SliceThickness = spec.thicknesses_mm[index]
    instance.GantryDetectorTilt = spec.gantry_tilt_deg
    instance.KVP = 120
    instance.ConvolutionKernel = spec.kernel
    instance.RescaleSlope, instance.RescaleIntercept = spec.slope, spec.intercept
    instance.RescaleType = "HU"
    instance.WindowCenter, instance.WindowWidth = 40, 80
    _pixel_format(instance, spec)
    instance.PixelData = _stored(spec, index).tobytes()
    instance["PixelData"].VR = "OW"
    for keyword, value in spec.extra.items():
        setattr(instance, keyword, value)
    _encode(instance, spec)
    return instance


def _decimal(value: float) -> str:
    """Write a Decimal String of at most 16 characters with the precision it can hold."""
    return f"{value:.10f}"[:16]


def _patient_to_equipment(spec: PhantomSpec, sop_class: str) -> Dataset:
    """Patient, study, series, frame of reference and equipment modules."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    if spec.character_set is not None:
        instance.SpecificCharacterSet = spec.character_set.split("\\")
    instance.SOPClassUID = sop_class
    instance.PatientName, instance.PatientID = spec.patient_name, spec.patient_id
    instance.PatientBirthDate, instance.PatientSex = "19760101", "O"
    instance.PatientAge = spec.patient_age
    instance.StudyInstanceUID = spec.study_uid or _uid(spec, "study")
    instance.StudyDate, instance.StudyTime = "20260102", "101000"
    instance.StudyID, instance.AccessionNumber = "1", "A1"
    instance.ReferringPhysicianName = ""
    instance.StudyDescription = "CT Head"
    instance.Modality = "CT"
    instance.SeriesInstanceUID = _uid(spec, spec.series_number, spec.series_description)
    instance.SeriesNumber = spec.series_number
    instance.SeriesDescription = spec.series_description
    instance.SeriesDate, instance.SeriesTime = "20260102", "101200"
    instance.ContentDate, instance.ContentTime = "20260102", "101600"
    instance.BodyPartExamined = "HEAD"
    instance.PatientPosition = spec.patient_position
    instance.FrameOfReferenceUID = spec.frame_of_reference_uid or _uid(spec, "frame of reference")
    instance.PositionReferenceIndicator = ""
    instance.Manufacturer = spec.manufacturer
    instance.ManufacturerModelName = "ELLIPSOID"
    instance.DeviceSerialNumber, instance.SoftwareVersions = "1", "1"
    if spec.contrast_agent is not None:
        instance.ContrastBolusAgent = spec.contrast_agent
    return instance


def _pixel_format(instance: Dataset, spec: PhantomSpec) -> None:
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows, instance.Columns = spec.rows, spec.columns
    instance.BitsAllocated, instance.BitsStored = 16, spec.bits_stored
    instance.HighBit = spec.bits_stored - 1
    instance.PixelRepresentation = int(spec.signed)
    if spec.padding is not None and spec.declare_padding:
        instance.add_new("PixelPaddingValue", "SS" if spec.signed else "US", spec.padding)


def _stored(spec: PhantomSpec, index: int) -> npt.NDArray:
    """Stored values of one slice, (rows, columns), int16 or uint16, clipped to the bits stored."""
    stored = np.rint((slice_hu(spec, index) - spec.intercept) / spec.slope)
    low = -(1 << (spec.bits_stored - 1)) if spec.signed else 0
    stored = np.clip(stored, low, low + (1 << spec.bits_stored) - 1)
    if spec.padding is not None:
        stored[outside_field_of_view(spec)] = spec.padding
    return stored.astype(np.int16 if spec.signed else np.uint16)


def outside_field_of_view(spec: PhantomSpec) -> npt.NDArray[np.bool_]:
    """Pixels outside the scanner's circle, (rows, columns)."""
    r = (np.arange(spec.rows) - (spec.rows - 1) / 2) * spec.pixel_spacing_mm[0]
    c = (np.arange(spec.columns) - (spec.columns - 1) / 2) * spec.pixel_spacing_mm[1]
    radius = max(abs(r[0]), abs(c[0]))
    return np.hypot(r[:, None], c[None, :]) > radius


def _encode(instance: Dataset, spec: PhantomSpec) -> None:
    """Turn the little endian instance into the transfer syntax asked for."""
    syntax = spec.transfer_syntax
    if syntax == RLELossless:
        instance.compress(RLELossless, generate_instance_uid=False)
        return
    instance.file_meta.TransferSyntaxUID = syntax
    encoders = {
        JPEGLosslessSV1: imagecodecs.ljpeg_encode,
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG_XL_LOSSLESS: partial(imagecodecs.jpegxl_encode, lossless=True),
    }
    if syntax in encoders:
        frame = np.frombuffer(instance.PixelData, dtype=np.uint16).reshape(spec.rows, spec.columns)
        instance.PixelData = encapsulate([encoders[syntax](frame)])
        instance["PixelData"].VR = "OB"
    elif syntax == ExplicitVRBigEndian:
        instance.PixelData = np.frombuffer(instance.PixelData, dtype="<u2").astype(">u2").tobytes()
        instance["PixelData"].VR = "OW"
        instance.set_original_encoding(is_implicit_vr=False, is_little_endian=False)


def _shared_group(spec: PhantomSpec) -> Dataset:
    """Functional groups that hold for all frames (PS3.3 A.38.1.4)."""
    row, column, _ = spec.axes
    group = Dataset()
    orientation = Dataset()
    orientation.ImageOrientationPatient = [_decimal(v) for v in (*row, *column)]
    group.PlaneOrientationSequence = Items([orientation])
    transformation = Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = spec.slope, spec.intercept
    transformation.RescaleType = "HU"
    group.PixelValueTransformationSequence = Items([transformation])
    reconstruction = Dataset()
    reconstruction.ConvolutionKernel = spec.kernel
    group.CTReconstructionSequence = Items([reconstruction])
    acquisition = Dataset()
    acquisition.GantryDetectorTilt = spec.gantry_tilt_deg
    group.CTAcquisitionDetailsSequence = Items([acquisition])
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 40, 80
    group.FrameVOILUTSequence = Items([window])
    frame_type = Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    frame_type.PixelPresentation = "MONOCHROME"
    frame_type.VolumetricProperties = "VOLUME"
    frame_type.VolumeBasedCalculationTechnique = "NONE"
    group.CTImageFrameTypeSequence = Items([frame_type])
    return group


def _frame_group(spec: PhantomSpec, index: int, place: int) -> Dataset:
    """Functional groups of one frame."""
    group = Dataset()
    position = Dataset()
    position.ImagePositionPatient = [_decimal(v) for v in spec.positions_mm[index]]
    group.PlanePositionSequence = Items([position])
    measures = Dataset()
    measures.PixelSpacing = list(spec.pixel_spacing_mm)
    measures.SliceThickness = spec.thicknesses_mm[index]
    group.PixelMeasuresSequence = Items([measures])
    content = Dataset()
    content.FrameAcquisitionNumber = 1
    content.StackID, content.InStackPositionNumber = "1", place + 1
    group.FrameContentSequence = Items([content])
    return group
