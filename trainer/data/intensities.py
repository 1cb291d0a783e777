"""From the unit of a data set to what methods work in: [0, 1] for images, windows for networks."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rebrain_node.domain.volume import AIR_HU
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.similarity import IntensityScale
from rebrain_node.model.source import SourceSlice
from trainer.data.dataset import SourceKind
from trainer.data.placing import Placement
from trainer.data.protocols import Case

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

MARGIN_MM = 2.0  # CT kept around the head, as the node does; the table and head rest go


def unit(source: Volume, head: Mask, kind: SourceKind, recipe: Recipe) -> Volume:
    """Map a source to [0, 1]: the brain window for CT, percentiles 0.5 to 99.5 in the head for MR.

    Any shape; clipped.
    """
    if kind == "ct":
        return np.asarray((recipe.brain_window.apply(source) + 1) / 2, dtype=np.float32)
    if kind == "ct-window":
        return np.asarray(np.clip(source / np.float32(255), 0, 1), dtype=np.float32)
    return np.asarray(np.clip(IntensityScale.of(source, head).map(source), 0, 1))


def source_slices(
    case: Case, kind: SourceKind, recipe: Recipe, placement: Placement
) -> list[SourceSlice]:
    """Return the slices given, on the model grid, in the windows of the recipe.

    The wide window is unknown (-1) unless the source is in HU.
    """
    unknown = np.full(recipe.grid.shape, -1, np.float32)
    if kind == "ct":
        planes = [placement.onto(plane, AIR_HU) for plane in without_table(case)]
        return [
            SourceSlice(recipe.brain_window.apply(hu), recipe.wide_window.apply(hu), float(place))
            for hu, place in zip(planes, case.positions_mm, strict=True)
        ]
    brain = unit(case.source, case.head, kind, recipe) * 2 - 1
    return [
        SourceSlice(placement.onto(plane, -1.0), unknown, float(place))
        for plane, place in zip(brain, case.positions_mm, strict=True)
    ]


def without_table(case: Case) -> Volume:
    """Air beyond the head and a margin, (given, row, column) HU."""
    pixel_mm = case.subject.pixel_mm
    if pixel_mm is None:
        return case.source
    reach = round(MARGIN_MM / min(pixel_mm))
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    kept = ndimage.binary_dilation(case.head, disc[None])
    return np.where(kept, case.source, np.float32(AIR_HU))


def truth_unit(target: Volume, head: Mask) -> Image:
    """Map a true MR to the unit of the scores, clipped to [0, 1]: what training methods learn."""
    return np.asarray(np.clip(IntensityScale.of(target, head).map(target), 0, 1))
