"""Training of the networks: bridge, encoder, control branch; comparison of objectives."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainer.cli import options

if TYPE_CHECKING:
    from rebrain_node.model.recipe import Recipe
    from trainer.heads import Head
    from trainer.train.loop import State


def train_bridge(
    config: options.Config,
    run: options.Run,
    pool: Annotated[Path | None, typer.Option(help="Simulated samples (`simulate`).")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data set (`prepare`).")] = None,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Default: a GPU if there is one.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Pretrained weights (.safetensors); default: random.")
    ] = None,
) -> None:
    """Train the bridge network, which synthesises slices.

    Training data are given by --pool or by --data. An interrupted run is resumed from its last
    checkpoint. Under torchrun each process computes a part of each batch; all processes must have
    access to RUN.
    """
    from trainer.config import TrainConfig
    from trainer.stages import source_of
    from trainer.train.bridge import fresh_state, note_start, train
    from trainer.train.workers import joined

    if (pool is None) == (data is None):
        raise typer.BadParameter("give either --pool or --data")
    settings = TrainConfig.load(config)
    run.mkdir(parents=True, exist_ok=True)
    with joined(device) as workers:
        state = fresh_state(settings, workers.device, start)
        _resume(state, run)
        note_start(run, start)
        with _loss_bar(settings.train.steps, state.step, visible=workers.writes) as report:
            source = source_of(settings, pool, data)
            train(settings, source, state, run, report, workers)


def train_encoder(
    config: options.Config,
    maps: options.Maps,
    run: options.Run,
    data: options.Data = None,
    processes: options.Processes = 2,
    start: Annotated[
        Path | None, typer.Option(help="Pretrained weights (.safetensors); default: random.")
    ] = None,
) -> None:
    """Train the slice encoder for retrieval.

    Simulates the stacks of slices in RUN/stacks first, if they are not there. An interrupted run
    is resumed from its last checkpoint. Writes RUN/encoder.onnx and RUN/encoder.safetensors.
    """
    import os

    import torch
    from safetensors.torch import save_file

    from trainer.config import TrainConfig
    from trainer.release.export import export_encoder, halves_of
    from trainer.simulate.stacks import Stacks
    from trainer.train import encoder

    settings = TrainConfig.load(config)
    training = options.section_of(config, "encoder", settings.encoder)
    if not (run / "stacks" / "index.json").exists():
        heads = [h for h in options.heads_of(data) if (maps / f"{h.name}.npz").exists()]
        _write_stacks(settings.recipe, training.seed, heads, maps, run / "stacks", processes)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    stacks = Stacks.open(run / "stacks", "train")
    state = encoder.fresh_state(training, stacks, start)
    _resume(state, run)
    with _loss_bar(training.steps, state.step) as report:
        encoder.train(training, stacks, state, run, report)
    weights = encoder.trained(run).state_dict()
    (run / "encoder.onnx").write_bytes(export_encoder(weights))
    save_file(halves_of(weights), run / "encoder.safetensors")
    typer.echo(f"{run / 'encoder.onnx'}")


def _write_stacks(
    recipe: "Recipe", seed: int, heads: "list[Head]", maps: Path, folder: Path, processes: int
) -> None:
    """Simulate the stacks of every subject; print those whose registration failed."""
    from trainer.simulate.pool import write_index
    from trainer.simulate.stacks import StackIndex, stack_head

    folder.mkdir(parents=True, exist_ok=True)
    work = partial(stack_head, maps=maps, folder=folder, seed=seed, recipe=recipe)
    results = options.in_parallel(work, heads, processes)
    records = sorted((r for r in results if r is not None), key=lambda record: record.name)
    left_out = sorted({head.name for head in heads} - {record.name for record in records})
    if left_out:
        typer.echo(f"left out, registration to MNI failed: {', '.join(left_out)}")
    write_index(folder, StackIndex(seed=seed, subjects=tuple(records)))


def train_control(  # noqa: PLR0913 - one option each
    bundle: options.NetworkBundle,
    config: options.Config,
    pool: options.Samples,
    encoder: options.EncoderRun,
    base: options.ExemplarFolder,
    run: options.Run,
    key: Annotated[
        Path | None, typer.Option(help="Key of the knowledge base; default: its folder, .key.")
    ] = None,
) -> None:
    """Train the control branch of a frozen bridge network.

    The branch guides the synthesis of missing slices by exemplars. The exemplar of a training
    sample is retrieved from the knowledge base, slices of the same subject excluded. POOL must be
    of `simulate --gaps`. An interrupted run is resumed from its last checkpoint. Writes
    RUN/checkpoint.pt and, when training is complete, RUN/control.json.
    """
    from trainer.config import TrainConfig
    from trainer.evaluate.networks import bundle_at
    from trainer.retrieval.subject_keys import key_beside, read_key, subject_hash
    from trainer.simulate.pool import Pool
    from trainer.simulate.stacks import Stacks
    from trainer.train import control
    from trainer.train.guided import Donors, ExemplarSource, GuidedSource, find_guides

    settings = TrainConfig.load(config)
    section = options.section_of(config, "control", settings.control)
    backbone, samples = bundle_at(bundle), Pool.open(pool, "train")
    hash_of = partial(subject_hash, read_key(key or key_beside(base)))
    hashes = {record.name: hash_of(record.name) for record in samples.records}
    exemplars = ExemplarSource.open(backbone.recipe, encoder / "encoder.onnx", base, hashes)
    donors = None
    if section.target == "donor":
        donors = Donors.of(Stacks.open(encoder / "stacks", "train"), hash_of)
    with options.bar_of("guides", sum(record.samples for record in samples.records)) as (bar, task):
        guides = find_guides(samples, exemplars, lambda: bar.advance(task))
    with_exemplar = sum(guide is not None for guide in guides)
    typer.echo(f"{with_exemplar} of {len(guides)} samples have an exemplar", err=True)
    source = GuidedSource.of(samples, backbone.recipe, section, guides, donors, settings.samples)
    training = control.training_of(settings.train, section)
    state = control.fresh_state(
        backbone, training, section, samples.index.digest, exemplars.exemplars.digest
    )
    run.mkdir(parents=True, exist_ok=True)
    _resume(state, run)
    with _loss_bar(training.steps, state.step) as report:
        control.train(training, source, state, run, report)
    control.write_facts(run, backbone, section, state)


def compare_objectives(
    config: options.Config,
    pool: options.Samples,
    prepared: Annotated[Path, typer.Option(help="Prepared data set, e.g. of FLAIR and T1.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the report.")],
    as_json: options.AsJson = False,
) -> None:
    """Compare image errors of training objectives.

    Trains a small network for each objective and seed of conf/train/objectives.toml, on simulated
    CT and on the prepared data set. Writes OUT/objectives.md, objectives.json and curves.csv. Runs
    that have scores already are not repeated.
    """
    from trainer.config import TrialConfig
    from trainer.evaluate.objectives import (
        TrialData,
        TrialFolder,
        TrialResult,
        between_sequences,
        run_trial,
        simulated,
        write_results,
    )

    settings = TrialConfig.load(config)
    trial, steps = settings.trial, settings.train.steps
    data_sets: tuple[Callable[[], TrialData], ...] = (
        lambda: simulated(pool, settings.recipe, trial),
        lambda: between_sequences(prepared, settings.recipe, trial),
    )
    results: list[TrialResult] = []
    total = len(data_sets) * len(trial.seeds) * len(trial.objectives) * steps
    with options.bar_of("steps", total) as (bar, task):
        for make in data_sets:
            data = make()
            for seed in trial.seeds:
                for objective in trial.objectives:
                    done = len(results) * steps
                    bar.update(task, description=f"{data.name}, {objective}, seed {seed}")

                    def advance(step: int, done: int = done) -> None:
                        bar.update(task, completed=done + step)

                    folder = TrialFolder(out, objective, seed)
                    results.append(run_trial(settings, data, folder, advance))
                    advance(steps)
    write_results(settings, results, out)
    document = (out / "objectives.json").read_text()
    typer.echo(json.dumps(json.loads(document)) if as_json else str(out / "objectives.md"))


def _resume(state: "State[Any]", run: Path) -> None:
    from trainer.train.loop import CHECKPOINT

    if (run / CHECKPOINT).exists():
        state.resume(run / CHECKPOINT)


@contextmanager
def _loss_bar(
    steps: int, done: int, visible: bool = True
) -> Iterator[Callable[[int, float], None]]:
    """Show training steps and loss; yields the function that a training loop calls."""
    with options.bar_of("steps", steps) as (bar, task):

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"steps (loss {loss:.4f})")

        bar.update(task, completed=done, visible=visible)
        yield report
