"""The demonstration head: one synthetic CT of a licence-clean head, with its true T1.

    head.npz   hu      (z, y, x) int16, noise-free simulated HU at 1 mm, air -1000
               t1      (z, y, x) uint8, canonical T1 x 255, the truth
               affine  (4, 4) float64: LPS mm = affine @ (x, y, z, 1) of a voxel
    LICENSE    of the source
    README.md  provenance

No array holds Python objects. Levels are quantised so that the file stays small.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.heads import Head
from trainer.simulate.hounsfield import AIR_HU, Tissues, crop_box, draw_hu, tissues

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
