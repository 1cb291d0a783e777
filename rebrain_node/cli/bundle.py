"""`bundle`: what the model is, and whether it is as it was released."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rebrain_node.cli.options import AsJson, Config
from rebrain_node.cli.present import print_json, print_table

bundle = typer.Typer(help="What the model is, and whether it is unaltered.", no_args_is_help=True)


@bundle.command("info")
def info(config: Config = None, as_json: AsJson = False) -> None:
    """Show name, version, digest, recipe and card of the bundle in force."""
    from rebrain_node.app import bundle as bundle_in_force
    from rebrain_node.settings import load_settings

    found = bundle_in_force(load_settings(config))
    answer = {
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "uncertainty": found.meaning.label,
        "files": {name: file.size for name, file in found.manifest.files.items()},
        "recipe": found.recipe.model_dump(mode="json"),
        "card": found.card.model_dump(mode="json"),
    }
    if as_json:
        print_json(answer)
        return
    rows = [(name, answer[name]) for name in ("name", "version", "digest", "uncertainty")]
    rows += [(f"recipe {name}", value) for name, value in found.recipe.model_dump().items()]
    print_table("Bundle", ("what", "value"), rows)
    typer.echo(found.read("CARD.md").decode())


@bundle.command("verify")
def verify(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a bundle; default: the bundle in force.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check every file by its SHA-256, the engine by the golden output; exit code 4 if altered."""
    from rebrain_node.app import bundle as bundle_in_force
    from rebrain_node.app import model as opened
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    if folder is not None:
        model = settings.model.model_copy(update={"bundle": folder})
        settings = settings.model_copy(update={"model": model})
    found = bundle_in_force(settings)
    identity = opened(settings, found).engine.identity
    if as_json:
        print_json({"verified": True, "digest": found.digest, "engine": identity})
        return
    typer.echo(f"{found.name} {found.version} is as released: {found.digest}")
    typer.echo(f"{identity} reproduces the golden output")
