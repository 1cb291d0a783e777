"""A bundle from a run on prepared data."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import Config, Run
from trainer.cli.signing import KeyFile, finish, private_key


def release_prepared(  # noqa: PLR0913 - one option each
    config: Config,
    data: Annotated[Path, typer.Option(help="The prepared data set that the run learned from.")],
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    title: Annotated[str, typer.Option(help="Name and version of the model, e.g. flair-t1:1.0.0.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="JSON of `rebrain-train evaluate`, for the card.")
    ] = None,
    key: KeyFile = None,
) -> None:
    """Turn a finished run on prepared data into a bundle.

    It is signed where a key is given.
    """
    from trainer.config import TrainConfig
    from trainer.release.bundle import release_prepared as release
    from trainer.release.card import Title, scores_of

    signing = private_key(key)
    name, _, version = title.partition(":")
    words = Title(name, version, () if evaluation is None else scores_of(evaluation))
    bundle = release(TrainConfig.load(config), run, data, out, words)
    finish(bundle, signing)
