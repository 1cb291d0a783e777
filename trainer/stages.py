"""The stages of `rebrain-train` as plain functions of files: what each reads and what it writes."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.card import Score
from rebrain_node.model.unet import BridgeUNet
from rebrain_node.model.walk import uniform_places
from trainer.anatomy import HeadRefused, map_anatomy
from trainer.cards import Run, data_uses, make_card, training_facts
from trainer.config import Simulation, TrainConfig
from trainer.heads import Head, catalogue
from trainer.hounsfield import sharpened, tissues
from trainer.pairs import load_patients, score_pairs
from trainer.pool import Pool, PoolIndex, SubjectRecord, draw_samples, write_subject
from trainer.release import release
from trainer.score import Method, cases, evaluation, fit_baseline, score_held_out, walking
from trainer.template import load_template
from trainer.train_bridge import read_checkpoint

# Tried at every release; the recipe ships the one that scores best on the held-out heads.
WALKS = (uniform_places(1), uniform_places(2), (1.0, 0.6, 0.3), uniform_places(4))


def map_head(head: Head, data: Path, folder: Path) -> tuple[str, str | None]:
    """Write the maps of one head to `folder`; return its name and, if refused, the reason."""
    try:
        maps = map_anatomy(head, load_template(data / "templates"))
    except HeadRefused as refusal:
        return head.name, f"refused: {refusal}"
    part = folder / f"{head.name}.part.npz"
    np.savez_compressed(part, **maps)  # type: ignore[arg-type]
    part.replace(folder / f"{head.name}.npz")
    return head.name, None


def simulate_head(head: Head, maps: Path, pool: Path, simulation: Simulation) -> SubjectRecord:
    """Draw the samples of one head, unless the pool has them; return its record.

    Raises
    ------
    FileNotFoundError
        The head has no maps: run `rebrain-train head` first.
    """
    torch.set_num_threads(1)
    finished = pool / head.name / "record.json"
    if finished.exists():
        return SubjectRecord.model_validate_json(finished.read_bytes())
    count = simulation.samples(head)
    with np.load(maps / f"{head.name}.npz") as arrays:
        anatomy = sharpened(tissues(dict(arrays)), 1.0 if head.sharp else 2.0)
    samples = draw_samples(anatomy, head.name, count, simulation.seed)
    record = SubjectRecord(
        name=head.name,
        role=head.role,
        sharp=head.sharp,
        whole_head_truth=head.whole_head_truth,
        samples=count,
        sha256=write_subject(pool / head.name, samples, count),
    )
    finished.write_text(record.model_dump_json(indent=1) + "\n")
    return record


def trained_network(config: TrainConfig, run: Path) -> BridgeUNet:
    """Return the running mean of the weights of a run, ready for evaluation."""
    content = read_checkpoint(run / "checkpoint.pt", config.training_digest)
    network = BridgeUNet()
    network.load_state_dict(content["mean"])
    return network.eval()


def walk_name(places: tuple[float, ...]) -> str:
    """Name a walk in tables."""
    return "bridge, places " + " ".join(str(place) for place in places)


@dataclass(frozen=True)
class Folders:
    """Where a run's pool, its checkpoint and scores, and the shared data lie."""

    pool: Path
    run: Path
    data: Path


@dataclass(frozen=True)
class Progress:
    """Called with the number of predictions before the first, and after each."""

    started: Callable[[int], None]
    advance: Callable[[], None]


def score_run(
    config: TrainConfig, folders: Folders, every: int, progress: Progress
) -> tuple[Score, ...]:
    """Score a checkpoint on every `every`-th held-out sample and on the real pairs."""
    recipe = config.recipe
    evaluate = evaluation(trained_network(config, folders.run))
    lookup = fit_baseline(Pool.open(folders.pool, "train"), recipe)
    methods: dict[str, Method] = {"lookup table": lambda given: lookup.of(given.source)}
    methods |= {walk_name(places): walking(evaluate, recipe, places) for places in WALKS}
    constant: dict[str, Method] = {"constant": lambda y: np.full_like(y.source, lookup.mean)}
    held_out = list(cases(Pool.open(folders.pool, "validation"), recipe, every))
    patients = load_patients(folders.data)
    external = constant | dict(list(methods.items())[:3])
    slices = sum(len(patient.ct) for patient in patients)
    progress.started(len(methods) * len(held_out) + len(external) * slices)
    return (
        *score_held_out(held_out, methods, progress.advance),
        *score_pairs(patients, external, recipe, progress.advance),
    )


def _chosen_walk(scores: tuple[Score, ...], sampling: tuple[float, ...]) -> str:
    """Say how the shipped walk did against the others.

    Raises
    ------
    ValueError
        Another walk has a better SSIM on the held-out heads than the recipe's.
    """
    ssim: dict[str, float] = {}
    for score in scores:
        if score.test.startswith("held-out") and score.method.startswith("bridge"):
            ssim[score.method] = ssim.get(score.method, 0.0) + score.figures["ssim"] / 2
    best = max(ssim, key=lambda name: ssim[name])
    if best != walk_name(sampling):
        raise ValueError(f"{best} scores better than the recipe's {walk_name(sampling)}")
    listed = ", ".join(
        f"{name.removeprefix('bridge, ')}: {value:.3f}" for name, value in ssim.items()
    )
    return (
        f"The recipe walks the places {list(sampling)}, the best mean SSIM on the held-out "
        f"simulated heads ({listed}). The scores of these heads are therefore a little kind."
    )


def release_run(config: TrainConfig, folders: Folders, out: Path, version: str) -> ModelBundle:
    """Turn a finished and scored run into a bundle at `out`.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ValueError
        The run has not reached the last step, or the recipe's walk is not the best one.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; a released bundle is never overwritten")
    content = read_checkpoint(folders.run / "checkpoint.pt", config.training_digest)
    if content["step"] != config.train.steps:
        raise ValueError(
            f"{folders.run} is at step {content['step']} of {config.train.steps}: train on"
        )
    listed = json.loads((folders.run / "scores.json").read_bytes())
    scores = tuple(Score.model_validate(entry) for entry in listed)
    facts = training_facts(
        config,
        PoolIndex.model_validate_json((folders.pool / "index.json").read_bytes()),
        Run(
            steps=content["step"],
            seconds=content["seconds"],
            parameters=sum(p.numel() for p in BridgeUNet().parameters()),
            hardware=f"CPU ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores",
        ),
    )
    choices = (
        _chosen_walk(scores, config.recipe.sampling),
        (
            "The running mean of the weights at the last step is released; no step was selected. "
            "Weights are rounded to half precision after scoring."
        ),
    )
    card = make_card(version, data_uses(catalogue(folders.data)), facts, scores, choices)
    return release(content["mean"], config.recipe, card, out)
