"""Rules: the synthetic head lies on the measured one, as the pixels of both show.

Positions can be right and the pixels flipped. So a few measured slices are decoded and resampled
on the MR's grid: the heads must overlap, and the CT must explain the MR better as written than
flipped along any axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MaskArray
from rebrain_node.instance.pixels import hounsfield
from rebrain_node.steps.gate.context import Context, Plane
from rebrain_node.steps.gate.ink import ink
from rebrain_node.steps.gate.rules import Violation, set_rule

#: measured slices that are compared; each costs one decoding
SAMPLES: Final = 5
#: HU between air and tissue
TISSUE_HU: Final = -200.0
#: edges between which CT values count as one tissue
HU_EDGES: Final = (-200.0, -20.0, 12.0, 24.0, 32.0, 40.0, 60.0, 120.0, 300.0, 800.0)
#: ratio of the MR's 99th percentile above which a voxel belongs to the head
HEAD_SHARE: Final = 0.05
#: least Dice coefficient of the two heads; our volumes reach 0.97, a shift by 20 mm gives 0.85
DICE_LIMIT: Final = 0.9
#: how much better a flipped volume may fit before it is a violation
FLIP_MARGIN: Final = 0.003


@dataclass(frozen=True, eq=False)
class SlicePair:
    """The MR slice at the position of a measured slice, and the CT on its grid."""

    index: int  #: of the MR slice
    hu: FloatArray  #: (rows, columns), -1024 outside the CT's field of view


@set_rule(
    "GATE-OVERLAP",
    "Dice coefficient of the synthetic and the measured head is at least 0.9.",
    on="MR slices",
)
def _overlap(context: Context) -> Iterator[Violation]:
    """Positions can be plausible and wrong; five slices are compared (observed: 0.97 to 0.99)."""
    pairs = context.once(_pairs)
    if not pairs:
        yield Violation("MR", "no measured slice lies among its slices")
        return
    dice = _dice([_outline(pair.hu) for pair in pairs], _heads(_slices(context, pairs)))
    if dice < DICE_LIMIT:
        yield Violation("MR", f"Dice of its head and the CT's is {dice:.3f}, limit {DICE_LIMIT}")


@set_rule("GATE-FLIP", "The pixels fit the CT better as written than flipped.", on="MR slices")
def _flip(context: Context) -> Iterator[Violation]:
    """Positions can be right and the pixels flipped.

    Compared is the correlation ratio of MR and CT, as written against flipped left to right, front
    to back, both, and head to foot (seen on a real head: 0.85 against 0.67, 0.59, 0.58 and 0.41).
    """
    pairs = context.once(_pairs)
    if not pairs:
        return
    hu = np.stack([pair.hu for pair in pairs])
    written, reversed_slices = _slices(context, pairs), _slices(context, pairs, reverse=True)
    own = _correlation_ratio(written, hu)
    for name, flipped in (
        ("left to right", written[:, :, ::-1]),
        ("front to back", written[:, ::-1, :]),
        ("by 180 degrees", written[:, ::-1, ::-1]),
        ("head to foot", reversed_slices),
    ):
        gain = _correlation_ratio(flipped, hu) - own
        if gain > FLIP_MARGIN:
            yield Violation("MR", f"flipped {name} it fits the CT better, by {gain:.3f}")


def _pairs(context: Context) -> tuple[SlicePair, ...]:
    normal = context.source_planes[0].normal
    positions = np.array([plane.position_mm @ normal for plane in context.mr_planes])
    reach = np.abs(np.diff(positions)).max(initial=1.0) / 2 + 1e-3
    measured = sorted(context.source_planes, key=lambda plane: float(plane.position_mm @ normal))
    found = []
    for plane in measured:
        gaps = np.abs(positions - plane.position_mm @ normal)
        if gaps.min() <= reach:
            found.append((plane, int(gaps.argmin())))
    chosen = np.unique(np.linspace(0, len(found) - 1, min(SAMPLES + 2, len(found))).round())
    inner = chosen[1:-1] if len(chosen) > SAMPLES else chosen  # the ends may be air
    return tuple(_pair(context, *found[int(k)]) for k in inner)


def _pair(context: Context, plane: Plane, index: int) -> SlicePair:
    source = next(d for d in context.source if d.get("SOPInstanceUID") == plane.name)
    is_enhanced = "PerFrameFunctionalGroupsSequence" in source
    hu, _ = hounsfield(source, plane.frame if is_enhanced else None)
    own = context.mr_planes[index]
    r = np.arange(own.shape[0])[:, None, None] * own.spacing_mm[0]
    c = np.arange(own.shape[1])[None, :, None] * own.spacing_mm[1]
    offset = own.position_mm + r * own.column + c * own.row - plane.position_mm
    voxels = np.stack(
        [offset @ plane.column / plane.spacing_mm[0], offset @ plane.row / plane.spacing_mm[1]]
    )
    resampled = ndimage.map_coordinates(hu, voxels, order=0, mode="constant", cval=-1024.0)
    return SlicePair(index, np.asarray(resampled, dtype=np.float32))


def _slices(context: Context, pairs: tuple[SlicePair, ...], *, reverse: bool = False) -> FloatArray:
    """MR slices of the pairs above black, (n, rows, columns), without ink; reverse: in reverse."""
    stored = {pixels.name: pixels.stored for pixels in context.mr_pixels}
    planes = context.mr_planes[::-1] if reverse else context.mr_planes
    slices = np.stack([stored[planes[pair.index].name] for pair in pairs]).astype(np.float32)
    slices -= np.float32(context.stored_range.black)
    mark = context.once(ink)
    if mark is not None:
        slices[:, mark] = 0.0
    return slices


def _heads(slices: FloatArray) -> list[MaskArray]:
    limit = HEAD_SHARE * float(np.percentile(slices, 99))
    return [_filled(image > limit) for image in slices]


def _outline(hu: FloatArray) -> MaskArray:
    """The head without the table: the largest component of tissue."""
    components, count = ndimage.label(ndimage.binary_opening(hu > TISSUE_HU))
    if count == 0:
        return np.zeros(hu.shape, dtype=np.bool_)
    sizes = np.bincount(components.ravel())[1:]
    return _filled(components == int(sizes.argmax()) + 1)


def _filled(mask: MaskArray) -> MaskArray:
    return np.asarray(ndimage.binary_fill_holes(mask), dtype=np.bool_)


def _dice(first: list[MaskArray], second: list[MaskArray]) -> float:
    a, b = np.stack(first), np.stack(second)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 0.0


def _correlation_ratio(mr: FloatArray, hu: FloatArray) -> float:
    """How much of the MR's variance its CT value explains, [0, 1]."""
    tissue = np.digitize(hu, HU_EDGES).ravel()
    values = mr.ravel().astype(np.float64)
    variance = float(values.var())
    if variance == 0.0:
        return 0.0
    counts = np.bincount(tissue)
    means = np.bincount(tissue, values) / np.maximum(counts, 1)
    return float((counts * (means - values.mean()) ** 2).sum() / counts.sum() / variance)
