"""The two heads that ship with the node: the demonstration head and the head template.

    head.npz      hu      (z, y, x) int16, noise-free simulated HU at 1 mm, air -1000
                  t1      (z, y, x) uint8, canonical T1 x 255, the truth
                  affine  (4, 4) float64: LPS mm = affine @ (x, y, z, 1) of a voxel
    template.npz  the mean of one simulated CT of each of some training heads in MNI space

The template and the heads' true positions come from the same coordinates, so that what the node
measures and what the knowledge base states are one frame; a mean of real CT of other subjects would
lie a few millimetres off. Levels are quantised so that the files stay small.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.head_template import SHAPE, SPACING_MM, levels, points_mm
from trainer.heads import Head
from trainer.simulate.hounsfield import AIR_HU, Tissues, crop_box, draw_hu, mni_from_voxel, tissues
from trainer.simulate.labels import LabelHead

SEED = 27
_SOFT_STEP_HU, _HARD_STEP_HU, _HARD_HU = 2, 40, 120
_T1_STEP = 5

_README = """# Demonstration head

`head.npz` holds a computed tomography of the head that **no scanner made**: Hounsfield units
simulated from the T1-weighted head `{name}`, with the canonical T1 as truth. It shows the node at
work without any patient's data. It is not anatomy of a patient and says nothing about accuracy on
patients.

- source: {name}, {licence}; the notice is in `LICENSE` beside this file
- made by: `rebrain-train demo-head`
- arrays: `hu` int16 HU (z, y, x), `t1` uint8 (z, y, x), `affine` (voxel x, y, z to LPS mm)
- the head took no part in training
"""


def _quantised(hu: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round soft tissue to 2 HU and bone to 40 HU: finer steps are noise to the eye."""
    soft = np.rint(hu / _SOFT_STEP_HU) * _SOFT_STEP_HU
    hard = np.rint(hu / _HARD_STEP_HU) * _HARD_STEP_HU
    return np.where(np.abs(hu) > _HARD_HU, hard, soft).astype(np.int16)


def _arrays(maps: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    head: Tissues = tissues(maps)
    z, y, x = (span.start for span in crop_box(np.asarray(maps["head"], dtype=bool)))
    affine = np.eye(4)
    affine[:3, 3] = np.asarray(maps["origin_mm"], dtype=float) + np.array([x, y, z])
    hu = np.where(head.head > 0.01, draw_hu(head, np.random.default_rng(SEED)), AIR_HU)
    t1 = np.rint(np.clip(head.t1, 0, 1) * 255 / _T1_STEP) * _T1_STEP
    t1 = np.where(head.head > 0.01, t1, 0)
    return {"hu": _quantised(hu.astype(np.float32)), "t1": t1.astype(np.uint8), "affine": affine}


def write_demo_head(head: Head, maps: dict[str, NDArray[np.generic]], folder: Path) -> int:
    """Write the demonstration head into `folder` and return the size of `head.npz` in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "head.npz"
    np.savez_compressed(file, **_arrays(maps))  # type: ignore[arg-type]
    licence = head.t1.with_name(f"{head.name}.LICENSE")
    (folder / "LICENSE").write_bytes(licence.read_bytes())
    (folder / "README.md").write_text(_README.format(name=head.name, licence=head.licence))
    return file.stat().st_size


HEADS = 12  # a mean of so many hardly changes with one more
LEAST_HEADS = 3  # that must be seen at a voxel for the template to be known there
_SEED = 4
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NOTICE = """\
template.npz is the average of simulated CT volumes, each derived from one of the T1 volumes below.
It shows no single subject. The licence of their source follows.

"""


def chosen(heads: Iterable[Head]) -> list[Head]:
    """Return the heads the template is made of: the first training heads under one licence."""
    return [head for head in heads if head.role == "train" and not head.sharp][:HEADS]


def in_head_frame(
    head: Tissues | LabelHead, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw one CT of a head and bring it to the template's grid.

    Returns
    -------
    level, brain, known : FloatArray
        Each (z, y, x) of the template, 0 to 1.
    """
    hu = head.drawn(np.random.default_rng(seed)).hu
    voxel_from_lps = np.linalg.inv(mni_from_voxel(head)) @ _RAS_FROM_LPS
    places = points_mm() @ voxel_from_lps[:3, :3].T + voxel_from_lps[:3, 3]
    index = np.moveaxis(places, -1, 0)[::-1]
    air = float(levels(np.array(AIR_HU)))
    blur = SPACING_MM / 2.4  # voxels of 1 mm: the blur of a box of 4 mm
    level, brain = (
        ndi.map_coordinates(ndi.gaussian_filter(volume, blur), index, order=1, cval=outside)
        for volume, outside in ((levels(hu), air), (head.brain, 0.0))
    )
    low, high = (head.known[:, side, None, None, None] for side in (0, 1))
    known = ((index >= low) & (index <= high)).all(axis=0)
    return level, brain, known.astype(np.float32)


def mean_template(heads: Iterable[Tissues | LabelHead]) -> dict[str, NDArray[np.uint8]]:
    """Average the heads where they are known; the arrays of the template's file, (z, y, x)."""
    level, brain, known = (np.zeros(SHAPE, dtype=np.float64) for _ in range(3))
    for number, head in enumerate(heads):
        drawn, inside, seen = in_head_frame(head, _SEED + number)
        level += drawn * seen
        brain += inside * seen
        known += seen

    def as_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
        return np.clip(np.rint(255 * values / np.maximum(known, 1)), 0, 255).astype(np.uint8)

    return {
        "level": as_bytes(level),
        "brain": as_bytes(brain),
        "known": (known >= LEAST_HEADS).astype(np.uint8),
    }


def write_head_template(
    folder: Path, arrays: dict[str, NDArray[np.uint8]], heads: list[Head]
) -> int:
    """Write `template.npz` and `LICENSE`; returns the size of the former in bytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type] # arrays only
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.npz").write_bytes(stream.getvalue())
    names = "\n".join(f"- {head.name}: {head.licence}" for head in heads)
    licence = heads[0].t1.with_name("LICENSE").read_text()
    (folder / "LICENSE").write_text(f"{_NOTICE}{names}\n\n{licence}")
    return len(stream.getvalue())
