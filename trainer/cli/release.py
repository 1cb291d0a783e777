"""Release of bundles: from a finished run, with retrieval, and signed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.cli import options

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from rebrain_node.model.signature import PrivateKey

KeyFile = Annotated[
    Path | None, typer.Option("--key", help="Private key that signs it; default: not signed.")
]


Override = Annotated[
    str | None,
    typer.Option(
        metavar="REASON",
        help="Release although it is no better than the lookup table or the template; the model "
        "card shows the reason.",
    ),
]


def release(  # noqa: PLR0913 - one option each
    config: options.Config,
    pool: options.Samples,
    run: options.Run,
    out: options.Out,
    version: options.Version,
    data: options.Data = None,
    override: Override = None,
    key: KeyFile = None,
) -> None:
    """Release a run trained on simulated samples.

    The run must have reached its last step, have scores of its weights (`score`), and be better
    than the lookup table.
    """
    from trainer import stages
    from trainer.config import TrainConfig

    private = private_key(key)
    folders = stages.Folders(pool, run, options.data_of(data))
    settings = TrainConfig.load(config)
    _finish(stages.release_run(settings, folders, out, version, override), private)


def release_prepared(  # noqa: PLR0913 - one option each
    config: options.Config,
    data: Annotated[Path, typer.Option(help="Prepared data set that the run was trained on.")],
    run: options.Run,
    out: options.Out,
    title: Annotated[str, typer.Option(help="NAME:VERSION of the model, e.g. flair-t1:1.0.0.")],
    evaluation: Annotated[
        Path, typer.Option(help="evaluation.json of `evaluate --bundle RUN`, for the model card.")
    ],
    override: Override = None,
    key: KeyFile = None,
) -> None:
    """Release a run trained on prepared data.

    The run must have reached its last step, and the evaluation of its weights must be better than
    those of the lookup table and the template.
    """
    from trainer.config import TrainConfig
    from trainer.release.bundle import release_prepared as release_run
    from trainer.release.card import ReleaseEvaluation, Title

    private = private_key(key)
    name, _, version = title.partition(":")
    words = Title(name, version, ReleaseEvaluation.read(evaluation), override)
    _finish(release_run(TrainConfig.load(config), run, data, out, words), private)


def add_retrieval(  # noqa: PLR0913 - one option each
    bundle: options.NetworkBundle,
    encoder: options.EncoderRun,
    branch: Annotated[Path, typer.Option("--control", help="Folder of a run of `train-control`.")],
    base: options.ExemplarFolder,
    out: options.Out,
    version: options.Version,
    percent: Annotated[
        int, typer.Option("--p", help="Exemplars must reach tau at 1, 2, 5, 10 or 20 per cent.")
    ] = 5,
    method: Annotated[
        Literal["exemplar", "slerp", "linear"],
        typer.Option(help="How missing slices are filled; slerp and linear use no guide."),
    ] = "exemplar",
    key: KeyFile = None,
) -> None:
    """Add encoder, exemplars and control to a bundle.

    Missing slices are then guided by the exemplars of the knowledge base, unless --method says
    otherwise. Writes a new bundle.
    """
    from rebrain_node.model.recipe import Retrieval
    from trainer.evaluate.networks import bundle_at
    from trainer.release.bundle import GuidanceFolders, release_guided

    retrieval = Retrieval.model_validate({"method": method, "p": percent})
    folders = GuidanceFolders(encoder, branch, base)
    private = private_key(key)
    _finish(release_guided(bundle_at(bundle), folders, retrieval, version, out), private)


def key(
    private: Annotated[
        Path, typer.Argument(metavar="PRIVATE", help="File of the new private key, e.g. site.key.")
    ],
) -> None:
    """Make a key pair to sign bundles.

    Writes the private key, readable by its owner only, and the public key for the nodes: the same
    name with the suffix .pub.
    """
    from rebrain_node.model.signature import make_key

    public = private.with_suffix(".pub")
    if public == private:
        raise typer.BadParameter(f"{private} is the name of a public key; name it e.g. site.key")
    text = make_key(private, public)
    typer.echo(f"{private}: the private key; keep it off the node, and keep a copy")
    typer.echo(f"{public}: the public key {text}, for model.trusted_keys of the nodes")


def sign(
    bundle: options.Bundle,
    private: Annotated[Path, typer.Option("--key", help="Private key that signs it.")],
) -> None:
    """Sign a bundle after verifying its files.

    Writes manifest.sig; the digest of the bundle does not change.
    """
    from rebrain_node.model.bundle import load_bundle
    from rebrain_node.model.signature import read_private_key

    _finish(load_bundle(bundle), read_private_key(private))


def private_key(file: Path | None) -> "PrivateKey | None":
    """Read the key before the work begins, so that a wrong one costs no time."""
    from rebrain_node.model.signature import read_private_key

    return None if file is None else read_private_key(file)


def _finish(bundle: "ModelBundle", private: "PrivateKey | None") -> None:
    """Sign a new bundle if there is a key, and print its facts."""
    from rebrain_node.model.signature import sign_bundle, signing_key

    size = sum(record.size for record in bundle.manifest.files.values())
    typer.echo(
        f"{bundle.path}: {bundle.name} {bundle.version}, {size / 1e6:.1f} MB, {bundle.digest}"
    )
    if private is None:
        typer.echo("not signed: a node refuses it until `rebrain-train sign` signs it")
    else:
        typer.echo(f"signed by {signing_key(sign_bundle(bundle, private))}")
