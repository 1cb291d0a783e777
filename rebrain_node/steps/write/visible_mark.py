"""Marks that a viewer shows on the MR: a presentation state, or ink in the pixels beside the head.

The presentation state (PS3.3 A.33.1) leaves the pixels as they are; a viewer that applies it shows
the words on every slice. Ink in the pixels is shown by every viewer and stays: it never covers a
voxel of the head of any slice, and where there is no room for it there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.volume import MaskArray, SyntheticVolume
from rebrain_node.pictures import lettering
from rebrain_node.steps.write.encoding import plain
from rebrain_node.steps.write.references import listed, reference
from rebrain_node.steps.write.result import Result, stamp

_LAYER: Final = "SYNTHETIC"
#: of the text, as shares of the displayed area: left, top, right, bottom
_TOP: Final = (0.02, 0.01, 0.98, 0.06)
_BOTTOM: Final = (0.02, 0.94, 0.98, 0.99)
_LINES: Final = ("SYNTHETIC", "NOT FOR DIAGNOSIS")
_MARGIN: Final = 2  #: pixels between ink and the edge, and the head
_FRAME: Final = 2  #: pixels, width of the border


def write_presentation_state(result: Result, images: Sequence[Dataset]) -> Dataset:
    """Build the presentation state that shows the words of the mark on every MR slice."""
    wanted = ("SamplesPerPixel", "SharedFunctionalGroupsSequence")
    references = [listed(image, *wanted) for image in images]  # all frames of each
    layer = GraphicLayer(_LAYER, order=1, description="Mark of synthetic images")
    text = TextObject(
        marks.VISIBLE_WORDS,
        units=AnnotationUnitsValues.DISPLAY,
        bounding_box=_place_of_text(result.synthetic.head),
    )
    # highdicom looks up of each image anew whether its class has pixels
    annotation = GraphicAnnotation(references[:1], layer, text_objects=[text])
    annotation["ReferencedImageSequence"].value = [
        reference(image.SOPClassUID, image.SOPInstanceUID) for image in references
    ]
    black, white = result.synthetic.stored_range.black, result.synthetic.stored_range.white
    dataset = GrayscaleSoftcopyPresentationState(
        referenced_images=references,
        content_label=_LAYER,
        content_description=f"{marks.VISIBLE_WORDS}: mark on each MR slice",
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        voi_lut_transformations=[
            SoftcopyVOILUTTransformation(
                window_center=(black + white + 1) / 2, window_width=white - black + 1
            )
        ],
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} marks of MR T1",
        manufacturer_model_name=marks.MODEL_NAME,
        software_versions=plain(result.provenance.software_version),
        device_serial_number=result.provenance.bundle_digest,
        **result.names("PR"),
    )
    for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
        dataset.pop(keyword, None)  # of an Enhanced MR: stored values are shown as they are
    dataset.BodyPartExamined = "HEAD"  # unpaired, so that no Laterality is wanted
    stamp(dataset, result)
    # highdicom writes the time of the clock, on which no object depends
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    return dataset


def ink_of(synthetic: SyntheticVolume, where: str) -> MaskArray | None:
    """Find the pixels of the mark that are drawn white on every slice that shows the head.

    Parameters
    ----------
    synthetic : SyntheticVolume
    where : {"corner", "border"}

    Returns
    -------
    MaskArray or None
        (rows, columns); None where it would touch the head of a slice or does not fit.
    """
    occupied = np.asarray(synthetic.head.any(axis=0))
    ink = np.zeros_like(occupied)
    if where == "border":
        ink[:] = True
        ink[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
        return None if (ink & _grown(occupied)).any() else ink
    for lines in (_LINES, _LINES[:1]):
        drawn = _block(lines)
        height, width = (size + 2 * _MARGIN for size in drawn.shape)
        if height > occupied.shape[0] or width > occupied.shape[1]:
            continue
        for top in (0, occupied.shape[0] - height):
            for left in (0, occupied.shape[1] - width):
                if not occupied[top : top + height, left : left + width].any():
                    rows = slice(top + _MARGIN, top + height - _MARGIN)
                    ink[rows, left + _MARGIN : left + width - _MARGIN] = drawn
                    return ink
    return None


def _place_of_text(head: MaskArray) -> tuple[float, float, float, float]:
    """Return the edge that the head leaves more room at."""
    rows = np.flatnonzero(head.any(axis=(0, 2)))
    if rows.size and rows[0] < head.shape[1] - 1 - rows[-1]:
        return _BOTTOM
    return _TOP


def _block(lines: Sequence[str]) -> MaskArray:
    drawn = [lettering(line, 1) for line in lines]
    width = max(line.shape[1] for line in drawn)
    padded = [np.pad(line, ((0, 1), (0, width - line.shape[1]))) for line in drawn]
    return np.vstack(padded)


def _grown(mask: MaskArray) -> MaskArray:
    """Return the mask and the pixels within the margin around it."""
    grown = mask.copy()
    for axis in (0, 1):
        for shift in range(1, _MARGIN + 1):
            for direction in (shift, -shift):
                grown |= _shifted(mask, direction, axis)
    return grown


def _shifted(mask: MaskArray, by: int, axis: int) -> MaskArray:
    moved = np.roll(mask, by, axis)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = False
    return moved
