"""The experiment of the paper's Table 2 at our scale: objectives at equal iterations.

One small network learns from the same samples under every objective and seed, and its running
mean is scored on held-out subjects while it learns: by image error of the whole few-step bridge
(one step for the regression), never by its loss.

    out/<data>/<objective>-<seed>/scores.csv   step, psnr, ssim
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rebrain_node.model.recipe import Objective, Recipe
from rebrain_node.model.similarity import psnr_db, ssim
from rebrain_node.model.source import Conditioning, conditioning_at
from rebrain_node.model.unet import Network, network_of
from trainer.config import Trial, TrialConfig
from trainer.data.dataset import PreparedData
from trainer.data.intensities import source_slices, truth_unit
from trainer.data.placing import placements
from trainer.data.protocols import Sparsity, thinned
from trainer.evaluate.networks import of_torch
from trainer.evaluate.release_scores import HeldOutSlice, cases, walking
from trainer.simulate.pool import Pool
from trainer.train.bridge import fresh_state, train
from trainer.train.prepared import PreparedSource
from trainer.train.sources import PoolSource, SampleCache, Source
from trainer.train.state import State
from trainer.train.workers import ALONE_ON_CPU

Advance = Callable[[int], None]

SCORES, CURVE = "scores.csv", "curve.csv"
_LEAST_HEAD = 300  # pixels of the grid


@dataclass(frozen=True)
class TrialData:
    """One kind of data: what every run learns from, and where all are scored."""

    name: str
    source: Source
    held_out: tuple[HeldOutSlice, ...]


@dataclass(frozen=True)
class TrialFolder:
    """One run among those of the experiment in the folder `out`."""

    out: Path
    objective: Objective
    seed: int

    def folder(self, data: str) -> Path:
        """Return where the run on `data` lives."""
        return self.out / data.replace(" ", "-") / f"{self.objective}-{self.seed}"


@dataclass(frozen=True)
class TrialResult:
    """One objective and seed on one kind of data; figures as long as `steps`."""

    data: str
    objective: Objective
    seed: int
    steps: tuple[int, ...]
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]


def simulated(pool: Path, recipe: Recipe, trial: Trial) -> TrialData:
    """Simulated CT to real T1: samples of a pool at half its resolution."""
    fine = recipe.grid.model_copy(
        update={
            "rows": 2 * recipe.grid.rows,
            "columns": 2 * recipe.grid.columns,
            "pixel_mm": recipe.grid.pixel_mm / 2,
        }
    )
    full = recipe.model_copy(update={"grid": fine})
    source = PoolSource.of(Pool.open(pool, "train"), full)
    drawn = (_coarse(case) for case in cases(Pool.open(pool, "validation"), full))
    return TrialData(
        "simulated CT to T1",
        SampleCache.of(source, trial.samples, shrink=2),
        _chosen([case for case in drawn if case.head.sum() >= _LEAST_HEAD], trial.cases),
    )


def _coarse(case: HeldOutSlice) -> HeldOutSlice:
    """Return a case at half its resolution (means of 2 x 2 pixels)."""

    def mean(image: np.ndarray) -> np.ndarray:
        rows, columns = image.shape[-2] // 2, image.shape[-1] // 2
        folded = image.astype(np.float32).reshape(*image.shape[:-2], rows, 2, columns, 2)
        return np.asarray(folded.mean((-3, -1)), dtype=np.float32)

    given = case.conditioning
    return HeldOutSlice(
        subject=case.subject,
        missing=case.missing,
        conditioning=Conditioning(mean(given.channels), given.distances_mm),
        truth=mean(case.truth),
        head=mean(case.head) > 0.5,
        brain=mean(case.brain) > 0.5,
    )


def between_sequences(data: Path, recipe: Recipe, trial: Trial) -> TrialData:
    """MR to MR (or any prepared data): the training subjects, scored under decimate:2."""
    prepared = PreparedData.open(data)
    held_out = [
        case
        for name in prepared.split["validation"]
        for case in _prepared_cases(prepared, name, recipe)
    ]
    source = PreparedSource.open(data, recipe)
    return TrialData(
        f"prepared {data.name}",
        SampleCache.of(source, trial.samples),
        _chosen(held_out, trial.cases),
    )


def _prepared_cases(prepared: PreparedData, name: str, recipe: Recipe) -> list[HeldOutSlice]:
    """Return every position of a subject under decimate:2, on the model grid."""
    case = thinned(prepared.subject(name), Sparsity("decimate", 2))
    placement = placements(case.head, case.subject.pixel_mm, recipe)[0]
    given = source_slices(case, prepared.source_kind, recipe, placement)
    truth = truth_unit(case.subject.target, case.subject.mask)
    drawn = []
    for row, position_mm, measured in zip(case.rows, case.targets_mm, case.measured, strict=True):
        head = placement.onto(case.subject.mask[row].astype(np.float32), 0.0) > 0.5
        if head.sum() >= _LEAST_HEAD:
            drawn.append(
                HeldOutSlice(
                    subject=name,
                    missing=not measured,
                    conditioning=conditioning_at(given, float(position_mm)),
                    truth=placement.onto(truth[row], 0.0),
                    head=head,
                    brain=head,
                )
            )
    return drawn


def _chosen(held_out: Sequence[HeldOutSlice], count: int) -> tuple[HeldOutSlice, ...]:
    """Return about `count` cases of each subject, evenly, half of them missing positions."""
    groups: dict[tuple[str, bool], list[HeldOutSlice]] = defaultdict(list)
    for case in held_out:
        groups[case.subject, case.missing].append(case)
    return tuple(
        group[int(place)]
        for group in groups.values()
        for place in np.unique(np.linspace(0, len(group) - 1, max(1, count // 2)).astype(int))
    )


def scored(
    state: State[Network], recipe: Recipe, held_out: Sequence[HeldOutSlice]
) -> tuple[float, float]:
    """Return PSNR (dB) and SSIM of the running mean: over slices, then over subjects."""
    network = network_of(recipe)
    network.load_state_dict(state.mean)
    draw = walking(of_torch(network), recipe, recipe.sampling)
    figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case in held_out:
        image = draw(case.conditioning)
        figures[case.subject].append(
            (psnr_db(image, case.truth, case.head), ssim(image, case.truth, case.head))
        )
    psnr, alike = np.mean([np.mean(of_subject, axis=0) for of_subject in figures.values()], axis=0)
    return float(psnr), float(alike)


def run_trial(
    config: TrialConfig, trial_data: TrialData, place: TrialFolder, advance: Advance
) -> TrialResult:
    """Train and score one run; a run that has its scores is read, not repeated.

    `advance` is called with the step now and then.
    """
    out = place.folder(trial_data.name)
    if not (out / SCORES).exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / CURVE).unlink(missing_ok=True)
        _train_and_score(config, trial_data, place, advance)
    with (out / SCORES).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return TrialResult(
        data=trial_data.name,
        objective=place.objective,
        seed=place.seed,
        steps=tuple(int(row["step"]) for row in rows),
        psnr=tuple(float(row["psnr"]) for row in rows),
        ssim=tuple(float(row["ssim"]) for row in rows),
    )


def _train_and_score(
    config: TrialConfig, trial_data: TrialData, place: TrialFolder, advance: Advance
) -> None:
    own, out = config.of(place.objective, place.seed), place.folder(trial_data.name)
    state = fresh_state(own, ALONE_ON_CPU.device)
    rows: list[tuple[int, float, float]] = []

    def report(step: int, _loss: float) -> None:
        advance(step)
        if step % config.trial.score_every == 0 or step == own.train.steps:
            rows.append((step, *scored(state, own.recipe, trial_data.held_out)))

    train(own, trial_data.source, state, out, report)
    part = out / f"{SCORES}.part"
    with part.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "psnr", "ssim"])
        writer.writerows((step, f"{psnr:.4f}", f"{alike:.5f}") for step, psnr, alike in rows)
    part.replace(out / SCORES)
