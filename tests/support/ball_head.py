"""Balls of known truth: maps of anatomy for the simulator, pools and data sets for the trainer."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import (
    DatasetIndex,
    Meta,
    PreparedData,
    Role,
    SourceKind,
    Subject,
    write_index,
    write_subject,
)
from trainer.simulate import pool
from trainer.simulate.hounsfield import tissues
from trainer.simulate.pool import PoolIndex, PoolRecord, draw_samples

SIZE = 64
CENTRE = np.array([31.0, 32.0, 32.0])  # z, y, x
BRAIN_MM, SKULL_MM, HEAD_MM = 20.0, 24.0, 28.0
SCALE = 3.0  # the ball is a third of a head: MNI coordinates are three times as large


def ball_maps(*, neck: bool = False) -> dict[str, NDArray[np.generic]]:
    """Return maps as `map_anatomy` does: white core, grey rind, skull, scalp."""
    z, y, x = np.indices((SIZE, SIZE, SIZE)).astype(float) - CENTRE[:, None, None, None]
    radius = np.sqrt(z**2 + y**2 + x**2)
    levels = [(14.0, 0.62), (BRAIN_MM, 0.42), (SKULL_MM, 0.05), (HEAD_MM, 0.9)]
    t1 = np.zeros_like(radius)
    for outer, level in reversed(levels):
        t1[radius < outer] = level
    head = radius < HEAD_MM
    if neck:
        column = (np.hypot(y, x) < 10) & (z < 0)
        t1[column & ~head] = 0.4
        head |= column
    template = np.where(radius < BRAIN_MM, 30, np.where(radius < SKULL_MM, 900, -50))
    brain = (radius < BRAIN_MM) * 255
    return {
        "t1": (t1 * 200).astype(np.uint8),
        "smooth_t1": (t1 * 200).astype(np.uint8),
        "template_hu": np.where(head, template, -1000).astype(np.int16),
        "inside": brain.astype(np.uint8),
        "grey": (brain * (radius >= 14)).astype(np.uint8),
        "lesion": np.zeros(t1.shape, np.uint8),
        "head": head,
        "mni_x": np.clip(-x * SCALE, -125, 125).astype(np.int8),
        "mni_y": np.clip(-y * SCALE, -125, 125).astype(np.int8),
        "mni_z": np.clip(z * SCALE, -125, 125).astype(np.int8),
        "origin_mm": np.zeros(3),
    }


def ball_subject(name: str, shape: tuple[int, int, int] = (10, 24, 20), seed: int = 0) -> Subject:
    """Draw one pair: source 40 HU with a warm spot, target twice its distance from the rim."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((z * 0.8) ** 2 + y**2 + x**2)
    brain, head = radius < 0.7, radius < 0.9
    source = np.where(brain, 40 + 8 * x + rng.normal(0, 1, shape), np.where(head, 900, -1000))
    target = np.where(brain, 300 - 100 * x, np.where(head, 60, 0)) + rng.normal(0, 1, shape)
    return Subject(
        name=name,
        source=np.round(source).astype(np.float32),
        target=target.astype(np.float32),
        mask=head,
        brain=brain,
        positions_mm=np.arange(shape[0]) * 2.0 - 10,
        pixel_mm=(1.5, 1.25),
    )


def write_balls(
    folder: Path,
    split: dict[Role, tuple[str, ...]],
    kind: SourceKind,
    shape: tuple[int, int, int] = (10, 24, 20),
) -> PreparedData:
    """Write and open a data set of balls, one seed for each subject."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = Meta(
        pixel_mm=(1.5, 1.25), affine=None, files={}, inputs={}, notes=("made of balls",), sha256={}
    )
    names = [name for names in split.values() for name in names]
    records = [
        write_subject(folder, ball_subject(name, shape, seed), kind, meta)
        for seed, name in enumerate(names)
    ]
    write_index(
        folder,
        DatasetIndex(
            source_kind=kind,
            volumetric=True,
            licence="none needed",
            origin="made of balls",
            split_rule="as given",
            seed=0,
            split=split,
            subjects=tuple(records),
        ),
    )
    return PreparedData.open(folder)


def write_ball_pool(
    folder: Path, roles: dict[str, str], count: int, gap_mm: tuple[float, float] | None = None
) -> Path:
    """Write a pool of `count` samples of the ball for each name and its role."""
    head = tissues(ball_maps())
    records = [
        PoolRecord(
            name=name,
            role=role,
            sharp=True,
            whole_head_truth=True,
            samples=count,
            sha256=pool.write_subject(
                folder / name, draw_samples(head, name, count, seed=1, gap_mm=gap_mm), count
            ),
        )
        for name, role in roles.items()
    ]
    pool.write_index(folder, PoolIndex(seed=1, subjects=tuple(records)))
    return folder
