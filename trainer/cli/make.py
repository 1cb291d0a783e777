"""`make`: from a folder of pairs to a bundle in one command."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainer.cli import options
from trainer.cli.data import kind_of
from trainer.cli.release import KeyFile, Override, private_key

if TYPE_CHECKING:
    from trainer.make.run import Outcome

Layout = Literal["synthrad", "brats", "flair-t1", "nifti", "dicom", "maps"]
Preset = Literal["small", "standard", "paper"]


def make(  # noqa: PLR0913 - one option each
    data: Annotated[Path, typer.Option(help="Folder of the pairs, or a table (.csv).")],
    layout: Annotated[Layout, typer.Option(help="How files are arranged in it.")],
    out: Annotated[Path, typer.Option(help="Folder of all that is made.")],
    preset: Annotated[
        Preset,
        typer.Option(
            help="small: an hour of two cores; standard: hours of two cores, or a GPU; paper: a "
            "large GPU."
        ),
    ] = "small",
    config: Annotated[
        Path | None, typer.Option(help="TOML file of parameters instead of a preset.")
    ] = None,
    title: Annotated[
        str, typer.Option(help="NAME:VERSION of the bundle, e.g. site-t1:1.0.0.")
    ] = "site-t1:1.0.0",
    split: Annotated[
        str | None,
        typer.Option(help="Train/validation/test, as of `prepare`; default: 0.7/0.15/0.15."),
    ] = None,
    kind: Annotated[
        Literal["ct", "mr"] | None,
        typer.Option("--source-kind", help="Modality of the source; for nifti and dicom."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the images; default: of the layout.")
    ] = None,
    override: Override = None,
    key: KeyFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a bundle from paired images.

    Prepares and splits the subjects, trains, evaluates exactly these weights, releases, calibrates
    the uncertainty, fits the out-of-distribution model, and signs. An interrupted command is
    resumed by the same command. Exit code 3 if the bundle may not be released; the reason is
    printed.
    """
    from trainer.config import TrainConfig, preset_config
    from trainer.data.layouts import LAYOUTS
    from trainer.data.prepare import Task
    from trainer.make.run import MakeRequest
    from trainer.make.run import make as run

    private = private_key(key)
    name, _, version = title.partition(":")
    chosen = LAYOUTS[layout]
    request = MakeRequest(
        task=Task(
            chosen,
            kind_of(chosen, kind),
            data,
            out / "data" / data.resolve().stem,
            split,
            0,
            licence or chosen.licence,
        ),
        config=preset_config(preset) if config is None else TrainConfig.load(config),
        out=out,
        name=name,
        version=version,
        override=override,
        key=private,
    )
    with options.stages() as watcher:
        outcome = run(request, watcher)
    document = _document(outcome, request.report)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        for line in _lines(document):
            typer.echo(line)
    if outcome.bundle is None:
        raise SystemExit(3)


def _document(outcome: "Outcome", report: Path) -> dict[str, Any]:
    """Return the outcome for programs."""
    from rebrain_node.model.signature import signing_key

    bundle = outcome.bundle
    return {
        "released": bundle is not None,
        "reason": outcome.reason,
        "report": str(report / "evaluation.html"),
        "bundle": None if bundle is None else str(bundle.path),
        "digest": None if bundle is None else bundle.digest,
        "uncertainty": None if bundle is None else bundle.meaning.label,
        "signed_by": None if bundle is None else signing_key(bundle),
        "left_out": dict(outcome.left_out),
        "refused": dict(outcome.refused),
        "seconds": dict(outcome.seconds),
    }


def _lines(document: dict[str, Any]) -> list[str]:
    """Return the outcome for readers."""
    lines = [f"{stage} left out: {reason}" for stage, reason in document["left_out"].items()]
    lines.append(f"report: {document['report']}")
    if not document["released"]:
        return [*lines, f"no bundle: {document['reason']}"]
    lines.append(f"bundle: {document['bundle']}, {document['digest']}")
    lines.append(f"uncertainty: {document['uncertainty']}")
    signer = document["signed_by"]
    remedy = f"`rebrain-train sign {document['bundle']} --key FILE` signs it"
    lines.append(f"signed by {signer}" if signer else f"not signed, a node refuses it: {remedy}")
    return lines
