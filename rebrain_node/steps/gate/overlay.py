"""Rules: the synthetic head lies on the measured one, as the pixels of both show it.

Positions can be right and the pixels turned. So a few measured slices are decoded and looked up
at the places of the MR's own voxels: the heads must cover each other, and the MR's grey must
follow the CT's better as it stands than flipped along any axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MaskArray
from rebrain_node.instance.pixels import hounsfield
from rebrain_node.steps.gate.evidence import Evidence, PixelArray
from rebrain_node.steps.gate.plane import Plane
from rebrain_node.steps.gate.rule import Breach, Rule

#: measured slices looked at; each costs one decoding
SAMPLES: Final = 5
#: HU between air and tissue
TISSUE_HU: Final = -200.0
#: edges between which CT values count as one tissue
HU_EDGES: Final = (-200.0, -20.0, 12.0, 24.0, 32.0, 40.0, 60.0, 120.0, 300.0, 800.0)
#: ratio of the MR's 99th percentile above which a voxel belongs to the head
HEAD_SHARE: Final = 0.05
#: least Dice of the two heads; our own volumes reach 0.97, a shift by 20 mm gives 0.85
DICE_LIMIT: Final = 0.9
#: how much better a flipped volume may fit before it is a finding
FLIP_MARGIN: Final = 0.003


@dataclass(frozen=True)
class _Pair:
    """One measured slice beside the MR slice at its place, both on the MR's grid."""

    name: str  #: of the MR slice
    index: int  #: of the MR slice
    hu: FloatArray  #: (rows, columns), -1024 outside the CT's field of view


def _overlap(evidence: Evidence) -> Iterator[Breach]:
    pairs = _pairs(evidence)
    if not pairs:
        yield Breach("MR", "no measured slice lies among its slices")
        return
    dice = _dice([_outline(pair.hu) for pair in pairs], _heads(_slices(evidence, pairs)))
    if dice < DICE_LIMIT:
        yield Breach("MR", f"Dice of its head and the CT's is {dice:.3f}, limit {DICE_LIMIT}")


def _flip(evidence: Evidence) -> Iterator[Breach]:
    pairs = _pairs(evidence)
    if not pairs:
        return
    hu = np.stack([pair.hu for pair in pairs])
    upright, upended = _slices(evidence, pairs), _slices(evidence, pairs, upended=True)
    own = _explained(upright, hu)
    for name, turned in (
        ("left to right", upright[:, :, ::-1]),
        ("front to back", upright[:, ::-1, :]),
        ("half round", upright[:, ::-1, ::-1]),
        ("head to foot", upended),
    ):
        gain = _explained(turned, hu) - own
        if gain > FLIP_MARGIN:
            yield Breach("MR", f"flipped {name} it fits the CT better, by {gain:.3f}")


def _pairs(evidence: Evidence) -> tuple[_Pair, ...]:
    normal = evidence.source_planes[0].normal
    places = np.array([plane.position_mm @ normal for plane in evidence.mr_planes])
    reach = np.abs(np.diff(places)).max(initial=1.0) / 2 + 1e-3
    measured = sorted(evidence.source_planes, key=lambda plane: float(plane.position_mm @ normal))
    found = []
    for plane in measured:
        gaps = np.abs(places - plane.position_mm @ normal)
        if gaps.min() <= reach:
            found.append((plane, int(gaps.argmin())))
    chosen = np.unique(np.linspace(0, len(found) - 1, min(SAMPLES + 2, len(found))).round())
    inner = chosen[1:-1] if len(chosen) > SAMPLES else chosen  # the ends may be air
    return tuple(_pair(evidence, *found[int(k)]) for k in inner)


def _pair(evidence: Evidence, plane: Plane, index: int) -> _Pair:
    source = next(d for d in evidence.source if d.get("SOPInstanceUID") == plane.name)
    is_enhanced = "PerFrameFunctionalGroupsSequence" in source
    hu, _ = hounsfield(source, plane.frame if is_enhanced else None)
    own = evidence.mr_planes[index]
    r = np.arange(own.shape[0])[:, None, None] * own.spacing_mm[0]
    c = np.arange(own.shape[1])[None, :, None] * own.spacing_mm[1]
    way = own.position_mm + r * own.column + c * own.row - plane.position_mm
    places = np.stack(
        [way @ plane.column / plane.spacing_mm[0], way @ plane.row / plane.spacing_mm[1]]
    )
    looked_up = ndimage.map_coordinates(hu, places, order=0, mode="constant", cval=-1024.0)
    return _Pair(own.name, index, np.asarray(looked_up, dtype=np.float32))


def _slices(evidence: Evidence, pairs: tuple[_Pair, ...], *, upended: bool = False) -> FloatArray:
    """MR slices of the pairs, (n, rows, columns); upended: as if sent in reverse."""
    by_name: dict[str, PixelArray] = {w.name: stored for w, stored in evidence.mr_pixels}
    planes = evidence.mr_planes[::-1] if upended else evidence.mr_planes
    names = [plane.name for plane in planes]
    chosen = [by_name[names[pair.index]] for pair in pairs]
    return np.stack(chosen).astype(np.float32)


def _heads(slices: FloatArray) -> list[MaskArray]:
    limit = HEAD_SHARE * float(np.percentile(slices, 99))
    return [_filled(image > limit) for image in slices]


def _outline(hu: FloatArray) -> MaskArray:
    """The head without the table: the largest part of tissue."""
    parts, count = ndimage.label(ndimage.binary_opening(hu > TISSUE_HU))
    if count == 0:
        return np.zeros(hu.shape, dtype=np.bool_)
    sizes = np.bincount(parts.ravel())[1:]
    return _filled(parts == int(sizes.argmax()) + 1)


def _filled(mask: MaskArray) -> MaskArray:
    return np.asarray(ndimage.binary_fill_holes(mask), dtype=np.bool_)


def _dice(first: list[MaskArray], second: list[MaskArray]) -> float:
    a, b = np.stack(first), np.stack(second)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 0.0


def _explained(mr: FloatArray, hu: FloatArray) -> float:
    """Correlation ratio: how much of the MR's variance its CT value explains, [0, 1]."""
    tissue = np.digitize(hu, HU_EDGES).ravel()
    values = mr.ravel().astype(np.float64)
    whole = float(values.var())
    if whole == 0.0:
        return 0.0
    counts = np.bincount(tissue)
    means = np.bincount(tissue, values) / np.maximum(counts, 1)
    return float((counts * (means - values.mean()) ** 2).sum() / counts.sum() / whole)


RULES: Final = (
    Rule("GATE-OVERLAP", "The synthetic head covers the measured one.", _overlap),
    Rule("GATE-FLIP", "The pixels fit the CT better as they stand than flipped.", _flip),
)
