"""Simulates CT of the heads whose maps of anatomy lie in a folder; T1 and mask are the maps' own.

One dense series of every head, with its own pose, HU and scanner; the random numbers depend on the
name of the head alone. The role of each head is fixed in `trainer.heads`.
"""

import zlib
from pathlib import Path

import numpy as np

from rebrain_node.domain.volume import AIR_HU as LEAST_HU
from trainer import heads
from trainer.data.dataset import DatasetError, Reading, Role, SourceKind, SourceSubject, Subject
from trainer.simulate.hounsfield import (
    MOST_STRETCH,
    Tissues,
    crop_box,
    mni_from_voxel,
    stretch,
)
from trainer.simulate.labels import LabelHead, read_maps
from trainer.simulate.slabs import PIXEL_MM, scanned_series

LICENCE = "that of each head's T1, in the notes of its meta.json"
STEP_MM = 2.5  # of the slices, which are as thick
_SEED = 6
_ROLES: dict[heads.Role, Role] = {
    "train": "train", "validation": "test", "demonstration": "test",
}  # fmt: skip


def find(source: Path) -> list[SourceSubject]:
    """List the heads whose maps are in a folder.

    Raises
    ------
    DatasetError
        `source` is no folder.
    """
    if not source.is_dir():
        raise DatasetError(f"{source} is no folder; make one by rebrain-train tissue-maps --maps")
    return [
        _head(path)
        for path in sorted(source.glob("*.npz"))
        if not path.stem.endswith(".part")  # being written by `rebrain-train tissue-maps`
    ]


def _head(path: Path) -> SourceSubject:
    whole = heads.terms_of(path.stem).whole_head_truth
    problem = f"{path}: no truth outside the brain, the T1 is fat-suppressed or defaced"
    return SourceSubject(
        path.stem, {"maps": path}, None if whole else problem, _ROLES[heads.role_of(path.stem)]
    )


def read(found: SourceSubject, kind: SourceKind) -> Reading:
    """Simulate one head.

    Raises
    ------
    DatasetError
        The file holds no maps, or the template was not fitted to the head.
    """
    del kind  # what is simulated is HU
    terms, path = heads.terms_of(found.name), found.files["maps"]
    try:
        head = read_maps(path, 1.0 if terms.sharp else 2.0)
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{path} holds no maps of a head: {error}") from error
    ratio = stretch(mni_from_voxel(head))
    if ratio > MOST_STRETCH:
        raise DatasetError(
            f"{path}: the fit to the template stretches one direction {ratio:.2f} times as much as "
            f"another (limit {MOST_STRETCH}): the fit failed, and a CT made with it would be wrong"
        )
    subject = _scanned(found.name, head)
    across, down = (PIXEL_MM, 0.0, 0.0, 0.0), (0.0, PIXEL_MM, 0.0, 0.0)
    up = (0.0, 0.0, STEP_MM, float(subject.positions_mm[0]))
    return Reading(
        subject,
        (across, down, up, (0.0, 0.0, 0.0, 1.0)),
        (
            f"CT simulated, slabs of {STEP_MM} mm; T1 of the same slabs in canonical contrast",
            f"licence of the T1: {terms.licence}",
        ),
    )


def _scanned(name: str, head: Tissues | LabelHead) -> Subject:
    """Simulate one series of the head."""
    rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
    series = scanned_series(head, mni_from_voxel(head), rng, STEP_MM, STEP_MM)
    inside, brain, t1 = series.truth.swapaxes(0, 1)
    mask = inside > 0.5
    box = crop_box(mask, margin=8)
    return Subject(
        name=name,
        source=np.clip(np.rint(series.hu[box]), LEAST_HU, 32767),
        target=t1[box],
        mask=mask[box],
        brain=brain[box] > 0.5,
        positions_mm=series.offsets_mm,
        pixel_mm=(PIXEL_MM, PIXEL_MM),
    )
