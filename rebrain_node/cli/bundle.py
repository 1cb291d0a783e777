"""`bundle`: show and verify the model bundle and its signature, and compile it for a GPU."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from rebrain_node.settings import Settings

bundle = typer.Typer(help="Show, verify and compile the model bundle.", no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Argument(help="Folder of a bundle; default: the bundle of the settings.")
]


@bundle.command("info")
def info(folder: Folder = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show name, version, digest, signer, recipe and card of a bundle.

    Also calibration of the uncertainty, sizes, knowledge base and OOD threshold. A bundle with an
    untrusted signature is shown; an altered bundle is refused (exit code 4).
    """
    from rebrain_node.app.compose import read_bundle

    settings = _settings(config, folder)
    found = read_bundle(settings)
    answer = {
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "signed_by": _signed_by(settings, found),
        "uncertainty": found.meaning.label,
        "files": {name: file.size for name, file in found.manifest.files.items()},
        "size": sum(file.size for file in found.manifest.files.values()),
        "recipe": found.recipe.model_dump(mode="json"),
        "card": found.card.model_dump(mode="json"),
        "knowledge_base": _knowledge_base(found),
        "domain": _domain(found),
    }
    if as_json:
        print_json(answer)
        return
    shown = ("name", "version", "digest", "signed_by", "uncertainty", "size", "knowledge_base",
             "domain")  # fmt: skip
    rows = [(name, answer[name]) for name in shown]
    rows += [(f"recipe {name}", value) for name, value in found.recipe.model_dump().items()]
    print_table("Bundle", ("field", "value"), rows)
    typer.echo(found.read("CARD.md").decode())


@bundle.command("verify")
def verify(folder: Folder = None, config: Config = None, as_json: AsJson = False) -> None:
    """Verify a bundle as a worker does before it uses one.

    Checks the SHA-256 of every file, the signature, that the bundle is not older than the last
    active one, and that the engine reproduces the golden output. Exit code 4 and the reason if
    the bundle is refused.
    """
    from rebrain_node.errors import BundleError

    try:
        answer = _verify(_settings(config, folder))
    except BundleError as error:
        if as_json:
            print_json({"verified": False, "reason": str(error)})
        raise
    if as_json:
        print_json(answer)
        return
    typer.echo(f"{answer['name']} {answer['version']} is verified, digest {answer['digest']}")
    signed_by = answer["signed_by"]
    if signed_by is None:
        typer.echo("unsigned, accepted by the setting model.unsigned")
    else:
        typer.echo(f"signed by {signed_by['name']}, key {signed_by['key']}")
    typer.echo(f"{answer['engine']} reproduces the golden output")
    if not answer["held_against_history"]:
        typer.echo("not compared with earlier bundles: storage.folder contains no node")


@bundle.command("compile")
def compile_(
    folder: Folder = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Compute capability of the GPU, e.g. SM89; default: that of this machine."
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Build what TensorRT loads of a bundle.

    The engine `tensorrt` does so by itself when it first starts; this command does it before, also
    on a machine without a GPU for the targets that `tensorrt-rtx` knows. What was built is kept in
    the folder of the node's state (storage.folder) and taken by this node alone.
    """
    from rebrain_node.app import compose

    settings = _settings(config, folder)
    reports = compose.compile_plans(settings, compose.open_bundle(settings).bundle, target)
    if as_json:
        print_json({"plans": [asdict(each) for each in reports]})
        return
    rows = [
        (each.graph, each.target, each.precision, f"{each.size / 1e6:.1f}", f"{each.seconds:.1f}")
        for each in reports
    ]
    print_table("Built", ("network", "target", "precision", "MB", "seconds"), rows)


def _verify(settings: Settings) -> dict[str, Any]:
    """Verify a bundle as a worker does when it starts, without activating it."""
    from rebrain_node.app import compose

    verified = compose.open_bundle(settings)
    bundle, signer = verified.bundle, verified.signer
    has_history = compose.hold_against_history(settings, bundle)
    return {
        "verified": True,
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "signed_by": None if signer is None else asdict(signer),
        "engine": compose.open_model(settings, bundle).engine.identity,
        "held_against_history": has_history,
    }


def _settings(config: Path | None, folder: Path | None) -> Settings:
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    if folder is None:
        return settings
    model = settings.model.model_copy(update={"bundle": folder})
    return settings.model_copy(update={"model": model})


def _signed_by(settings: Settings, found: ModelBundle) -> dict[str, str | None] | None:
    """Return the key of the signer, and its name if the settings trust it; None if unsigned."""
    from rebrain_node.model.signature import signing_key
    from rebrain_node.trust import trusted_keys

    key = signing_key(found)
    return None if key is None else {"key": key, "name": trusted_keys(settings).get(key)}


def _domain(found: ModelBundle) -> dict[str, Any] | None:
    """Return the OOD threshold and the sample it was set by; None without one."""
    known = found.ood_model
    if known is None:
        return None
    return {"threshold": known.threshold, "people": known.people, "series": known.series}


def _knowledge_base(found: ModelBundle) -> dict[str, Any] | None:
    """Return a summary of the knowledge base; None without one."""
    if not found.exemplars:
        return None
    from rebrain_node.model.bundle import EXEMPLARS
    from rebrain_node.retrieval.knowledge_base import parse

    base = parse(found.exemplars, str(found.path / EXEMPLARS))
    index = base.index
    return {
        "digest": base.digest,
        "entries": index.entries,
        "subjects": len(index.subjects),
        "dimension": index.dimension,
        "tau": [record.model_dump() for record in index.tau],
    }
