"""The head CTs of the demonstration: scans of one head whose true T1 is known.

The head ships with the package (``demo_head``); the scan is simulated here: slices averaged over
their thickness, gantry tilt, noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MillimetreArray

NOISE_HU: Final = 4.0  #: standard deviation within the head
_NOISE_PIXELS: Final = 0.8  #: Gaussian width of the noise's correlation
_DEPTHS: Final = (-0.4, -0.2, 0.0, 0.2, 0.4)  #: places averaged within one slice, per thickness
_AIR_HU: Final = -1000.0
_INTERCEPT: Final = -1024
_SEED: Final = 27


@dataclass(frozen=True, kw_only=True)
class ScanProtocol:
    """How the head is scanned; one slice touches the next."""

    name: str = ""  #: part of all UIDs; empty for the study that is synthesised
    tilt_deg: float = 0.0
    rows: int = 176
    pixel_mm: float = 1.3
    below_mm: float = 5.0  #: thickness of the slices below the middle of the head
    above_mm: float = 5.0  #: and above it
    kernel: str = "SOFT"


#: the study that is synthesised
TILTED: Final = ScanProtocol(tilt_deg=12.0, rows=352, pixel_mm=0.65)
STRAIGHT: Final = ScanProtocol(name="straight")
TWO_THICKNESSES: Final = ScanProtocol(name="two thicknesses", below_mm=2.5)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The shipped head on its grid of 1 mm."""

    hu: npt.NDArray[np.int16]  #: (z, y, x), HU without noise
    t1: npt.NDArray[np.uint8]  #: (z, y, x), the true T1, 0 to 255
    origin_mm: MillimetreArray  #: (3,) LPS of voxel (0, 0, 0); x to the left, y back, z up

    def sample(self, volume: npt.NDArray[np.generic], points_mm: MillimetreArray) -> FloatArray:
        """Values of one of the arrays at patient positions, (..., 3) LPS mm to (...), linear.

        Outside the grid the value is that of the first voxel, which is air.
        """
        index = np.moveaxis(points_mm - self.origin_mm, -1, 0)[::-1]
        outside = float(volume[0, 0, 0])
        values = ndimage.map_coordinates(
            volume, index, output=np.float32, order=1, mode="constant", cval=outside
        )
        return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class DemoStudy:
    """The instances that are sent, and the true head."""

    instances: tuple[Dataset, ...]  #: along the slices, from foot to head
    head: Head


def load_head() -> Head:
    """Read the head that ships with the package."""
    file = resources.files("rebrain_node") / "demo_head" / "head.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return Head(hu=arrays["hu"], t1=arrays["t1"], origin_mm=arrays["affine"][:3, 3])


def simulate_study(protocol: ScanProtocol = TILTED, head: Head | None = None) -> DemoStudy:
    """Scan the shipped head: the same study, byte for byte, each time.

    Parameters
    ----------
    protocol : ScanProtocol
        How.
    head : Head, optional
        As `load_head` returns it, where it was read before.
    """
    head = load_head() if head is None else head
    random = np.random.default_rng(_SEED)
    along, down = _axes(protocol)
    instances = []
    for number, (z, thickness) in enumerate(_slices(head, protocol), 1):
        size_mm = np.array(head.hu.shape[::-1], dtype=float) - 1.0
        middle = head.origin_mm + size_mm / 2.0
        corner = middle - (along + down) * protocol.pixel_mm * (protocol.rows - 1) / 2.0
        place = corner + np.array([0.0, 0.0, 1.0]) * z
        hu = _scan(head, protocol, place, thickness, random)
        instances.append(_instance(protocol, number, place, thickness, hu))
    return DemoStudy(instances=tuple(instances), head=head)


def _axes(protocol: ScanProtocol) -> tuple[MillimetreArray, MillimetreArray]:
    """Directions of increasing column and row index of slices with gantry tilt, chin up."""
    tilt = np.radians(protocol.tilt_deg)
    return np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(tilt), np.sin(tilt)])


def _slices(head: Head, protocol: ScanProtocol) -> list[tuple[float, float]]:
    """Height of each slice above the middle of the head, and its thickness, mm, from foot to head.

    The table moves along z, whatever the tilt.
    """
    height = float(head.hu.shape[0]) - 1.0
    highest, lowest = height / 2.0 + 2.0, -height / 2.0 + 18.0
    below, above = protocol.below_mm, protocol.above_mm
    if below == above:
        return [(float(z), above) for z in np.arange(lowest, highest, above)]
    lower = [float(z) for z in np.arange(lowest, 0.0, below)]
    first = lower[-1] + (below + above) / 2.0
    upper = [float(z) for z in np.arange(first, highest, above)]
    return [(z, below) for z in lower] + [(z, above) for z in upper]


def _scan(
    head: Head,
    protocol: ScanProtocol,
    place: MillimetreArray,
    thickness_mm: float,
    random: np.random.Generator,
) -> FloatArray:
    """One slice in HU, (rows, columns); `place` is LPS of voxel (0, 0)."""
    along, down = _axes(protocol)
    normal = np.cross(along, down)
    row, column = np.mgrid[: protocol.rows, : protocol.rows] * protocol.pixel_mm
    plane = place + row[..., None] * down + column[..., None] * along
    depths = [thickness_mm * depth for depth in _DEPTHS]
    clean = np.mean([head.sample(head.hu, plane + depth * normal) for depth in depths], axis=0)
    noise = ndimage.gaussian_filter(random.standard_normal(clean.shape), _NOISE_PIXELS)
    noise *= NOISE_HU / noise.std()
    return np.asarray(np.maximum(clean + noise, _AIR_HU), dtype=np.float32)


def _instance(
    protocol: ScanProtocol,
    number: int,
    place: MillimetreArray,
    thickness_mm: float,
    hu: FloatArray,
) -> Dataset:
    """One CT Image Storage instance (PS3.3 A.3)."""
    along, down = _axes(protocol)
    instance = Dataset()
    uid = UID(_uid(protocol, "instance", number))
    instance.file_meta = FileMetaDataset()
    instance.file_meta.MediaStorageSOPClassUID = CTImageStorage
    instance.file_meta.MediaStorageSOPInstanceUID = uid
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.update(_common(protocol))
    instance.SOPClassUID, instance.SOPInstanceUID = CTImageStorage, uid
    instance.InstanceNumber, instance.SliceThickness = number, thickness_mm
    instance.ImagePositionPatient = [f"{value:.6f}" for value in place]
    instance.ImageOrientationPatient = [f"{value:.10f}" for value in (*along, *down)]
    stored = np.rint(hu - _INTERCEPT).astype("<i2")
    instance.PixelData = stored.tobytes()
    instance["PixelData"].VR = "OW"
    return instance


def _common(protocol: ScanProtocol) -> Dataset:
    """What all instances share."""
    shared = Dataset()
    shared.SpecificCharacterSet = "ISO_IR 100"
    shared.PatientName, shared.PatientID = "DEMONSTRATION^HEAD", "DEMO-HEAD"
    shared.PatientBirthDate, shared.PatientSex, shared.PatientAge = "19810101", "O", "045Y"
    shared.StudyInstanceUID, shared.SeriesInstanceUID = (
        _uid(protocol, "study"),
        _uid(protocol, "series"),
    )
    shared.FrameOfReferenceUID = _uid(protocol, "frame of reference")
    shared.StudyID, shared.AccessionNumber = "DEMO", "DEMO-1"
    shared.StudyDate = shared.SeriesDate = shared.AcquisitionDate = shared.ContentDate = "20260102"
    shared.StudyTime = shared.SeriesTime = shared.AcquisitionTime = shared.ContentTime = "101500"
    shared.ReferringPhysicianName = ""
    shared.StudyDescription, shared.SeriesDescription = (
        "CT HEAD (SIMULATED)",
        "Head 5.0 (simulated)",
    )
    shared.Modality, shared.SeriesNumber, shared.AcquisitionNumber = "CT", 2, 1
    shared.Manufacturer, shared.ManufacturerModelName = "REBRAIN DEMONSTRATION", "simulated CT"
    shared.BodyPartExamined, shared.PatientPosition = "HEAD", "HFS"
    shared.PositionReferenceIndicator = ""
    shared.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    shared.GantryDetectorTilt, shared.KVP = protocol.tilt_deg, 120
    shared.ConvolutionKernel = protocol.kernel
    shared.PixelSpacing = [protocol.pixel_mm, protocol.pixel_mm]
    shared.Rows = shared.Columns = protocol.rows
    shared.SamplesPerPixel, shared.PhotometricInterpretation = 1, "MONOCHROME2"
    shared.BitsAllocated = shared.BitsStored = 16
    shared.HighBit, shared.PixelRepresentation = 15, 1
    shared.RescaleSlope, shared.RescaleIntercept, shared.RescaleType = 1, _INTERCEPT, "HU"
    shared.WindowCenter, shared.WindowWidth = 40, 80
    return shared


def _uid(protocol: ScanProtocol, *words: object) -> str:
    named = (protocol.name,) if protocol.name else ()
    sources = ["rebrain-node demonstration", *map(str, (*named, *words))]
    return str(generate_uid(entropy_srcs=sources))
