"""The stages of `rebrain-train` as plain functions of files: what each reads and what it writes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.card import Score
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.sampling import uniform_time_steps
from trainer.config import Simulation, TrainConfig
from trainer.evaluate.networks import open_network
from trainer.evaluate.release_scores import (
    PAIRS,
    Method,
    bridge_method,
    cases,
    fit_baseline,
    score_held_out,
    score_pairs,
)
from trainer.evaluate.run import Progress
from trainer.heads import Head, catalogue
from trainer.release.bundle import finished_run, release
from trainer.release.card import (
    LAST_STEP,
    TrainingSamples,
    data_uses,
    make_card,
    training_facts,
)
from trainer.simulate.anatomy import HeadError, map_anatomy
from trainer.simulate.hounsfield import sharpened, tissues
from trainer.simulate.pool import Pool, PoolIndex, PoolRecord, draw_samples, write_subject
from trainer.simulate.template import load_template
from trainer.train.prepared import PreparedSource
from trainer.train.samples import PoolSource, Source

# Tried at every release; the recipe ships the one that scores best on the held-out heads.
WALKS = (uniform_time_steps(1), uniform_time_steps(2), (1.0, 0.6, 0.3), uniform_time_steps(4))


def map_head(head: Head, data: Path, folder: Path) -> tuple[str, str | None]:
    """Write the maps of one head to `folder`; return its name and, if refused, the reason."""
    try:
        maps = map_anatomy(head, load_template(data / "templates"))
    except HeadError as refusal:
        return head.name, f"refused: {refusal}"
    part = folder / f"{head.name}.part.npz"
    np.savez_compressed(part, **maps)  # type: ignore[arg-type]
    part.replace(folder / f"{head.name}.npz")
    return head.name, None


def simulate_head(head: Head, maps: Path, pool: Path, simulation: Simulation) -> PoolRecord:
    """Draw the samples of one head, unless the pool has them; return its record.

    Raises
    ------
    FileNotFoundError
        The head has no maps: run `rebrain-train head` first.
    """
    torch.set_num_threads(1)
    finished = pool / head.name / "record.json"
    if finished.exists():
        return PoolRecord.model_validate_json(finished.read_bytes())
    count = simulation.samples(head)
    with np.load(maps / f"{head.name}.npz") as arrays:
        anatomy = sharpened(tissues(dict(arrays)), 1.0 if head.sharp else 2.0)
    samples = draw_samples(anatomy, head.name, count, simulation.seed, simulation.gap_mm)
    record = PoolRecord(
        name=head.name,
        role=head.role,
        sharp=head.sharp,
        whole_head_truth=head.whole_head_truth,
        samples=count,
        sha256=write_subject(pool / head.name, samples, count),
    )
    finished.write_text(record.model_dump_json(indent=1) + "\n")
    return record


def source_of(recipe: Recipe, pool: Path | None, data: Path | None) -> Source:
    """Open what a run learns from: the training heads of a pool, or of a prepared data set.

    Raises
    ------
    ValueError
        Neither is given.
    """
    if pool is not None:
        return PoolSource.of(Pool.open(pool, "train"), recipe)
    if data is not None:
        return PreparedSource.open(data, recipe)
    raise ValueError("neither a pool nor a prepared data set")


def walk_name(places: tuple[float, ...]) -> str:
    """Name a walk in tables."""
    return "bridge, places " + " ".join(str(place) for place in places)


@dataclass(frozen=True)
class Folders:
    """Where a run's pool, its checkpoint and scores, and the shared data lie."""

    pool: Path
    run: Path
    data: Path


def score_run(
    config: TrainConfig, folders: Folders, every: int, progress: Progress
) -> tuple[Score, ...]:
    """Score a checkpoint on every `every`-th held-out sample and on the real pairs."""
    recipe = config.recipe
    trained = open_network(str(folders.run))
    lookup = fit_baseline(Pool.open(folders.pool, "train"), recipe)
    methods: dict[str, Method] = {"lookup table": lambda given: lookup.of(given.source)}
    methods |= {
        walk_name(places): bridge_method(trained.evaluate, recipe, places) for places in WALKS
    }
    held_out = list(cases(Pool.open(folders.pool, "validation"), recipe, every))
    progress.started(len(methods) * len(held_out))
    scores = score_held_out(held_out, methods, progress.advance)
    networks = {
        walk_name(places): replace(trained, recipe=recipe.model_copy(update={"sampling": places}))
        for places in WALKS[:2]
    }
    return (*scores, *score_pairs(folders.data / PAIRS, networks, progress))


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
    """Turn a finished run that was scored on simulated heads into a bundle at `out`.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ValueError
        The run has not reached the last step, or the recipe's walk is not the best one.
    """
    weights, run = finished_run(config, folders.run, out)
    listed = json.loads((folders.run / "scores.json").read_bytes())
    scores = tuple(Score.model_validate(entry) for entry in listed)
    index = PoolIndex.model_validate_json((folders.pool / "index.json").read_bytes())
    facts = training_facts(
        config,
        TrainingSamples(index.digest, sum(r.samples for r in index.subjects if r.role == "train")),
        run,
    )
    choices = (
        _chosen_walk(scores, config.recipe.sampling),
        LAST_STEP,
    )
    card = make_card(version, data_uses(catalogue(folders.data)), facts, scores, choices)
    return release(weights, config.recipe, card, out)
