"""A colour picture of the result as Secondary Capture, for viewers that show nothing else.

Upper row: the MR in three planes, as radiology shows them. Lower row: uncertainty, black to yellow.
Right of each plane that shows the slices from the side, a bar tells how each came about. Letters of
the sides, a key of the colours and a length of 5 cm stand beside the anatomy, never on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr

from rebrain_node.domain import marks
from rebrain_node.domain.volume import FloatArray, SyntheticVolume
from rebrain_node.pictures import (
    EDGES,
    KINDS,
    Colour,
    Pixels,
    UprightVolume,
    View,
    colour_map,
    grey,
    lettering,
)
from rebrain_node.steps.write.references import reference, whole_series
from rebrain_node.steps.write.result import Result, stamp, stamp_image

BANNER: Final = "SYNTHETIC MR - NOT FOR DIAGNOSIS"
CAPTIONS: Final = (("MR AXIAL", "CORONAL", "SAGITTAL"), ("ERROR AXIAL", "CORONAL", "SAGITTAL"))
CALIBRATED, UNCALIBRATED = "ERROR CALIBRATED", "ERROR UNCALIBRATED"  # above the lower row
VIEWS: Final[tuple[View, ...]] = ("axial", "coronal", "sagittal")
#: of each kind of slice in the key, and of the length
KIND_WORDS: Final = {"measured": "CT SLICE", "retrieved": "GUIDED", "interpolated": "BETWEEN"}
MAP_ENDS: Final = ("0", "0.3")
LENGTH, LENGTH_MM = "5 CM", 50.0
WARNING: Final = (255, 140, 0)
#: by uncertainty, ratio of the display range
_MAP: Final[dict[float, Colour]] = {
    0.0: (0, 0, 0), 0.1: (110, 20, 110), 0.2: (230, 90, 40), 0.3: (255, 240, 120),
}  # fmt: skip
_GAP: Final = 6  #: pixels between panels
_BAR: Final = 6  #: pixels, width of the bar of kinds
_LETTER: Final = 2  #: pixels of the picture for one of a letter
_BLOCK: Final = 14  #: pixels, height of a colour of the key
_FRAME: Final = 4  #: pixels, width of the border


def write_preview(result: Result, images: Sequence[Dataset]) -> Dataset:
    """Build the Secondary Capture with the banner that the site asks for."""
    picture = draw(result.synthetic, result.options.preview_banner)
    dataset = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=result.source.study_instance_uid,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} preview of MR T1",
        **result.names("SC"),
    )
    dataset.PatientOrientation = []  # three planes in one picture have none
    dataset.ConversionType = "SYN"
    for keyword in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        dataset.pop(keyword, None)
    dataset.ImageType = list(marks.IMAGE_TYPE)
    dataset.DerivationDescription = (
        f"{marks.DERIVATION_PREFIX}: preview of a T1-like MR series drawn from CT"
    )
    dataset.ImageComments = (
        f"{marks.COMMENT_PREFIX}: preview, research only, {marks.NOT_FOR_DIAGNOSIS}. "
        f"Uncertainty is {result.label}."
    )
    shown = int(_slice_numbers(result.synthetic)[_middle(result.synthetic)])
    dataset.SourceImageSequence = [reference(*result.slice_name(shown))]
    dataset.ReferencedSeriesSequence = [whole_series(images)]
    correct_ambiguous_vr(dataset, is_little_endian=True)
    stamp(dataset, result)
    stamp_image(dataset, result)
    return dataset


def draw(synthetic: SyntheticVolume, banner: str) -> Pixels:
    """Draw the picture.

    Parameters
    ----------
    synthetic : SyntheticVolume
    banner : {"none", "border", "full"}
        ``none``: planes and bars alone. ``border``: a coloured border, one line above, the letters
        of the sides, a key and a length; ``full``: also one line below and a caption above each
        panel.

    Returns
    -------
    ndarray of uint8
        (rows, columns, 3), RGB.
    """
    inside = np.where(synthetic.head, synthetic.uncertainty, np.float32(0))
    mr = _planes(synthetic.intensity, grey, synthetic)
    uncertainty = _planes(inside, _heat, synthetic)
    rows = []
    for panels, captions in zip((mr, uncertainty), CAPTIONS, strict=True):
        if banner != "none":
            panels = [_lettered(panel, view) for panel, view in zip(panels, VIEWS, strict=True)]
        if banner == "full":
            panels = [_above(_line(text), p) for text, p in zip(captions, panels, strict=True)]
        rows.append(_beside(panels))
    if banner == "full":
        rows.insert(1, _line(CALIBRATED if synthetic.meaning.calibrated else UNCALIBRATED))
    if banner == "none":
        return _above(*rows)
    picture = _above(*rows, _key(synthetic.grid.pixel_mm))
    line = _line(BANNER)
    picture = _above(line, picture, line) if banner == "full" else _above(line, picture)
    return _framed(picture)


def _heat(uncertainty: FloatArray) -> Pixels:
    return colour_map(uncertainty, _MAP)


def _planes(
    values: FloatArray, colour: Callable[[FloatArray], Pixels], synthetic: SyntheticVolume
) -> list[Pixels]:
    """Cut axial, coronal and sagittal through the middle of the head, square pixels."""
    axial, row, column = _middle(synthetic)
    volume = _upright(synthetic, values)
    coronal, sagittal = volume.coronal(row), volume.sagittal(column)
    count = len(coronal.values)
    height = max(1, round(coronal.height_mm / synthetic.grid.pixel_mm))
    stretched = count - 1 - ((np.arange(height) + 0.5) * count / height).astype(int)[::-1]
    kinds = np.array([KINDS[guide.kind] for guide in synthetic.guides], dtype=np.uint8)
    numbers = _slice_numbers(synthetic)[::-1, row, column]
    bar = np.repeat(kinds[numbers[stretched]][:, None], _BAR, axis=1)
    return [
        colour(volume.axial(axial).values),
        *(np.hstack([colour(cut.values[stretched]), bar]) for cut in (coronal, sagittal)),
    ]


def _middle(synthetic: SyntheticVolume) -> tuple[int, int, int]:
    """Find the middle of the head mask, or of the volume where there is none, upright."""
    head = _upright(synthetic, synthetic.head).values
    axes = [np.flatnonzero(head.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    first, second, third = (
        int(axis[len(axis) // 2]) if axis.size else size // 2
        for axis, size in zip(axes, head.shape, strict=True)
    )
    return first, second, third


def _slice_numbers(synthetic: SyntheticVolume) -> npt.NDArray[np.intp]:
    """Tell of each voxel, upright, to which slice of the series it belongs, from 0."""
    numbers = np.arange(len(synthetic.guides))[:, None, None]
    return _upright(synthetic, np.broadcast_to(numbers, synthetic.intensity.shape)).values


def _upright(synthetic: SyntheticVolume, values: npt.NDArray[Any]) -> UprightVolume:
    return UprightVolume.of(values, synthetic.grid, synthetic.prepared.spacing_mm)


def _line(text: str) -> Pixels:
    ink = np.pad(lettering(text, _LETTER), _LETTER * 2)
    return np.where(ink[..., None], np.array(WARNING, dtype=np.uint8), np.uint8(0))


def _lettered(panel: Pixels, view: View) -> Pixels:
    """Add a strip at either side with the letter of that side of the patient."""
    left, right = (_line(letter) for letter in EDGES[view])
    height = max(len(panel), len(left))
    return np.hstack(
        [np.pad(each, ((0, height - len(each)), (0, 0), (0, 0))) for each in (left, panel, right)]
    )


def _key(pixel_mm: float) -> Pixels:
    """Say what the colours of bars and map mean, and how long 5 cm are."""
    swatches = [_beside([_block(KINDS[kind]), _line(word)]) for kind, word in KIND_WORDS.items()]
    ramp = np.linspace(min(_MAP), max(_MAP), 60, dtype=np.float32)
    low, high = MAP_ENDS
    scale = _beside([_line(low), np.repeat(_heat(ramp)[None], _BLOCK, axis=0), _line(high)])
    ruler = np.full((_LETTER, max(1, round(LENGTH_MM / pixel_mm)), 3), WARNING, dtype=np.uint8)
    return _above(_beside(swatches), _beside([scale, ruler, _line(LENGTH)]))


def _block(colour: Colour) -> Pixels:
    return np.full((_BLOCK, _BLOCK, 3), colour, dtype=np.uint8)


def _above(*pictures: Pixels) -> Pixels:
    """Stack pictures, each in the middle of the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.vstack([_padded(picture, width) for picture in pictures])


def _padded(picture: Pixels, width: int) -> Pixels:
    free = width - picture.shape[1]
    return np.pad(picture, ((0, _GAP), (free // 2, free - free // 2), (0, 0)))


def _beside(panels: Sequence[Pixels]) -> Pixels:
    height = max(panel.shape[0] for panel in panels)
    return np.hstack(
        [np.pad(p, ((0, height - p.shape[0]), (_GAP // 2, _GAP // 2), (0, 0))) for p in panels]
    )


def _framed(picture: Pixels) -> Pixels:
    rows, columns, _ = picture.shape
    framed = np.empty((rows + 2 * _FRAME, columns + 2 * _FRAME, 3), dtype=np.uint8)
    framed[:] = WARNING
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = picture
    return framed
