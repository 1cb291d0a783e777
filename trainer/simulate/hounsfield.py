"""From maps of anatomy to a volume of Hounsfield units, new at every draw.

Volumes are (z, y, x) at 1 mm along LPS. Brightness levels are those of the canonical T1
(`trainer.simulate.anatomy.CANONICAL`). Every range was set by eye from slices of real head CT.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import MillimetreArray
from rebrain_node.model.tissue_level import RANGE_HU, level_of, shifted
from trainer.simulate.pathology import Levels, TissueParts, distance_capped, paint, smooth_field
from trainer.simulate.template import Volume

AIR_HU = -1000.0
_FULL = np.float32(255)  # a membership of 1 in the maps
_TOUCHES = 20  # voxels of head on a face of the volume: the head extends beyond it

# Boxes in MNI mm (x is |x|) where bone is riddled with air cells.
_CELLS = {"mastoid": ((30, 62), (-55, -8), (-62, -22)), "ethmoid": ((0, 17), (36, 68), (-48, -12))}
# Deep grey nuclei, MNI mm (x is |x|): T1 alone makes thalamus and pallidum too white.
_DEEP = ((2, 36), (-34, 24), (-12, 22))
_SHARPENINGS = 4
_STEP = 3  # every third voxel along each axis is plenty for a few numbers
# Where pineal and choroid plexus calcify: MNI mm, probability.
_CALCIFIED = (((0, -29, 3), 0.5), ((-19, -40, 7), 0.35), ((19, -40, 7), 0.35))


@dataclass(frozen=True)
class Anatomy:
    """T1, memberships (0 to 1) of brain and head, and MNI mm of one head, (z, y, x) float32.

    `t1` is canonical, 0 to 1: the truth. `known` holds, per axis, the lowest and the highest voxel
    between which truth exists; infinite where the head ends before the volume does, for beyond it
    there is only air.
    """

    t1: Volume
    brain: Volume
    head: Volume
    known: NDArray[np.float64]
    mni: tuple[Volume, Volume, Volume]


@dataclass(frozen=True)
class DrawnHead:
    """One person drawn of a head: CT and T1 with the same disease."""

    anatomy: Anatomy
    hu: Volume  #: (z, y, x), noise-free

    def tissue_hu(self) -> float:
        """Return the level of brain tissue, measured as the node measures that of a series.

        Raises
        ------
        ValueError
            No voxel of the brain lies between CSF and blood.
        """
        thin = (slice(None, None, _STEP),) * 3
        level = level_of(self.hu[thin][self.anatomy.brain[thin] > 0.9])
        if level is None:
            raise ValueError(
                f"no voxel of the brain lies between {RANGE_HU[0]:g} and {RANGE_HU[1]:g} HU; "
                "check the maps of the head"
            )
        return level

    def levelled(self, tissue_hu: float) -> "DrawnHead":
        """Shift soft tissue so that that of the brain has this level; bone and air stay."""
        return replace(self, hu=shifted(self.hu, tissue_hu - self.tissue_hu()))


@dataclass(frozen=True)
class Tissues(Anatomy):
    """A head whose T1 was acquired, with its memberships (0 to 1), all (z, y, x) float32.

    `smooth_t1` is the denoised T1, from which HU are made.
    """

    smooth_t1: Volume
    bone: Volume
    air: Volume
    skin: Volume
    falx: Volume
    lesion: Volume
    deep_grey: Volume
    cells: Volume
    sites: TissueParts

    def drawn(self, rng: Generator) -> DrawnHead:
        """Draw HU and paint disease into CT and T1."""
        levels = Levels.drawn(rng)
        hu = draw_hu(self, rng, levels)
        hu, t1 = paint(hu, self.t1, self.sites, levels, rng)
        anatomy = Anatomy(t1, self.brain, self.head, self.known, self.mni)
        return DrawnHead(anatomy, hu)


def signed_distance(mask: NDArray[np.bool_]) -> Volume:
    """Return the distance to the surface in voxels, positive outside the mask."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    field = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=False)
    return np.asarray(sitk.GetArrayFromImage(field), dtype=np.float32)


def _ramp(values: Volume, low: float, high: float) -> Volume:
    """Return 0 below `low`, 1 above `high`, linear between; falling if low > high."""
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), dtype=np.float32)


def _box(mni: tuple[Volume, Volume, Volume], limits: tuple[tuple[int, int], ...]) -> Volume:
    """Return a soft box (4 mm edges) in MNI space, |x|."""
    inside = np.ones_like(mni[0])
    for axis, (low, high) in zip((np.abs(mni[0]), mni[1], mni[2]), limits, strict=True):
        inside = inside * _ramp(axis, low - 2, low + 2) * _ramp(axis, high + 2, high - 2)
    return inside


def _brain(inside: Volume) -> NDArray[np.bool_]:
    brain = ndi.binary_fill_holes(inside > 110 / 255)
    labels, count = ndi.label(brain)
    return np.asarray(labels == 1 + np.argmax(ndi.sum_labels(brain, labels, range(1, count + 1))))


def _bone(
    template_hu: Volume,
    dark: Volume,
    brain: NDArray[np.bool_],
    head: NDArray[np.bool_],
    mni_z: Volume,
) -> Volume:
    """Return bone: dense in the template, or T1-dark there or near the vault."""
    distance = signed_distance(brain)
    vault = _ramp(mni_z, -25, -10) * _ramp(distance, 11, 8)
    likely = np.maximum(_ramp(template_hu, 60, 180), vault * (template_hu > -350))
    diploe = vault * _ramp(template_hu, 150, 280)  # marrow of the young is bright on T1
    bone = np.maximum(np.maximum(_ramp(template_hu, 330, 480), diploe), dark * likely) * head
    bone[brain] = 0
    shell = ndi.binary_closing((bone > 0.4) | brain, iterations=3) & ~brain & head & (distance < 9)
    bone = np.maximum(bone, shell * _ramp(mni_z, -25, -15))
    return np.asarray(ndi.gaussian_filter(bone, 0.5), dtype=np.float32)


def crop_box(head: NDArray[np.bool_], margin: int = 4) -> tuple[slice, slice, slice]:
    """Return the box round the head, `margin` voxels wide where the volume allows."""
    spans = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        found = np.flatnonzero(head.any(axis=others))
        spans.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + margin + 1))
    return spans[0], spans[1], spans[2]


def bounds_of_truth(head: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the bounds (3, 2) of truth: finite only at faces that the head runs into."""
    bounds = np.tile([-np.inf, np.inf], (3, 1))
    for axis, size in enumerate(head.shape):
        if np.take(head, 0, axis=axis).sum() >= _TOUCHES:
            bounds[axis, 0] = 1
        if np.take(head, -1, axis=axis).sum() >= _TOUCHES:
            bounds[axis, 1] = size - 2
    return bounds


def tissues(maps: Mapping[str, NDArray[np.generic]]) -> Tissues:
    """Derive memberships from the maps of `anatomy.map_anatomy`, cropped to the head."""
    box = crop_box(np.asarray(maps["head"], dtype=bool))
    cropped = {name: a[box].astype(np.float32) for name, a in maps.items() if a.ndim == 3}
    smooth_t1 = cropped["smooth_t1"] / np.float32(200)
    head = cropped["head"] > 0.5
    template_hu = cropped["template_hu"]
    mni = (cropped["mni_x"], cropped["mni_y"], cropped["mni_z"])
    brain = _brain(cropped["inside"] / _FULL)
    dark = _ramp(smooth_t1, 0.33, 0.21)
    bone = _bone(template_hu, dark, brain, head, mni[2])
    near_brain = ndi.binary_dilation(brain, iterations=2)
    air = ndi.gaussian_filter(dark * _ramp(template_hu, -120, -320) * head * ~near_brain, 0.5)
    depth = -signed_distance(head)
    ventricles = ((mni[1] + 15) / 62) ** 2 + ((mni[2] - 5) / 32) ** 2 <= 1
    falx = _ramp(np.abs(mni[0]), 1.7, 0.7) * _ramp(smooth_t1, 0.34, 0.24) * brain * (mni[2] > -5)
    cells = sum(_box(mni, limits) for limits in _CELLS.values()) * dark * ~near_brain * head
    return Tissues(
        t1=cropped["t1"] / np.float32(200),
        smooth_t1=smooth_t1,
        brain=ndi.gaussian_filter(brain.astype(np.float32), 0.6),
        head=ndi.gaussian_filter(head.astype(np.float32), 0.5),
        bone=bone,
        air=air,
        skin=_ramp(depth, 2.6, 1.6) * head,
        falx=falx * ~ventricles,
        lesion=cropped["lesion"] / _FULL,
        deep_grey=cropped["grey"] / _FULL * _box(mni, _DEEP) * _ramp(smooth_t1, 0.34, 0.42),
        cells=np.clip(cells, 0, 1).astype(np.float32),
        known=bounds_of_truth(head),
        mni=mni,
        sites=_sites(smooth_t1, brain, ventricles),
    )


def _sites(t1: Volume, brain: NDArray[np.bool_], ventricles: NDArray[np.bool_]) -> TissueParts:
    """Find where disease can lie, by the T1; `ventricles` is a region that holds them."""
    white = _ramp(t1, 0.49, 0.56) * brain
    hollow = ndi.binary_opening(ventricles & brain & (t1 < 0.27))
    return TissueParts(
        white=white,
        tissue=_ramp(t1, 0.26, 0.34) * brain,
        ventricle_mm=distance_capped(signed_distance(hollow)),
        rim_mm=np.maximum(-distance_capped(signed_distance((white > 0.5) | hollow)), 0),
    )


def sharpened(head: Tissues, resolution_mm: float) -> Tissues:
    """Undo the blur of the voxels the T1 was acquired with, so that sulci have edges again.

    A head acquired at 2 mm gives blurred sulci, in the CT made from it as in the T1; clinical
    CT is sharper in plane. Van Cittert's iteration against a Gaussian of half the voxel
    size, on the denoised T1, held within the range of the 5 mm neighbourhood: no level appears
    that was not there. The truth becomes the sharpened, denoised T1.

    Parameters
    ----------
    resolution_mm : float
        Voxel size of the acquisition.
    """
    t1, sigma = head.smooth_t1, resolution_mm / 2
    low, high = ndi.minimum_filter(t1, 5), ndi.maximum_filter(t1, 5)
    sharp = t1
    for _ in range(_SHARPENINGS):
        sharp = np.clip(sharp + t1 - ndi.gaussian_filter(sharp, sigma), low, high)
    return replace(head, t1=sharp, smooth_t1=sharp)


def _levels(t1: Volume, at: list[float], hu: list[float]) -> Volume:
    """Map canonical T1 to HU piecewise linearly, so that partial volume stays continuous."""
    table = np.interp(np.arange(256) / 200, at, hu).astype(np.float32)
    return table[np.rint(t1 * 200).astype(np.uint8)]


def _brain_hu(head: Tissues, levels: Levels, rng: Generator) -> Volume:
    grey, white, csf = levels.grey, levels.white, levels.csf
    hu = _levels(head.smooth_t1, [0.10, 0.38, 0.45, 0.60], [csf, grey, grey, white])
    hu += rng.uniform(0.2, 0.35) * head.deep_grey * (grey + 1 - hu)
    hu -= rng.uniform(1, 8) * head.lesion * (head.smooth_t1 > 0.3)
    falx = rng.uniform(0, 0.6) * head.falx
    hu = hu * (1 - falx) + falx * rng.uniform(40, 62)
    for centre, probability in _CALCIFIED:
        if rng.random() < probability:
            hu = _calcify(hu, head, np.array(centre) + rng.normal(0, 1.5, 3), rng)
    return hu + smooth_field(hu.shape, 25, rng) * np.float32(rng.uniform(0, 2.0))


def _calcify(hu: Volume, head: Tissues, centre: NDArray[np.float64], rng: Generator) -> Volume:
    squared = sum((axis - c) ** 2 for axis, c in zip(head.mni, centre, strict=True))
    lump = _ramp(np.sqrt(squared), rng.uniform(1.5, 4.5), 0.5)
    return np.asarray(np.maximum(hu, lump * np.float32(rng.uniform(70, 400))))


def _soft_hu(head: Tissues, rng: Generator) -> Volume:
    muscle = rng.uniform(45, 65)
    levels = [rng.uniform(0, 20), muscle, muscle, rng.uniform(-110, -80)]
    soft = _levels(head.smooth_t1, [0.10, 0.25, 0.55, 0.80], levels)
    skin = head.skin * np.float32(rng.uniform(0.5, 1))
    return np.asarray(soft * (1 - skin) + skin * np.float32(rng.uniform(20, 70)))


def _bone_hu(head: Tissues, rng: Generator) -> Volume:
    dense = np.float32(rng.uniform(700, 1300))
    return dense * (1 + np.float32(0.4) * smooth_field(head.bone.shape, 12, rng))


def _cell_air(head: Tissues, rng: Generator) -> Volume:
    """Return air cells in bone: a fine random pattern, from sclerosed (none) to well aerated."""
    pattern = smooth_field(head.cells.shape, rng.uniform(2.5, 5.0), rng)
    threshold = rng.uniform(-0.35, 0.5)
    return head.cells * _ramp(pattern, threshold, threshold + 0.25)


def draw_hu(head: Tissues, rng: Generator, levels: Levels | None = None) -> Volume:
    """Draw one volume of Hounsfield units for a head, noise-free, (z, y, x) float32.

    `levels` of the brain are drawn too where none are given.
    """
    levels = levels or Levels.drawn(rng)
    hu = head.brain * _brain_hu(head, levels, rng) + (1 - head.brain) * _soft_hu(head, rng)
    bone = np.maximum(head.bone, head.cells * np.float32(rng.uniform(0.3, 0.9)))
    hu = hu * (1 - bone) + bone * _bone_hu(head, rng)
    air = np.maximum(head.air, _cell_air(head, rng))
    hu = hu * (1 - air) + AIR_HU * air
    return np.asarray(hu * head.head + AIR_HU * (1 - head.head), dtype=np.float32)


MOST_STRETCH = 1.25


def mni_from_voxel(head: Anatomy) -> MillimetreArray:
    """Fit the affine from voxels (x, y, z) of `head` to MNI mm (RAS) over the brain.

    The maps carry the coordinates of a non-linear registration; the affine is their least-squares
    fit, so a position agrees with the anatomy of the whole brain rather than with one gyrus.

    Returns
    -------
    MillimetreArray
        (4, 4).
    """
    thin = (slice(None, None, _STEP),) * 3
    inside = head.brain[thin] > 0.9
    z, y, x = _STEP * np.array(np.nonzero(inside), dtype=np.float64)
    voxels = np.stack([x, y, z, np.ones_like(x)], axis=1)
    coordinates = np.stack([axis[thin][inside] for axis in head.mni], axis=1)
    fit, *_ = np.linalg.lstsq(voxels, coordinates.astype(np.float64), rcond=None)
    affine = np.eye(4)
    affine[:3] = fit.T
    return affine


def stretch(affine: MillimetreArray) -> float:
    """Return how much more an affine stretches along one direction than along another, >= 1.

    Heads differ by up to 1.2; more than `MOST_STRETCH` means that the registration of the head to
    the template failed, and every position derived from it is wrong.
    """
    values = np.linalg.svd(affine[:3, :3], compute_uv=False)
    return float(values[0] / values[-1])
