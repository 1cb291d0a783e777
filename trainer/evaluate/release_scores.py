"""The scores of a release: held-out simulated heads, position by position, and the real pairs.

Figures have the names and the definitions of `rebrain-train evaluate`; the pool holds single
positions, not volumes, so SSIM on held-out heads is taken within the slice.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rebrain_node.model.card import Score
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.sampling import Evaluate, noise_field, sample_slice
from rebrain_node.model.similarity import psnr_db, ssim
from rebrain_node.model.source import Conditioning, SourceSlice, at_measured, between
from trainer.data.archive import open_any
from trainer.data.dataset import Mask
from trainer.data.protocols import Sparsity
from trainer.evaluate import tables
from trainer.evaluate.baselines import LookupTable, Tally
from trainer.evaluate.methods import NetworkMethod
from trainer.evaluate.metrics import correlation
from trainer.evaluate.networks import Network
from trainer.evaluate.run import Comparison, Progress
from trainer.sample_rng import SampleRng
from trainer.simulate.pool import Pool
from trainer.simulate.scanner import scan
from trainer.simulate.slabs import Sample
from trainer.train.samples import centred

Method = Callable[[Conditioning], Image]  # to T1 in [0, 1], (rows, columns)

PAIRS = "ct_t1_pairs_7patients.npz"
PAIR_FIGURES = (*tables.PAIRS, "ssim", "psnr")
_SEED = 2024
_LEAST_HEAD, _LEAST_BRAIN = 500, 2000  # pixels
HELD_OUT = "held-out simulated heads"
_LOOKUP_SAMPLES = 120


@dataclass(frozen=True)
class HeldOutSlice:
    """One held-out position: what the method is given, and the truth."""

    subject: str
    missing: bool
    conditioning: Conditioning
    truth: Image  #: T1 in [0, 1]
    head: Mask
    brain: Mask


def _case(
    sample: Sample, subject: str, recipe: Recipe, rng: SampleRng, level_sd_hu: float | None
) -> HeldOutSlice:
    clean = torch.from_numpy(centred(sample.hu, recipe).astype(np.float32))
    brain = torch.from_numpy(centred(sample.brain, recipe).astype(np.float32) / np.float32(255))
    hu = scan(clean, rng, level_sd_hu, brain).numpy()
    below_mm, above_mm = sample.distances_mm
    below, at, above = (
        SourceSlice(recipe.brain_window.apply(plane), recipe.wide_window.apply(plane), z)
        for plane, z in zip(hu, (-below_mm, 0.0, above_mm), strict=True)
    )
    known = centred(sample.known, recipe) > 127
    return HeldOutSlice(
        subject=subject,
        missing=sample.missing,
        conditioning=between(below, above, 0.0)
        if sample.missing
        else at_measured(at, below, above),
        truth=centred(sample.t1, recipe).astype(np.float32) / np.float32(255),
        head=(centred(sample.head, recipe) > 127) & known,
        brain=(centred(sample.brain, recipe) > 127) & known,
    )


def cases(
    pool: Pool, recipe: Recipe, every: int = 1, level_sd_hu: float | None = None
) -> Iterator[HeldOutSlice]:
    """Yield every `every`-th position of a pool, each scanned alike at every call.

    `level_sd_hu` as of `trainer.config.SampleDraws`.
    """
    for subject, record in enumerate(pool.records):
        for row in range(0, record.samples, every):
            rng = SampleRng(_SEED, 10_000 * subject + row)
            case = _case(pool.sample(subject, row), record.name, recipe, rng, level_sd_hu)
            if case.head.sum() >= _LEAST_HEAD:
                yield case


def fit_baseline(pool: Pool, recipe: Recipe, level_sd_hu: float | None = None) -> LookupTable:
    """Fit the lookup table on the training subjects."""
    total = sum(record.samples for record in pool.records)
    held_out = list(cases(pool, recipe, max(1, total // _LOOKUP_SAMPLES), level_sd_hu))
    return Tally.of(
        np.stack([case.conditioning.source for case in held_out]),
        np.stack([case.truth for case in held_out]),
        np.stack([case.head for case in held_out]).astype(np.float32),
    ).lookup()


def bridge_method(evaluate: Evaluate, recipe: Recipe, steps: tuple[float, ...]) -> Method:
    """Return the method that samples the bridge at these time steps."""
    noise = noise_field(recipe.grid.shape, _SEED)

    def method(conditioning: Conditioning) -> Image:
        result = sample_slice(evaluate, conditioning, steps, eta=recipe.eta, noise=noise)
        return np.asarray((result + 1) / 2, dtype=np.float32)

    return method


def score_held_out(
    held_out: list[HeldOutSlice], methods: dict[str, Method], progress: Callable[[], None]
) -> tuple[Score, ...]:
    """Score every method on every case; figures are means over subjects of means over slices."""
    scores = []
    for name, method in methods.items():
        figures: dict[tuple[bool, str], dict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for case in held_out:
            image = method(case.conditioning)
            kind = figures[case.missing, case.subject]
            kind["psnr"].append(psnr_db(image, case.truth, case.head))
            kind["ssim"].append(ssim(image * case.head, case.truth * case.head, case.head))
            if case.brain.sum() >= _LEAST_BRAIN:
                kind["brain_correlation"].append(correlation(image, case.truth, case.brain))
            progress()
        for missing, label in ((False, "measured"), (True, "missing")):
            scores.append(Score(test=f"{HELD_OUT}, {label}", method=name,
                                figures=_mean_over_subjects(figures, missing=missing)))  # fmt: skip
    return tuple(scores)


def _mean_over_subjects(
    figures: dict[tuple[bool, str], dict[str, list[float]]], *, missing: bool
) -> dict[str, float]:
    subjects = [values for (kind, _), values in figures.items() if kind == missing]
    names = dict.fromkeys(name for values in subjects for name in values)
    return {
        name: round(float(np.mean([np.mean(v[name]) for v in subjects if name in v])), 4)
        for name in names
    }


def score_pairs(
    archive: Path, networks: Mapping[str, Network], progress: Progress
) -> tuple[Score, ...]:
    """Score networks and baselines on an archive of real pairs, as `rebrain-train evaluate`."""
    data = open_any(archive)
    recipe = next(iter(networks.values())).recipe
    comparison = Comparison(
        data=data,
        sparsity=Sparsity("none"),
        mode="standard",
        recipe=recipe,
        bridges=[NetworkMethod(name, network, data, _SEED) for name, network in networks.items()],
    )
    names = data.split["test"]
    found = comparison.run(names, progress).methods(_SEED)
    return tuple(
        Score(
            test=f"real CT-T1 pairs, {len(names)} patients, zero-shot",
            method=method,
            figures={name: round(figures[name]["mean"], 4) for name in PAIR_FIGURES},
        )
        for method, figures in found.items()
    )
