"""A colour picture of the result as Secondary Capture, for viewers that show nothing else.

Upper row: the MR in three planes. Lower row: expected error, black to yellow. Right of each plane
that shows the slices from the side, a bar tells how each came about: green measured, blue
retrieved, orange interpolated. Text stands beside the anatomy, never on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr

from rebrain_node.domain import marks
from rebrain_node.domain.volume import FloatArray, SyntheticVolume
from rebrain_node.steps.write.lettering import lettering
from rebrain_node.steps.write.references import reference, whole_series
from rebrain_node.steps.write.result import Result
from rebrain_node.steps.write.stamp import stamp, stamp_image

Picture = npt.NDArray[np.uint8]  #: (rows, columns, 3), RGB

BANNER: Final = "SYNTHETIC MR - NOT FOR DIAGNOSIS"
CAPTIONS: Final = (("MR AXIAL", "CORONAL", "SAGITTAL"), ("ERROR AXIAL", "CORONAL", "SAGITTAL"))
CALIBRATED, UNCALIBRATED = "ERROR CALIBRATED", "ERROR UNCALIBRATED"  # above the lower row
WARNING: Final = (255, 140, 0)
KIND_COLOURS: Final = {
    "measured": (0, 170, 80),
    "retrieved": (60, 120, 255),
    "interpolated": (255, 140, 0),
}
_MAP_STOPS: Final = (0.0, 0.1, 0.2, 0.3)  #: expected error, ratio of the display range
_MAP_COLOURS: Final = ((0, 0, 0), (110, 20, 110), (230, 90, 40), (255, 240, 120))
_GAP: Final = 6  #: pixels between panels
_BAR: Final = 6  #: pixels, width of the bar of kinds
_LETTER: Final = 2  #: pixels of the picture for one of a letter
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
        series_instance_uid=result.uids.series("SC"),
        series_number=result.series_number("SC"),
        sop_instance_uid=result.uids.instance("SC"),
        instance_number=1,
        manufacturer=marks.MANUFACTURER,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} preview of MR T1",
    )
    dataset.PatientOrientation = []  # three planes in one picture have none
    dataset.ConversionType = "SYN"
    for keyword in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        dataset.pop(keyword, None)
    dataset.ImageType = list(marks.IMAGE_TYPE)
    dataset.BodyPartExamined = "HEAD"
    dataset.DerivationDescription = (
        f"{marks.DERIVATION_PREFIX}: preview of a T1-like MR series drawn from CT"
    )
    dataset.ImageComments = (
        f"{marks.COMMENT_PREFIX}: preview, research only, {marks.NOT_FOR_DIAGNOSIS}. "
        f"Uncertainty is {result.label}."
    )
    shown = result.slice_name(_middle(result.synthetic)[0])
    dataset.SourceImageSequence = [reference(*shown)]
    dataset.ReferencedSeriesSequence = [whole_series(images)]
    correct_ambiguous_vr(dataset, is_little_endian=True)
    stamp(dataset, result)
    stamp_image(dataset, result)
    return dataset


def draw(synthetic: SyntheticVolume, banner: str) -> Picture:
    """Draw the picture.

    Parameters
    ----------
    synthetic : SyntheticVolume
    banner : {"none", "border", "full"}
        ``border``: a coloured border and one line above; ``full``: also one line below and a
        caption above each panel.

    Returns
    -------
    ndarray of uint8
        (rows, columns, 3), RGB.
    """
    rows = []
    inside = np.where(synthetic.head, synthetic.uncertainty, np.float32(0))
    for values, colour, captions in zip(
        (synthetic.intensity, inside), (_grey, _hot), CAPTIONS, strict=True
    ):
        panels = _planes(values, colour, synthetic)
        if banner == "full":
            panels = [_above(_line(text), p) for text, p in zip(captions, panels, strict=True)]
        rows.append(_beside(panels))
    if banner == "full":
        rows.insert(1, _line(CALIBRATED if synthetic.meaning.calibrated else UNCALIBRATED))
    picture = _above(*rows)
    if banner == "none":
        return picture
    line = _line(BANNER)
    picture = _above(line, picture, line) if banner == "full" else _above(line, picture)
    return _framed(picture)


def _grey(intensity: FloatArray) -> Picture:
    """Colour intensity [0, 1] black to white, (rows, columns) to (rows, columns, 3)."""
    return np.repeat((np.clip(intensity, 0.0, 1.0) * 255.0).astype(np.uint8)[..., None], 3, axis=-1)


def _hot(error: FloatArray) -> Picture:
    """Colour expected error black to yellow, (rows, columns) to (rows, columns, 3)."""
    bands = np.array(_MAP_COLOURS).T  # (3, stops)
    return np.stack([np.interp(error, _MAP_STOPS, band) for band in bands], axis=-1).astype(
        np.uint8
    )


def _planes(
    volume: FloatArray, colour: Callable[[FloatArray], Picture], synthetic: SyntheticVolume
) -> list[Picture]:
    """Cut axial, coronal and sagittal through the middle of the head, square pixels."""
    middle = _middle(synthetic)
    grid = synthetic.grid
    count = len(synthetic.guides)
    height = max(1, round(count * synthetic.prepared.spacing_mm / grid.pixel_mm))
    order = ((np.arange(height) + 0.5) * count / height).astype(int)
    if grid.normal[2] > 0.0:  # the head is shown upright, whichever way slices follow
        order = order[::-1]
    colours = np.array([KIND_COLOURS[guide.kind] for guide in synthetic.guides], dtype=np.uint8)
    bar = np.repeat(colours[order][:, None], _BAR, axis=1)
    coronal = np.hstack([colour(volume[order, middle[1]]), bar])
    sagittal = np.hstack([colour(volume[order, :, middle[2]]), bar])
    return [colour(volume[middle[0]]), coronal, sagittal]


def _middle(synthetic: SyntheticVolume) -> tuple[int, int, int]:
    """Find the middle of the head mask, or of the volume where there is none."""
    head = synthetic.head
    axes = [np.flatnonzero(head.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    first, second, third = (
        int(axis[len(axis) // 2]) if axis.size else size // 2
        for axis, size in zip(axes, head.shape, strict=True)
    )
    return first, second, third


def _line(text: str) -> Picture:
    ink = np.pad(lettering(text, _LETTER), _LETTER * 2)
    return np.where(ink[..., None], np.array(WARNING, dtype=np.uint8), np.uint8(0))


def _above(*pictures: Picture) -> Picture:
    """Stack pictures, each in the middle of the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.vstack([_padded(picture, width) for picture in pictures])


def _padded(picture: Picture, width: int) -> Picture:
    free = width - picture.shape[1]
    return np.pad(picture, ((0, _GAP), (free // 2, free - free // 2), (0, 0)))


def _beside(panels: Sequence[Picture]) -> Picture:
    height = max(panel.shape[0] for panel in panels)
    return np.hstack(
        [np.pad(p, ((0, height - p.shape[0]), (_GAP // 2, _GAP // 2), (0, 0))) for p in panels]
    )


def _framed(picture: Picture) -> Picture:
    rows, columns, _ = picture.shape
    framed = np.empty((rows + 2 * _FRAME, columns + 2 * _FRAME, 3), dtype=np.uint8)
    framed[:] = WARNING
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = picture
    return framed
