"""A tiny prepared data set with known truth: a ball of tissue in a shell of bone."""

from pathlib import Path

import numpy as np

from trainer.data.dataset import (
    Index,
    Meta,
    PreparedData,
    Role,
    SourceKind,
    Subject,
    write_index,
    write_subject,
)


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


def write_balls(folder: Path, split: dict[Role, tuple[str, ...]], kind: SourceKind) -> PreparedData:
    """Write and open a data set of balls, one seed for each subject."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = Meta(
        pixel_mm=(1.5, 1.25), affine=None, files={}, inputs={}, notes=("made of balls",), sha256={}
    )
    names = [name for names in split.values() for name in names]
    records = [
        write_subject(folder, ball_subject(name, seed=seed), kind, meta)
        for seed, name in enumerate(names)
    ]
    write_index(
        folder,
        Index(
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
