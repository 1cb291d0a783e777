"""A bundle from a run on prepared data."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import Config, Run


def release_prepared(
    config: Config,
    data: Annotated[Path, typer.Option(help="The prepared data set that the run learned from.")],
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    title: Annotated[str, typer.Option(help="Name and version of the model, e.g. flair-t1:1.0.0.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="JSON of `rebrain-train evaluate`, for the card.")
    ] = None,
) -> None:
    """Turn a finished run on prepared data into a bundle."""
    from trainer import prepared_release as released
    from trainer.config import TrainConfig

    name, _, version = title.partition(":")
    words = released.Title(
        name, version, () if evaluation is None else released.scores_of(evaluation)
    )
    bundle = released.release_prepared(TrainConfig.load(config), run, data, out, words)
    size = sum(record.size for record in bundle.manifest.files.values())
    typer.echo(f"{out}: {bundle.name} {bundle.version}, {size / 1e6:.1f} MB, {bundle.digest}")
