"""Heads drawn from label maps: CT and T1 together, a new person at every draw.

The maps of a head hold the tissue class of every voxel and its place in MNI space. A draw bends the
head, widens or narrows ventricles and sulci, gives every class its levels with smooth variation,
and paints disease (`trainer.simulate.pathology`). Volumes are (z, y, x) at 1 mm along LPS.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch.nn import functional

from trainer.simulate.anatomy import fit_to_mni
from trainer.simulate.hounsfield import (
    AIR_HU,
    Anatomy,
    DrawnHead,
    Tissues,
    bounds_of_truth,
    crop_box,
    sharpened,
    signed_distance,
    tissues,
)
from trainer.simulate.pathology import Levels, TissueParts, distance_capped, paint, smooth_field
from trainer.simulate.template import CtTemplate, Volume


class ClassLevels(NamedTuple):
    """Levels of one class.

    `hu` is added to the level that `base` names: grey, white, csf, or 0 for none; `hu_spread` and
    `t1_spread` are SDs from head to head.
    """

    labels: tuple[int, ...]
    t1: float
    base: str
    hu: float
    hu_spread: float
    t1_spread: float


#: by name, in the order of the class numbers; labels of the maps as in FreeSurfer below 500
CLASSES: Mapping[str, ClassLevels] = {
    "outside": ClassLevels((), 0.0, "", AIR_HU, 0, 0),
    "air": ClassLevels((), 0.02, "", AIR_HU, 0, 0.01),
    "white": ClassLevels((2, 41, 85), 0.62, "white", 0, 0, 0.01),
    "cortex": ClassLevels((3, 42, 17, 53, 18, 54, 136, 163, 137, 164), 0.42, "grey", 0, 0, 0.015),
    "ventricle": ClassLevels((4, 43, 5, 44, 14, 15, 72), 0.13, "csf", 0, 0.5, 0.01),
    "csf": ClassLevels((24,), 0.14, "csf", 0.5, 1, 0.01),
    "choroid": ClassLevels((25, 57, 30, 62), 0.38, "csf", 14, 8, 0.05),
    "cerebellar white": ClassLevels((7, 46), 0.61, "white", 0.5, 0.7, 0.01),
    "cerebellar cortex": ClassLevels((8, 47), 0.43, "grey", -0.5, 1, 0.015),
    "caudate": ClassLevels((11, 50, 26, 58), 0.44, "grey", 1.5, 1, 0.015),
    "putamen": ClassLevels((12, 51), 0.455, "grey", 1.5, 1, 0.015),
    "thalamus": ClassLevels((10, 49), 0.52, "grey", 0.8, 1, 0.015),
    "pallidum": ClassLevels((13, 52), 0.57, "grey", 2, 1.5, 0.015),
    "diencephalon": ClassLevels((28, 60), 0.56, "white", 2.5, 1, 0.015),
    "stem": ClassLevels((16, 512), 0.585, "white", 1, 1, 0.015),
    "artery": ClassLevels((502,), 0.22, "", 42, 5, 0.1),
    "vein": ClassLevels((514,), 0.26, "", 52, 7, 0.1),
    "eye": ClassLevels((506,), 0.15, "", 12, 5, 0.02),
    "muscle": ClassLevels((507, 508, 530), 0.34, "", 55, 7, 0.03),
    "fat": ClassLevels((), 0.93, "", -95, 10, 0.02),
    "mucosa": ClassLevels((509,), 0.36, "", 35, 10, 0.06),
    "skin": ClassLevels((511,), 0.48, "", 45, 15, 0.08),
    "bone": ClassLevels((515,), 0.08, "", 950, 220, 0.02),
    "marrow": ClassLevels((516,), 0.62, "", 380, 150, 0.12),
}
_NUMBER = {name: k for k, name in enumerate(CLASSES)}
_FLUID = [_NUMBER[name] for name in ("ventricle", "csf", "choroid")]
_WHITE = [_NUMBER[name] for name in ("white", "cerebellar white")]
_TISSUE = [
    _NUMBER[name]
    for name in (
        "white", "cortex", "cerebellar white", "cerebellar cortex", "caudate", "putamen",
        "thalamus", "pallidum", "diencephalon", "stem",
    )
]  # fmt: skip
_BRAIN = [*_TISSUE, *_FLUID]
_HARD = [_NUMBER["bone"], _NUMBER["marrow"]]
_MASTOID = ((30, 62), (-55, -8), (-62, -22))  # MNI mm, x is |x|
_LARGEST_LABEL = 1000


def map_labels(path: Path, template: CtTemplate) -> dict[str, NDArray[np.generic]]:
    """Turn a label map into the maps of a head.

    Returns
    -------
    dict of ndarray
        (z, y, x) at 1 mm, LPS, cropped to the head: `classes` uint8, numbers of `CLASSES`; `head`
        bool; `mni_x`, `mni_y`, `mni_z` int8 mm; `origin_mm` (3,) of the first voxel.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkInt32), "LPS")
    classes, head = classes_of(sitk.GetArrayFromImage(image))
    box = crop_box(head)
    classes, head = classes[box], head[box]
    start = image.TransformIndexToPhysicalPoint([int(span.start) for span in box[::-1]])
    mni = fit_to_mni(_usual_t1(classes), start, head, template)
    return {"classes": classes, "head": head, "origin_mm": np.array(start), **mni}


def classes_of(labels: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the class of every voxel of a label map, and the head with the air in it.

    Parameters
    ----------
    labels : ndarray
        (z, y, x), 0 where there is nothing; what lies apart from the largest part is nothing too.
    """
    parts, count = ndi.label(labels > 0)
    body = parts == 1 + int(np.argmax(ndi.sum_labels(labels > 0, parts, range(1, count + 1))))
    closed = ndi.binary_closing(np.pad(body, 3), iterations=2)[3:-3, 3:-3, 3:-3] | body
    head = np.stack([ndi.binary_fill_holes(plane) for plane in closed])
    table = np.full(_LARGEST_LABEL, _NUMBER["muscle"], np.uint8)
    for name, tissue in CLASSES.items():
        table[list(tissue.labels)] = _NUMBER[name]
    within = np.where(head, _NUMBER["air"], _NUMBER["outside"])
    return np.where(body, table[labels], within).astype(np.uint8), head


def _usual_t1(classes: NDArray[np.uint8]) -> Volume:
    levels = np.array([tissue.t1 for tissue in CLASSES.values()], np.float32)
    return np.asarray(ndi.gaussian_filter(levels[classes], 0.6), dtype=np.float32)


@dataclass(frozen=True)
class LabelHead(Anatomy):
    """A head of which the classes are known; `t1` is that of the usual levels.

    `beneath` is the nearest class of tissue where there is CSF; `ventricle_mm`, `csf_mm` and
    `skin_mm` are distances to lateral ventricles, outer CSF and skin, negative within.
    """

    classes: NDArray[np.uint8]
    beneath: NDArray[np.uint8]
    ventricle_mm: Volume
    csf_mm: Volume
    skin_mm: Volume

    @classmethod
    def of(cls, maps: Mapping[str, NDArray[np.generic]]) -> "LabelHead":
        """Prepare the maps of `map_labels` for drawing."""
        classes = np.asarray(maps["classes"], dtype=np.uint8)
        brain = np.isin(classes, _BRAIN)
        box = crop_box(brain)
        tissue = np.isin(classes, _TISSUE)
        nearest = ndi.distance_transform_edt(
            ~tissue[box], return_distances=False, return_indices=True
        )
        beneath = classes.copy()
        beneath[box] = np.where(brain[box], classes[box][tuple(nearest)], classes[box])
        head = np.asarray(maps["head"], dtype=bool)

        def to(number: str, box: tuple[slice, ...]) -> Volume:
            out = np.full(classes.shape, 60, np.float32)
            out[box] = distance_capped(signed_distance(classes[box] == _NUMBER[number]))
            return out

        everywhere = tuple(slice(None) for _ in range(3))
        return cls(
            t1=_usual_t1(classes),
            brain=ndi.gaussian_filter(brain.astype(np.float32), 0.6),
            head=ndi.gaussian_filter(head.astype(np.float32), 0.5),
            known=bounds_of_truth(head),
            mni=tuple(np.asarray(maps[f"mni_{k}"], dtype=np.float32) for k in "xyz"),  # type: ignore[arg-type] # three
            classes=classes,
            beneath=beneath,
            ventricle_mm=to("ventricle", box),
            csf_mm=to("csf", box),
            skin_mm=to("skin", everywhere),
        )

    def drawn(self, rng: Generator) -> DrawnHead:
        """Draw one person of this head: shape, levels and disease."""
        bent = _bent(self, rng)
        classes = _with_fat_and_cells(_with_new_ventricles(bent, rng), bent, rng)
        levels = Levels.drawn(rng)
        hu, t1 = _levels_of(classes, bent, levels, rng)
        white = np.isin(classes, _WHITE)
        tissue = np.isin(classes, _TISSUE)
        sites = TissueParts(
            white=white.astype(np.float32),
            tissue=tissue.astype(np.float32),
            ventricle_mm=bent.ventricle_mm,
            rim_mm=_within(white | (classes == _NUMBER["ventricle"])),
        )
        hu, t1 = paint(hu, t1, sites, levels, rng)
        blur = rng.uniform(0.3, 0.55)
        anatomy = Anatomy(
            t1=np.clip(ndi.gaussian_filter(t1, blur), 0, 1),
            brain=bent.brain,
            head=bent.head,
            known=self.known,
            mni=bent.mni,
        )
        return DrawnHead(anatomy, ndi.gaussian_filter(hu, blur))


def read_maps(path: Path, resolution_mm: float | None = None) -> Tissues | LabelHead:
    """Read the maps of a head, ready to be drawn.

    Parameters
    ----------
    resolution_mm : float, optional
        Undo the blur of an acquisition at this voxel size (`hounsfield.sharpened`).
    """
    with np.load(path, allow_pickle=False) as arrays:
        maps = dict(arrays)
    if "classes" in maps:
        return LabelHead.of(maps)
    head = tissues(maps)
    return head if resolution_mm is None else sharpened(head, resolution_mm)


def _within(mask: NDArray[np.bool_]) -> Volume:
    """Return the depth below the surface of a mask, 0 outside it."""
    box = crop_box(mask) if mask.any() else tuple(slice(0, 1) for _ in range(3))
    out = np.zeros(mask.shape, np.float32)
    out[box] = np.maximum(-distance_capped(signed_distance(mask[box])), 0)
    return out


def _bent(head: LabelHead, rng: Generator) -> LabelHead:
    """Bend and stretch a head at random, all but its T1: up to about 5 mm and 4 %."""
    shape = head.classes.shape
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 3, 6, 6, 6)).astype(np.float32))
    bend = functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0]
    bend = bend * rng.uniform(0, 2.2)
    scale = rng.normal(1, 0.02, 3)
    index = torch.zeros(shape, dtype=torch.int64)
    for axis, size in enumerate(shape):
        middle = (size - 1) / 2
        ramp = (torch.arange(size) - middle) * float(scale[axis]) + middle
        view = [1, 1, 1]
        view[axis] = size
        places = (ramp.view(view) + bend[axis]).round_().clamp_(0, size - 1).long()
        index = index * size + places

    def moved(volume: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(torch.from_numpy(volume).view(-1)[index].numpy())

    x, y, z = (moved(axis) for axis in head.mni)
    names = ("brain", "head", "classes", "beneath", "ventricle_mm", "csf_mm", "skin_mm")
    parts = {name: moved(getattr(head, name)) for name in names}
    return LabelHead(t1=head.t1, known=head.known, mni=(x, y, z), **parts)  # type: ignore[arg-type]


def _with_new_ventricles(head: LabelHead, rng: Generator) -> NDArray[np.uint8]:
    """Move the surfaces of lateral ventricles and sulci; atrophy widens both."""
    atrophy = max(0.0, rng.normal(0, 0.5))
    ragged = 0.5 * smooth_field(head.classes.shape, 8, rng)
    classes = head.classes.copy()
    by = float(np.clip(rng.normal(0, 1.2) + 1.5 * atrophy, -2.5, 4))
    wide = head.ventricle_mm + ragged < by
    tissue = np.isin(classes, _TISSUE)
    classes[wide & tissue] = _NUMBER["ventricle"]
    narrow = (classes == _NUMBER["ventricle"]) & ~wide & (head.ventricle_mm <= 0)
    classes[narrow] = head.beneath[narrow]
    by = float(np.clip(rng.normal(0, 0.5) + 0.8 * atrophy, -1, 1.5))
    wide = head.csf_mm + ragged < by
    outer = np.isin(classes, [_NUMBER["cortex"], _NUMBER["cerebellar cortex"]])
    classes[wide & outer] = _NUMBER["csf"]
    narrow = (classes == _NUMBER["csf"]) & ~wide & np.isin(head.beneath, _TISSUE)
    narrow &= head.csf_mm > by - 1.5  # wide cisterns stay
    classes[narrow] = head.beneath[narrow]
    return classes


def _with_fat_and_cells(
    classes: NDArray[np.uint8], head: LabelHead, rng: Generator
) -> NDArray[np.uint8]:
    """Draw fat below the skin and in patches of the soft tissue, and air cells of the mastoid."""
    patch = smooth_field(classes.shape, 7, rng)
    fatty = (head.skin_mm < rng.uniform(2.5, 7)) | (patch > rng.uniform(0.05, 0.5))
    classes[(classes == _NUMBER["muscle"]) & fatty] = _NUMBER["fat"]
    inside = np.ones(classes.shape, dtype=bool)
    for axis, (low, high) in zip((np.abs(head.mni[0]), *head.mni[1:]), _MASTOID, strict=True):
        inside &= (axis > low) & (axis < high)
    cells = smooth_field(classes.shape, 3.5, rng) > rng.uniform(-0.3, 0.6)
    classes[(classes == _NUMBER["bone"]) & inside & cells & (head.skin_mm > 8)] = _NUMBER["air"]
    return classes


def _levels_of(
    classes: NDArray[np.uint8], head: LabelHead, levels: Levels, rng: Generator
) -> tuple[Volume, Volume]:
    """Give every class its HU and T1, with smooth variation from place to place."""
    base = {"grey": levels.grey, "white": levels.white, "csf": levels.csf, "": 0.0}
    hu_of, t1_of = (
        np.array(values, np.float32)
        for values in zip(
            *(
                (base[c.base] + c.hu + rng.normal(0, 1) * c.hu_spread,
                 np.clip(c.t1 + rng.normal(0, 1) * c.t1_spread, 0, 1))
                for c in CLASSES.values()
            ),
            strict=True,
        )
    )  # fmt: skip
    shape = classes.shape
    hu, t1 = hu_of[classes], t1_of[classes]
    brain, hard = np.isin(classes, _TISSUE), np.isin(classes, _HARD)
    soft = np.isin(classes, [_NUMBER["muscle"], _NUMBER["fat"], _NUMBER["marrow"]])
    hu[hard] *= 1 + np.float32(0.35) * smooth_field(shape, 12, rng)[hard]
    patch, slow = smooth_field(shape, 7, rng), smooth_field(shape, 20, rng)
    hu += (np.float32(1.5) * brain) * slow
    t1 += (np.float32(0.02) * brain) * slow[::-1, ::-1]  # not that of the HU
    hu[soft] += 8 * patch[soft]
    t1[soft] += np.float32(0.1) * patch[soft]
    falx = (classes == _NUMBER["csf"]) & (np.abs(head.mni[0]) < 1.5) & (head.mni[2] > 15)
    dense = np.float32(rng.uniform(0, 0.6))
    hu[falx] += dense * (50 - hu[falx])
    t1[falx] += dense / 2 * (np.float32(0.35) - t1[falx])
    return hu, t1
