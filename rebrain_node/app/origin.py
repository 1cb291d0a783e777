"""Whether files are synthetic images of this software, by which node, bundle and set.

Read are the marks of the header and, where it has none, the watermark in the pixels. A file in
which nothing is found is never called acquired: marks can be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.set_manifest import is_manifest
from rebrain_node.errors import InstanceError, SeriesRejectedError
from rebrain_node.instance.codecs import register
from rebrain_node.instance.nifti import read_nifti
from rebrain_node.instance.pixels import stored_values
from rebrain_node.instance.read import read_instance
from rebrain_node.instance.scan import scan
from rebrain_node.instance.synthetic import synthetic_mark
from rebrain_node.watermark import FALSE_POSITIVES, Detection, detect

Verdict = Literal["synthetic", "no mark found", "unreadable"]
Plane = npt.NDArray[np.generic]  #: (rows, columns)

#: slices of one file that are searched, evenly spread over its middle
MOST_SLICES: Final = 16
_MIDDLE: Final = (0.2, 0.8)
#: pictures with a longer side are searched in pieces that overlap by half
_PIECE: Final = 1024
_MOST_PIXELS: Final = 40_000_000
_PICTURES: Final = (".png", ".jpg", ".jpeg")
NO_MARK: Final = (
    "no mark found: neither header nor watermark says synthetic; this does not show that the image "
    "was acquired, because marks can be removed"
)
NOT_SEARCHED: Final = (
    "no mark found: the header does not say synthetic, and there are no grey pixels of 8 bits or "
    "more to search; this does not show that the image was acquired"
)


@dataclass(frozen=True, kw_only=True)
class FileOrigin:
    """What one file says of its origin."""

    path: Path
    verdict: Verdict
    sentence: str
    found: tuple[str, ...] = ()  #: marks by which it is known
    software: str | None = None  #: version of the node
    bundle: str | None = None  #: name and version
    bundle_digest: str | None = None
    set_digest: str | None = None  #: of the job, the same in every object of a set
    revision: int | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    searched: int = 0  #: slices searched for the watermark
    marked: int = 0  #: slices in which it was found
    scale: float | None = None  #: pixels of the file for one of the marked slice

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {**vars(self), "path": str(self.path), "found": list(self.found)}


@dataclass(frozen=True)
class _Content:
    """What a file holds: slices to search, and a header where it has one."""

    planes: Iterator[Plane]
    header: Dataset | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def files_below(paths: Sequence[Path]) -> list[Path]:
    """List the files, and of folders all files below that are not hidden, in order.

    Set manifests are none: they are read with the objects they list.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found += [each for each in below if path == each or not each.name.startswith(".")]
    return [each for each in found if each.name != "DICOMDIR" and not is_manifest(each)]


def origin_of(path: Path) -> FileOrigin:
    """Judge one DICOM, NIfTI, PNG or JPEG file.

    The pixels are searched where the header says nothing.
    """
    try:
        content = _reader(path)(path)
        found = _search(content.planes)
    except InstanceError as error:
        return _unreadable(path, f"no DICOM instance that can be read: {error}")
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _unreadable(path, str(error))
    except OSError as error:
        return _unreadable(path, f"{path.name} cannot be read: {error.strerror or error}")
    return _judged(path, content, found)


def _unreadable(path: Path, sentence: str) -> FileOrigin:
    return FileOrigin(path=path, verdict="unreadable", sentence=sentence)


def _judged(path: Path, content: _Content, searched: Sequence[Detection]) -> FileOrigin:
    # the bound of a file holds for all of its slices together
    limit = FALSE_POSITIVES / max(len(searched), 1)
    hits = [each for each in searched if each.bound <= limit]
    header = None if content.header is None else synthetic_mark(content.header)
    found = [] if header is None else [header]
    if hits:
        found.append(
            f"the watermark of this software is in {len(hits)} of {len(searched)} slices searched "
            f"(probability without a mark at most {min(each.bound for each in hits):.0e})"
        )
    return FileOrigin(
        path=path,
        verdict="synthetic" if found else "no mark found",
        sentence="; ".join(found) if found else NO_MARK if searched else NOT_SEARCHED,
        found=tuple(found),
        searched=len(searched),
        marked=len(hits),
        scale=round(max(hits, key=lambda each: each.score).scale, 3) if hits else None,
        **content.facts,
    )


def _reader(path: Path) -> Callable[[Path], _Content]:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _nifti
    return _picture if name.endswith(_PICTURES) else _dicom


def _dicom(path: Path) -> _Content:
    register()
    content = path.read_bytes()
    scan(content)
    header = read_instance(content)
    # the search costs a third of a second a slice, and the header says enough
    planes = iter(()) if synthetic_mark(header) else _frames(header)
    return _Content(planes, header, _facts(header))


def _frames(header: Dataset) -> Iterator[Plane]:
    """Grey frames; objects without grey pixels, which are read by their header alone, have none.

    Raises
    ------
    ValueError
        The pixels cannot be decoded.
    """
    if "PixelData" not in header or header.get("SamplesPerPixel", 1) != 1:
        return
    if int(header.get("BitsAllocated") or 0) < 8:
        return
    frames = header.get("NumberOfFrames")
    try:
        for place in _places(int(frames or 1)):
            yield stored_values(header, None if frames is None else place + 1)
    except SeriesRejectedError as error:
        raise ValueError(error.findings[0].sentence) from error


def _facts(header: Dataset) -> dict[str, Any]:
    """What the private block and the UIDs say."""
    facts: dict[str, Any] = {
        "series_instance_uid": str(header.get("SeriesInstanceUID", "")) or None,
        "sop_instance_uid": str(header.get("SOPInstanceUID", "")) or None,
    }
    try:
        block = header.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
    except KeyError:
        return facts
    named = {
        "software": marks.SOFTWARE,
        "bundle_digest": marks.BUNDLE_DIGEST,
        "set_digest": marks.JOB,
        "revision": marks.REVISION,
    }
    for name, element in named.items():
        if element.offset in block:
            value = block[element.offset].value
            facts[name] = int(value) if name == "revision" else str(value)
    if marks.BUNDLE.offset in block:
        facts["bundle"] = " ".join(map(str, block[marks.BUNDLE.offset].value))
    return facts


def _nifti(path: Path) -> _Content:
    volume = read_nifti(path)
    if volume.ndim < 3 or volume.shape[2] == 1:
        return _Content(iter([volume.reshape((*volume.shape[:2], -1), order="F")[..., 0]]))
    whole = volume.reshape((*volume.shape[:3], -1), order="F")
    return _Content(whole[:, :, place, 0] for place in _places(volume.shape[2]))


def _picture(path: Path) -> _Content:
    """Read a picture as grey.

    Raises
    ------
    ValueError
        It is too large, or no picture that can be read.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(
                    f"{path.name} has {picture.width} x {picture.height} pixels, at most "
                    f"{_MOST_PIXELS} are searched; cut the image out of the picture"
                )
            grey = picture.convert("F" if picture.mode.startswith("I") else "L")
    except OSError as error:
        raise ValueError(f"{path.name} is no PNG or JPEG picture that can be read") from error
    return _Content(_pieces(np.asarray(grey, dtype=np.float32)))


def _pieces(plane: npt.NDArray[np.float32]) -> Iterator[Plane]:
    if max(plane.shape) <= _PIECE * 5 // 4:
        yield plane
        return
    starts = [range(0, max(size - _PIECE // 2, 1), _PIECE // 2) for size in plane.shape]
    for top in starts[0]:
        for left in starts[1]:
            yield plane[top : top + _PIECE, left : left + _PIECE]


def _places(count: int) -> list[int]:
    if count <= MOST_SLICES:
        return list(range(count))
    first, last = (share * (count - 1) for share in _MIDDLE)
    return sorted({round(place) for place in np.linspace(first, last, MOST_SLICES)})


def _search(planes: Iterator[Plane]) -> list[Detection]:
    return [detect(plane) for plane in planes]
