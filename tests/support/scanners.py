"""One head study as the scanners of seven vendors write it: a value, and where it was seen.

``scanners.toml`` holds every value that is not the phantom's own, with its public source: a file
that was read, a printed header, a vendor's conformance statement, a clause of the standard, or code
that tells such series apart. What no source settles is not written; `Scanner.left_out` says what
and why. The writer knows nothing of vendors: it scans the phantom of `tests.support.phantoms` in
the shape that the table names, with small matrices, and then sets what the table says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from tests.support.phantoms import PhantomSpec, head_ct

#: value of an attribute (False: the element is absent) and the key of its source
Sourced = tuple[Any, str]
Attributes = Mapping[str, Sourced]

#: of a captured page or a report, which lie nowhere in the patient
_PAGE: Final[Attributes] = {
    "SOPClassUID": (SecondaryCaptureImageStorage, "ps3-3-capture"),
    **dict.fromkeys(
        (
            "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
            "FrameOfReferenceUID", "ConvolutionKernel", "GantryDetectorTilt", "KVP",
        ),
        (False, "ps3-3-capture"),
    ),
}  # fmt: skip
_ORIENTATIONS: Final = {
    "axial": None,
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "frontal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "lateral": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "report": None,
}
#: attributes by which the phantom stores its pixels
_STORED: Final = frozenset(
    {"PixelRepresentation", "BitsStored", "RescaleIntercept", "PixelPaddingValue"}
)
_HEAD_MM: Final = 138.0  #: length of a series


@dataclass(frozen=True, kw_only=True)
class PrivateElement:
    """A harmless element of a private block."""

    group: int
    creator: str
    element: int  #: within the block
    vr: str
    value: int | str
    source: str


@dataclass(frozen=True, kw_only=True)
class ScannerSeries:
    """One series of the study: how it is scanned, and what its headers say."""

    attributes: Attributes
    #: axial or coronal slices, a lateral or frontal projection, or a report without pixels
    shape: str = "axial"
    lean_deg: float = 0.0  #: of the phantom's planes; positive: the chin side lies higher
    matrix: tuple[int, int] = (128, 128)
    thickness_mm: float = 5.0
    step_mm: float = 6.0


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What one vendor writes."""

    vendor: str
    common: Attributes  #: of every CT object of the study
    series: Mapping[str, ScannerSeries]
    outside: Sourced = (False, "")  #: stored value outside the circle of reconstruction
    private: tuple[PrivateElement, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  #: what no source settles, and why


def _scanner(vendor: str, table: dict[str, Any]) -> Scanner:
    names = ("group", "creator", "element", "vr", "value", "source")
    return Scanner(
        vendor=vendor,
        common=_attributes(table["common"]),
        series={name: _series(row) for name, row in table["series"].items()},
        outside=tuple(table.get("outside", (False, ""))),
        private=tuple(
            PrivateElement(**dict(zip(names, row, strict=True))) for row in table.get("private", ())
        ),
        left_out=table.get("left_out", {}),
    )


def _series(row: dict[str, Any]) -> ScannerSeries:
    attributes = {k: v for k, v in row.items() if k[0].isupper()}
    shape = {k: v for k, v in row.items() if not k[0].isupper() and k != "page"}
    if "matrix" in shape:
        shape["matrix"] = tuple(shape["matrix"])
    page = _PAGE if row.get("page") else {}
    return ScannerSeries(attributes={**page, **_attributes(attributes)}, **shape)


def _attributes(row: dict[str, list[Any]]) -> Attributes:
    return {keyword: (value, source) for keyword, (value, source) in row.items()}


_TABLE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SOURCES: Final[Mapping[str, str]] = _TABLE["source"]
SCANNERS: Final = tuple(_scanner(vendor, table) for vendor, table in _TABLE["vendor"].items())


def scan(scanner: Scanner, name: str, *, blank: bool = False) -> list[Dataset]:
    """Make one series of a vendor's study.

    Parameters
    ----------
    scanner : Scanner
        The vendor.
    name : str
        A key of ``scanner.series``.
    blank : bool
        Air instead of a head, for what reads headers only.
    """
    series = scanner.series[name]
    attributes = {**scanner.common, **series.attributes}
    instances = head_ct(_spec(scanner, name, attributes), blank=blank)
    for instance in instances:
        for keyword, (value, _) in attributes.items():
            _set(instance, keyword, series.step_mm if value == "STEP" else value)
        for element in scanner.private:
            block = instance.private_block(element.group, element.creator, create=True)
            value = str(element.value).encode() if element.vr == "UN" else element.value
            block.add_new(element.element, element.vr, value)
        if series.shape == "report":
            _without_pixels(instance)
    return instances


def study(scanner: Scanner, *, blank: bool = False) -> list[Dataset]:
    """Make all series of a vendor as one study."""
    return [i for name in scanner.series for i in scan(scanner, name, blank=blank)]


def _spec(scanner: Scanner, name: str, attributes: Attributes) -> PhantomSpec:
    """Choose geometry and storage of one series."""
    series = scanner.series[name]
    number = 1000 + list(scanner.series).index(name)
    one = series.shape not in {"axial", "coronal"}
    padding = attributes.get("PixelPaddingValue", (False, ""))[0]
    outside = padding or scanner.outside[0]
    places = -60.0 + series.step_mm * np.arange(1 + round(_HEAD_MM / series.step_mm))
    return PhantomSpec(
        seed=sum(map(ord, scanner.vendor)),
        patient_id=f"PHANTOM-{scanner.vendor.upper()}",
        rows=series.matrix[0],
        columns=series.matrix[1],
        orientation=_ORIENTATIONS[series.shape],
        gantry_tilt_deg=series.lean_deg,
        slice_distances_mm=(0.0,) if one else tuple(places),
        slice_thickness_mm=100.0 if one else series.thickness_mm,
        series_description=f"{scanner.vendor} {number}",
        series_number=number,
        signed=bool(attributes.get("PixelRepresentation", (1, ""))[0]),
        bits_stored=attributes.get("BitsStored", (16, ""))[0],
        intercept=attributes.get("RescaleIntercept", (-1024, ""))[0],
        padding=outside or None,
        declare_padding=bool(padding),
    )


def _set(instance: Dataset, keyword: str, value: Any) -> None:
    if keyword in _STORED:
        return
    if value is False:
        if keyword in instance:
            delattr(instance, keyword)
    else:
        setattr(instance, keyword, value.split("\\") if keyword == "ImageType" else value)
    if keyword == "SOPClassUID":
        instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID


def _without_pixels(instance: Dataset) -> None:
    for element in list(instance):
        if element.tag.group in {0x0028, 0x7FE0}:
            del instance[element.tag]
