"""The head CT of the demonstration: thick, tilted slices through a head whose true T1 is known.

The head ships with the package (``demo_head``); the scan is simulated here: 5 mm slices averaged
over their thickness, gantry tilt, noise, and a padded corner as scanners store it.
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

SPACING_MM: Final = 5.0  #: thickness and distance of the slices along the table
TILT_DEG: Final = 12.0
PIXEL_MM: Final = 0.65
ROWS: Final = 352
NOISE_HU: Final = 4.0  #: standard deviation within the head
_NOISE_PIXELS: Final = 0.8  #: Gaussian width of the noise's correlation
_DEPTHS_MM: Final = (-2.0, -1.0, 0.0, 1.0, 2.0)  #: places averaged within one slice
_AIR_HU: Final = -1000.0
_INTERCEPT: Final = -1024
_SEED: Final = 27


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


def simulate_study() -> DemoStudy:
    """Scan the shipped head: the same study, byte for byte, each time."""
    head = load_head()
    places = _places(head)
    random = np.random.default_rng(_SEED)
    instances = [
        _instance(number, place, _scan(head, place, random))
        for number, place in enumerate(places, 1)
    ]
    return DemoStudy(instances=tuple(instances), head=head)


def _axes() -> tuple[MillimetreArray, MillimetreArray]:
    """Directions of increasing column and row index of slices with gantry tilt, chin up."""
    tilt = np.radians(TILT_DEG)
    return np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(tilt), np.sin(tilt)])


def _places(head: Head) -> list[MillimetreArray]:
    """LPS of voxel (0, 0) of each slice: the table moves along z, whatever the tilt."""
    along, down = _axes()
    size_mm = np.array(head.hu.shape[::-1], dtype=float) - 1.0
    middle = head.origin_mm + size_mm / 2.0
    corner = middle - (along + down) * PIXEL_MM * (ROWS - 1) / 2.0
    rise = np.array([0.0, 0.0, 1.0])
    highest = size_mm[2] / 2.0 + 2.0
    lowest = -size_mm[2] / 2.0 + 18.0
    return [corner + rise * z for z in np.arange(lowest, highest, SPACING_MM)]


def _scan(head: Head, place: MillimetreArray, random: np.random.Generator) -> FloatArray:
    """One slice in HU, (rows, columns)."""
    along, down = _axes()
    normal = np.cross(along, down)
    row, column = np.mgrid[:ROWS, :ROWS] * PIXEL_MM
    plane = place + row[..., None] * down + column[..., None] * along
    clean = np.mean([head.sample(head.hu, plane + depth * normal) for depth in _DEPTHS_MM], axis=0)
    noise = ndimage.gaussian_filter(random.standard_normal(clean.shape), _NOISE_PIXELS)
    noise *= NOISE_HU / noise.std()
    return np.asarray(np.maximum(clean + noise, _AIR_HU), dtype=np.float32)


def _instance(number: int, place: MillimetreArray, hu: FloatArray) -> Dataset:
    """One CT Image Storage instance (PS3.3 A.3)."""
    along, down = _axes()
    instance = Dataset()
    uid = UID(_uid("instance", number))
    instance.file_meta = FileMetaDataset()
    instance.file_meta.MediaStorageSOPClassUID = CTImageStorage
    instance.file_meta.MediaStorageSOPInstanceUID = uid
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.update(_common())
    instance.SOPClassUID, instance.SOPInstanceUID = CTImageStorage, uid
    instance.InstanceNumber = number
    instance.ImagePositionPatient = [f"{value:.6f}" for value in place]
    instance.ImageOrientationPatient = [f"{value:.10f}" for value in (*along, *down)]
    stored = np.rint(hu - _INTERCEPT).astype("<i2")
    instance.PixelData = stored.tobytes()
    instance["PixelData"].VR = "OW"
    return instance


def _common() -> Dataset:
    """What all instances share."""
    shared = Dataset()
    shared.SpecificCharacterSet = "ISO_IR 100"
    shared.PatientName, shared.PatientID = "DEMONSTRATION^HEAD", "DEMO-HEAD"
    shared.PatientBirthDate, shared.PatientSex, shared.PatientAge = "19810101", "O", "045Y"
    shared.StudyInstanceUID, shared.SeriesInstanceUID = _uid("study"), _uid("series")
    shared.FrameOfReferenceUID = _uid("frame of reference")
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
    shared.SliceThickness, shared.GantryDetectorTilt, shared.KVP = SPACING_MM, TILT_DEG, 120
    shared.ConvolutionKernel = "H31s"
    shared.PixelSpacing = [PIXEL_MM, PIXEL_MM]
    shared.Rows = shared.Columns = ROWS
    shared.SamplesPerPixel, shared.PhotometricInterpretation = 1, "MONOCHROME2"
    shared.BitsAllocated = shared.BitsStored = 16
    shared.HighBit, shared.PixelRepresentation = 15, 1
    shared.RescaleSlope, shared.RescaleIntercept, shared.RescaleType = 1, _INTERCEPT, "HU"
    shared.WindowCenter, shared.WindowWidth = 40, 80
    return shared


def _uid(*words: object) -> str:
    return str(generate_uid(entropy_srcs=["rebrain-node demonstration", *map(str, words)]))
