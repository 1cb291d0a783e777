"""Commands on simulated data as functions of files: tissue maps, pool, scores, bundle."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.card import Score
from rebrain_node.model.sampling import uniform_time_steps
from trainer.config import Simulation, TrainConfig
from trainer.data.dataset import digest_of
from trainer.evaluate.networks import open_network
from trainer.evaluate.release_scores import (
    HELD_OUT,
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
from trainer.release.card import LAST_STEP, data_uses, make_card, training_facts
from trainer.release.requirements import ReleaseError, check_better, check_weights
from trainer.simulate.anatomy import HeadError, map_anatomy
from trainer.simulate.labels import map_labels, read_maps
from trainer.simulate.pool import Pool, PoolIndex, PoolRecord, draw_samples, write_subject
from trainer.simulate.template import load_template
from trainer.train.loop import CHECKPOINT
from trainer.train.prepared import PreparedSource
from trainer.train.samples import PoolSource, Source

#: time steps compared before each release; the recipe must have those with the best score
SAMPLINGS = (uniform_time_steps(1), uniform_time_steps(2), (1.0, 0.6, 0.3), uniform_time_steps(4))


SCORES = "scores.json"


def map_head(head: Head, data: Path, folder: Path) -> tuple[str, str | None]:
    """Write the tissue maps of a head to `folder`; return its name and, if refused, the reason."""
    try:
        template = load_template(data / "templates")
        labels = head.kind == "labels"
        maps = map_labels(head.t1, template) if labels else map_anatomy(head, template)
    except HeadError as refusal:
        return head.name, f"refused: {refusal}"
    part = folder / f"{head.name}.part.npz"
    np.savez_compressed(part, **maps)  # type: ignore[arg-type]
    part.replace(folder / f"{head.name}.npz")
    return head.name, None


def simulate_head(head: Head, maps: Path, pool: Path, simulation: Simulation) -> PoolRecord:
    """Simulate the samples of a head unless the pool has them; return the record of the pool.

    Raises
    ------
    FileNotFoundError
        The head has no maps: run `rebrain-train tissue-maps` first.
    """
    torch.set_num_threads(1)
    finished = pool / head.name / "record.json"
    if finished.exists():
        return PoolRecord.model_validate_json(finished.read_bytes())
    count = simulation.samples(head)
    anatomy = read_maps(maps / f"{head.name}.npz", 1.0 if head.sharp else 2.0)
    samples = draw_samples(
        anatomy, head.name, count, simulation.seed, simulation.gap_mm, simulation.tissue_level_hu
    )
    record = PoolRecord(
        name=head.name,
        role=head.role,
        sharp=head.sharp,
        whole_head_truth=head.whole_head_truth,
        kind=head.kind,
        samples=count,
        sha256=write_subject(pool / head.name, samples, count),
    )
    finished.write_text(record.model_dump_json(indent=1) + "\n")
    return record


def source_of(config: TrainConfig, pool: Path | None, data: Path | None) -> Source:
    """Open the training subjects of a pool or of a prepared data set.

    Raises
    ------
    ValueError
        Neither is given.
    """
    if pool is not None:
        return PoolSource.of(Pool.open(pool, "train"), config.recipe, config.samples)
    if data is not None:
        return PreparedSource.open(data, config.recipe)
    raise ValueError("neither a pool nor a prepared data set")


def sampling_name(time_steps: tuple[float, ...]) -> str:
    """Return the name of a choice of time steps in tables."""
    return "bridge, time steps " + " ".join(str(step) for step in time_steps)


@dataclass(frozen=True)
class Folders:
    """Folders of the pool, of the training run, and of the shared data."""

    pool: Path
    run: Path
    data: Path


def score_run(
    config: TrainConfig, folders: Folders, every: int, progress: Progress
) -> tuple[Score, ...]:
    """Score a checkpoint on every `every`-th held-out sample and on the real pairs."""
    recipe = config.recipe
    trained = open_network(str(folders.run))
    level_sd_hu = config.samples.level_sd_hu
    lookup = fit_baseline(Pool.open(folders.pool, "train"), recipe, level_sd_hu)
    methods: dict[str, Method] = {"lookup table": lambda given: lookup.of(given.source)}
    methods |= {
        sampling_name(each): bridge_method(trained.evaluate, recipe, each) for each in SAMPLINGS
    }
    held_out = list(cases(Pool.open(folders.pool, "validation"), recipe, every, level_sd_hu))
    progress.started(len(methods) * len(held_out))
    scores = score_held_out(held_out, methods, progress.advance)
    networks = {
        sampling_name(each): replace(trained, recipe=recipe.model_copy(update={"sampling": each}))
        for each in SAMPLINGS[:2]
    }
    return (*scores, *score_pairs(folders.data / PAIRS, networks, progress))


def _choice_of_sampling(scores: tuple[Score, ...], sampling: tuple[float, ...]) -> str:
    """Return the sentence of the card that compares the time steps of the recipe with others.

    Raises
    ------
    ReleaseError
        Other time steps have a better SSIM on the held-out heads.
    """
    ssim: dict[str, float] = {}
    for score in scores:
        if score.test.startswith(HELD_OUT) and score.method.startswith("bridge"):
            name = score.method.replace("places", "time steps")  # as earlier releases wrote it
            ssim[name] = ssim.get(name, 0.0) + score.figures["ssim"] / 2
    best = max(ssim, key=lambda name: ssim[name])
    if best != sampling_name(sampling):
        raise ReleaseError(
            f"{best} has SSIM {ssim[best]:.3f} on the held-out heads, more than the recipe's "
            f"{sampling_name(sampling)}; change recipe.sampling"
        )
    listed = ", ".join(
        f"{name.removeprefix('bridge, ')}: {value:.3f}" for name, value in ssim.items()
    )
    return (
        f"The recipe samples at the time steps {list(sampling)}, which have the best mean SSIM on "
        f"the held-out simulated heads ({listed}). The scores of these heads are therefore "
        "slightly optimistic."
    )


def write_scores(run: Path, scores: tuple[Score, ...]) -> None:
    """Write RUN/scores.json: the scores, and the SHA-256 of the checkpoint that they are of."""
    document = {
        "checkpoint": digest_of(run / CHECKPOINT),
        "scores": [entry.model_dump() for entry in scores],
    }
    (run / SCORES).write_text(json.dumps(document, indent=1) + "\n")


def _scores_of(run: Path) -> tuple[Score, ...]:
    """Read the scores of a run.

    Raises
    ------
    ReleaseError
        It has none, or they are of another checkpoint.
    """
    command = f"`rebrain-train score --run {run}`"
    try:
        document = json.loads((run / SCORES).read_bytes())
    except FileNotFoundError:
        raise ReleaseError(f"{run} has no {SCORES}: {command} scores it") from None
    known = isinstance(document, dict)  # earlier scores were a list, without the checkpoint
    check_weights(document["checkpoint"] if known else None, run, command)
    return tuple(Score.model_validate(entry) for entry in document["scores"])


def release_run(
    config: TrainConfig, folders: Folders, out: Path, version: str, override: str | None = None
) -> ModelBundle:
    """Release a finished and scored run as a bundle at `out`.

    Parameters
    ----------
    override : str, optional
        Why it is released although it is no better than the lookup table.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ReleaseError
        The run has not reached the last step, its scores are of other weights, other time steps
        score better, or it is no better than the lookup table.
    """
    weights, run = finished_run(config, folders.run, out)
    scores = _scores_of(folders.run)
    sampling = config.recipe.sampling
    excuse = check_better(
        [score for score in scores if score.test.startswith(HELD_OUT)],
        sampling_name(sampling),
        override,
    )
    index = PoolIndex.model_validate_json((folders.pool / "index.json").read_bytes())
    samples = sum(record.samples for record in index.subjects if record.role == "train")
    facts = training_facts(config, run, index.digest, samples)
    choices = (_choice_of_sampling(scores, sampling), LAST_STEP, *excuse)
    card = make_card(version, data_uses(catalogue(folders.data)), facts, scores, choices)
    return release(weights, config.recipe, card, out)
