"""`control`, `guide`: another person's slice as a guide of the drawing."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import Bundle, Config, Run, Samples, bar_of
from trainer.cli.signing import KeyFile, finish, private_key

EncoderRun = Annotated[Path, typer.Option("--encoder", help="Folder of the run of `encoder`.")]
Base = Annotated[Path, typer.Option("--knowledge-base", help="Folder of the knowledge base.")]


def control(  # noqa: PLR0913 - one option each
    bundle: Bundle,
    config: Config,
    pool: Samples,
    encoder: EncoderRun,
    base: Base,
    run: Run,
    key: Annotated[
        Path | None, typer.Option(help="Key file of the knowledge base; default: beside it, .key.")
    ] = None,
) -> None:
    """Train the control branch beside a frozen network.

    A run that was interrupted goes on where its last checkpoint was. The guides of the pool's
    missing positions come from the knowledge base, never from the person who asks. Leaves
    RUN/checkpoint.pt and, at the end, RUN/control.json.
    """
    from trainer.config import TrainConfig
    from trainer.evaluate.networks import bundle_at
    from trainer.retrieval.subject_keys import key_beside, person_hash, read_key
    from trainer.simulate.pool import Pool
    from trainer.simulate.stacks import Stacks
    from trainer.train import control as train_control
    from trainer.train.guided import Donors, ExemplarSource, GuidedSource, find_guides

    settings = TrainConfig.load(config)
    if settings.control is None:
        raise typer.BadParameter(f"{config} has no [control]")
    backbone, opened = bundle_at(bundle), Pool.open(pool, "train")
    hash_of = partial(person_hash, read_key(key or key_beside(base)))
    hashes = {record.name: hash_of(record.name) for record in opened.records}
    exemplars = ExemplarSource.open(backbone.recipe, encoder / "encoder.onnx", base, hashes)
    donors = None
    if settings.control.target == "donor":
        donors = Donors.of(Stacks.open(encoder / "stacks", "train"), hash_of)
    with bar_of("guides", sum(record.samples for record in opened.records)) as (bar, task):
        guides = find_guides(opened, exemplars, lambda: bar.advance(task))
    found = sum(guide is not None for guide in guides)
    typer.echo(f"{found} of {len(guides)} samples have an exemplar", err=True)
    source = GuidedSource.of(opened, backbone.recipe, settings.control, guides, donors)
    training = train_control.training_of(settings.train, settings.control)
    state = train_control.fresh_state(
        backbone, training, settings.control, opened.index.digest, exemplars.exemplars.digest
    )
    run.mkdir(parents=True, exist_ok=True)
    if (run / "checkpoint.pt").exists():
        state.resume(run / "checkpoint.pt")
    with bar_of("steps", training.steps) as (bar, task):

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"steps (loss {loss:.4f})")

        bar.update(task, completed=state.step)
        train_control.train(training, source, state, run, report)
    train_control.write_facts(run, backbone, settings.control, state)


def guide(  # noqa: PLR0913 - one option each
    bundle: Bundle,
    encoder: EncoderRun,
    branch: Annotated[Path, typer.Option("--control", help="Folder of the run of `control`.")],
    base: Base,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    version: Annotated[str, typer.Option(help="Version of the model.")],
    percent: Annotated[
        int, typer.Option("--p", help="Which threshold of the knowledge base: 1, 2, 5, 10 or 20.")
    ] = 5,
    key: KeyFile = None,
) -> None:
    """Write a new bundle: BUNDLE, and what guides it.

    Guided are the slices where nothing was measured.
    """
    from rebrain_node.model.recipe import Retrieval
    from trainer.evaluate.networks import bundle_at
    from trainer.release.bundle import GuidanceFolders, release_guided

    retrieval = Retrieval.model_validate({"method": "exemplar", "p": percent})
    folders = GuidanceFolders(encoder, branch, base)
    signing = private_key(key)
    finish(release_guided(bundle_at(bundle), folders, retrieval, version, out), signing)
