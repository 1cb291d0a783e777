"""The visible mark in the pixels (``marks.visible``), which is no part of the image of tissue."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import MaskArray
from rebrain_node.steps.gate.context import Context

#: a pixel and its eight neighbours
_AROUND = np.ones((3, 3), dtype=np.bool_)


def ink(context: Context) -> MaskArray | None:
    """Pixels of the mark, (rows, columns); None where slices differ in size or none shows anything.

    A component is ink where it is white and all around it black on every slice that is not black
    altogether. Tissue that is clipped has tissue beside it.
    """
    stored_range = context.stored_range
    shown = [p.stored for p in context.mr_pixels if (p.stored > stored_range.black).any()]
    if len({image.shape for image in shown}) != 1:
        return None
    white = np.logical_and.reduce([image == stored_range.white for image in shown])
    black = np.logical_and.reduce([image == stored_range.black for image in shown])
    components, _ = ndimage.label(white, _AROUND)
    beside = ndimage.maximum_filter(components, footprint=_AROUND)
    tissue = np.unique(beside[~white & ~black])
    return np.asarray(white & ~np.isin(components, tissue), dtype=np.bool_)
