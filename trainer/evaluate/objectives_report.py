"""The result of the experiment on objectives as JSON, curves and a Markdown page."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from trainer.config import TrialConfig
from trainer.evaluate.objectives import TrialResult
from trainer.evaluate.plots import Curve, learning

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
    """Say "better" or "worse" if every seed agrees and the mean exceeds the noise of seeds."""
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
    network, places = (", ".join(map(str, values)) for values in (recipe.widths, recipe.sampling))
    how = (
        "The paper's Table 2 claims that the directional objective (eq. 6) makes the bridge "
        f"better. Here every objective trains the same network (widths {network}) for "
        f"{train.steps} steps of {train.batch} on the same {trial.samples} samples, with seeds "
        f"{' and '.join(map(str, trial.seeds))}, without a term beside the objective. The "
        "figures are errors of images of held-out subjects, drawn by the running mean of the "
        f"weights over the places {places} (the regression in one step): inside the head, over "
        "slices, then over subjects; SSIM is taken within slices. Losses are not shown: those of "
        "different objectives do not compare."
    )
    parts = [f"# Raw against directional\n\n{how}", f"## What was found\n\n{conclusion(found)}"]
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
        "network and a short training: it tells how the objectives compare here, not what the "
        "paper's scale would show."
    )
    return "\n\n".join(parts) + "\n"


def conclusion(found: Sequence[ObjectiveDifference]) -> str:
    """Say in one paragraph whether the claimed advantage appears."""
    claims = [c for c in found if c["objective"] == CLAIMED]
    better = [c for c in claims if c["verdict"] == "better"]
    if len(better) == len(claims):
        lead = "The advantage of the directional objective appears"
    elif better:
        lead = "The advantage of the directional objective appears in part"
    else:
        lead = "The advantage of the directional objective does not appear"
    differences = "; ".join(
        f"{c['data']}, {_UNITS[c['figure']]}: {c['verdict']} "
        f"({', '.join(f'{d:+.3f}' for d in c['at_the_end'])} by seed, "
        f"raw differs by {c['noise']:.3f} between seeds)"
        for c in claims
    )
    return f"{lead}. Directional against raw at the last step: {differences}."


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
