"""The experiment of the paper's Table 2 at our scale: objectives at equal iterations.

One small network learns from the same samples under every objective and seed, and its running
mean is scored on held-out subjects while it learns: by image error of the whole few-step bridge
(one step for the regression), never by its loss.

    out/<data>/<objective>-<seed>/scores.csv   step, psnr, ssim
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from rebrain_node.model.recipe import Grid, Objective, Recipe
from rebrain_node.model.similarity import psnr_db, ssim
from rebrain_node.model.source import Conditioning, conditioning_at
from rebrain_node.model.unet import Network, network_of
from trainer.config import Trial, TrialConfig
from trainer.data.dataset import PreparedData
from trainer.data.placing import placements, source_slices, truth_unit
from trainer.data.protocols import Sparsity, thinned
from trainer.evaluate.networks import of_torch
from trainer.evaluate.plots import Curve, learning
from trainer.evaluate.release_scores import HeldOutSlice, bridge_method, cases
from trainer.simulate.pool import Pool
from trainer.train.bridge import fresh_state, train
from trainer.train.loop import State
from trainer.train.prepared import PreparedSource
from trainer.train.samples import PoolSource, SampleCache, Source
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
    grid = recipe.grid
    fine = Grid(rows=2 * grid.rows, columns=2 * grid.columns, pixel_mm=grid.pixel_mm / 2)
    full = recipe.model_copy(update={"grid": fine})
    source = PoolSource.of(Pool.open(pool, "train"), full)
    coarse = (_coarse(case) for case in cases(Pool.open(pool, "validation"), full))
    return TrialData(
        "simulated CT to T1",
        SampleCache.of(source, trial.samples, shrink=2),
        _chosen([case for case in coarse if case.head.sum() >= _LEAST_HEAD], trial.cases),
    )


def _coarse(case: HeldOutSlice) -> HeldOutSlice:
    """Return a case at half its resolution (means of 2 x 2 pixels)."""

    def mean(image: np.ndarray) -> np.ndarray:
        rows, columns = image.shape[-2] // 2, image.shape[-1] // 2
        folded = image.astype(np.float32).reshape(*image.shape[:-2], rows, 2, columns, 2)
        return np.asarray(folded.mean((-3, -1)), dtype=np.float32)

    given = case.conditioning
    return replace(
        case,
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
    found = []
    for row, position_mm, measured in zip(case.rows, case.targets_mm, case.measured, strict=True):
        head = placement.onto(case.subject.mask[row].astype(np.float32), 0.0) > 0.5
        if head.sum() >= _LEAST_HEAD:
            found.append(
                HeldOutSlice(
                    subject=name,
                    missing=not measured,
                    conditioning=conditioning_at(given, float(position_mm)),
                    truth=placement.onto(truth[row], 0.0),
                    head=head,
                    brain=head,
                )
            )
    return found


def _chosen(held_out: Sequence[HeldOutSlice], count: int) -> tuple[HeldOutSlice, ...]:
    """Return about `count` cases of each subject, evenly, half of them missing positions."""
    groups: dict[tuple[str, bool], list[HeldOutSlice]] = defaultdict(list)
    for case in held_out:
        groups[case.subject, case.missing].append(case)
    return tuple(
        group[int(index)]
        for group in groups.values()
        for index in np.unique(np.linspace(0, len(group) - 1, max(1, count // 2)).astype(int))
    )


def scored(
    state: State[Network], recipe: Recipe, held_out: Sequence[HeldOutSlice]
) -> tuple[float, float]:
    """Return PSNR (dB) and SSIM of the running mean: over slices, then over subjects."""
    network = network_of(recipe)
    network.load_state_dict(state.mean)
    method = bridge_method(of_torch(network), recipe, recipe.sampling)
    figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case in held_out:
        image = method(case.conditioning)
        figures[case.subject].append(
            (psnr_db(image, case.truth, case.head), ssim(image, case.truth, case.head))
        )
    psnr, alike = np.mean([np.mean(of_subject, axis=0) for of_subject in figures.values()], axis=0)
    return float(psnr), float(alike)


def run_trial(
    config: TrialConfig, trial_data: TrialData, run: TrialFolder, advance: Advance
) -> TrialResult:
    """Train and score one run; a run that has its scores is read, not repeated.

    `advance` is called with the step now and then.
    """
    out = run.folder(trial_data.name)
    if not (out / SCORES).exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / CURVE).unlink(missing_ok=True)
        _train_and_score(config, trial_data, run, advance)
    with (out / SCORES).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return TrialResult(
        data=trial_data.name,
        objective=run.objective,
        seed=run.seed,
        steps=tuple(int(row["step"]) for row in rows),
        psnr=tuple(float(row["psnr"]) for row in rows),
        ssim=tuple(float(row["ssim"]) for row in rows),
    )


def _train_and_score(
    config: TrialConfig, trial_data: TrialData, run: TrialFolder, advance: Advance
) -> None:
    own, out = config.of(run.objective, run.seed), run.folder(trial_data.name)
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


FIGURES = ("psnr", "ssim")
BASELINE, CLAIMED = "raw", "directional"
_UNITS = {"psnr": "PSNR, dB", "ssim": "SSIM"}


class ObjectiveDifference(TypedDict):
    """One objective against raw on one kind of data, one figure.

    `at_the_end` and `along_the_way` (mean over all scorings) hold one difference for each seed;
    `noise` is the range of raw over its seeds at the end.
    """

    data: str
    objective: str
    figure: str
    at_the_end: list[float]
    along_the_way: list[float]
    noise: float
    verdict: str


def verdict(differences: Sequence[float], noise: float) -> str:
    """Return "better" or "worse" if every seed agrees and the mean exceeds the noise of seeds."""
    mean = float(np.mean(differences))
    if abs(mean) <= noise or min(differences) * max(differences) <= 0:
        return "no difference beyond the seeds"
    return "better" if mean > 0 else "worse"


def comparisons(runs: Sequence[TrialResult]) -> list[ObjectiveDifference]:
    """Compare every objective with raw, seed by seed."""
    found: list[ObjectiveDifference] = []
    for data in dict.fromkeys(run.data for run in runs):
        here = [run for run in runs if run.data == data]
        baseline = {run.seed: run for run in here if run.objective == BASELINE}
        for objective in dict.fromkeys(run.objective for run in here):
            if objective == BASELINE:
                continue
            for figure in FIGURES:
                others = [run for run in here if run.objective == objective]
                pairs = [(run, baseline[run.seed]) for run in others]
                ends = [getattr(run, figure)[-1] for run in baseline.values()]
                at_the_end = [_of(a, figure)[-1] - _of(b, figure)[-1] for a, b in pairs]
                noise = max(ends) - min(ends)
                found.append(
                    {
                        "data": data,
                        "objective": objective,
                        "figure": figure,
                        "at_the_end": [round(d, 4) for d in at_the_end],
                        "along_the_way": [
                            round(float(np.mean(_of(a, figure)) - np.mean(_of(b, figure))), 4)
                            for a, b in pairs
                        ],
                        "noise": round(noise, 4),
                        "verdict": verdict(at_the_end, noise),
                    }
                )
    return found


def _of(run: TrialResult, figure: str) -> tuple[float, ...]:
    values: tuple[float, ...] = getattr(run, figure)
    return values


def write_results(config: TrialConfig, runs: Sequence[TrialResult], out: Path) -> None:
    """Write `curves.csv`, `objectives.json`, `objectives.md` and one figure for each data set."""
    with (out / "curves.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["data", "objective", "seed", "step", *FIGURES])
        for run in runs:
            for step, *values in zip(run.steps, run.psnr, run.ssim, strict=True):
                writer.writerow([run.data, run.objective, run.seed, step, *values])
    found = comparisons(runs)
    document = {
        "trial": config.trial.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"objective", "seed"}),
        "widths": config.recipe.widths,
        "sampling": config.recipe.sampling,
        "runs": [
            {"data": r.data, "objective": r.objective, "seed": r.seed}
            | {"step": r.steps[-1], "psnr": r.psnr[-1], "ssim": r.ssim[-1]}
            for r in runs
        ],
        "against_raw": found,
    }
    (out / "objectives.json").write_text(json.dumps(document, indent=1) + "\n")
    pictures = {}
    for number, data in enumerate(dict.fromkeys(run.data for run in runs), 1):
        pictures[data] = f"objectives-{number}.png"
        (plot,) = learning(mean_curves([run for run in runs if run.data == data]))
        (out / pictures[data]).write_bytes(plot.png)
    (out / "objectives.md").write_text(page(config, runs, found, pictures))


def mean_curves(runs: Sequence[TrialResult]) -> dict[str, Curve]:
    """Return one curve for each objective: the mean over its seeds."""
    curves: dict[str, Curve] = {}
    for objective in dict.fromkeys(run.objective for run in runs):
        own = [run for run in runs if run.objective == objective]
        figures = {f: tuple(np.mean([_of(r, f) for r in own], axis=0).tolist()) for f in FIGURES}
        curves[objective] = Curve(own[0].steps, figures)
    return curves


def page(
    config: TrialConfig,
    runs: Sequence[TrialResult],
    found: Sequence[ObjectiveDifference],
    pictures: dict[str, str],
) -> str:
    """Return the Markdown page."""
    train, trial, recipe = config.train, config.trial, config.recipe
    network, steps = (", ".join(map(str, values)) for values in (recipe.widths, recipe.sampling))
    how = (
        "The paper's Table 2 claims that the directional objective (eq. 6) makes the bridge "
        f"better. Here every objective trains the same network (widths {network}) for "
        f"{train.steps} steps of {train.batch} on the same {trial.samples} samples, with seeds "
        f"{' and '.join(map(str, trial.seeds))}, without any further term in the loss. The "
        "figures are errors of images of held-out subjects, synthesised by the running mean of "
        f"the weights at the time steps {steps} (the regression in one step): inside the head, "
        "averaged over slices, then over subjects; SSIM is computed within slices. Losses are not "
        "shown: those of different objectives are not comparable."
    )
    parts = [f"# Raw against directional\n\n{how}", f"## Results\n\n{conclusion(found)}"]
    for data, picture in pictures.items():
        here = [run for run in runs if run.data == data]
        against = [c for c in found if c["data"] == data]
        parts.append(
            f"## {data[0].upper()}{data[1:]}\n\n{_ends(here)}\n\n{_differences(against)}\n\n"
            f"![Image error against iterations, {data}; mean over seeds]({picture})"
        )
    parts.append(
        "## Repeat it\n\n"
        "    rebrain-train compare-objectives --config conf/train/objectives.toml --pool POOL "
        "--prepared DATA --out OUT\n\n"
        "`curves.csv` holds every scoring and `objectives.json` the comparisons. This is a small "
        "network and a short training: it shows how the objectives compare here, not at the "
        "scale of the paper."
    )
    return "\n\n".join(parts) + "\n"


def conclusion(found: Sequence[ObjectiveDifference]) -> str:
    """Return a paragraph on whether the claimed advantage appears."""
    claims = [c for c in found if c["objective"] == CLAIMED]
    better = [c for c in claims if c["verdict"] == "better"]
    some = "appears in part" if better else "does not appear"
    lead = "appears" if len(better) == len(claims) else some
    differences = "; ".join(
        f"{c['data']}, {_UNITS[c['figure']]}: {c['verdict']} "
        f"({', '.join(f'{d:+.3f}' for d in c['at_the_end'])} by seed, "
        f"raw differs by {c['noise']:.3f} between seeds)"
        for c in claims
    )
    return (
        f"The advantage of the directional objective {lead}. Directional against raw at the last "
        f"step: {differences}."
    )


def _ends(runs: Sequence[TrialResult]) -> str:
    lines = ["| objective | seed | step | PSNR, dB | SSIM |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.objective} | {r.seed} | {r.steps[-1]} | {r.psnr[-1]:.2f} | {r.ssim[-1]:.4f} |"
        for r in runs
    ]
    return "\n".join(lines)


def _differences(found: Sequence[ObjectiveDifference]) -> str:
    lines = [
        "| against raw | figure | at the end, by seed | mean over the curve, by seed | verdict |",
        "|---|---|---|---|---|",
    ]
    for c in found:
        end, way = (
            ", ".join(f"{d:+.3f}" for d in values)
            for values in (c["at_the_end"], c["along_the_way"])
        )
        lines.append(
            f"| {c['objective']} | {_UNITS[c['figure']]} | {end} | {way} | {c['verdict']} |"
        )
    return "\n".join(lines)
