"""Keys, and the signature by which a node knows who released a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from rebrain_node.model.signature import PrivateKey

KeyFile = Annotated[Path | None, typer.Option("--key", help="Sign it with this private key.")]


def key(
    private: Annotated[Path, typer.Argument(help="File of the private key, e.g. site.key.")],
) -> None:
    """Make a pair of keys that sign bundles.

    PRIVATE is for its owner alone; the same name with .pub, beside it, is for the nodes.
    """
    from rebrain_node.model.signature import make_key

    public = private.with_suffix(".pub")
    if public == private:
        raise typer.BadParameter(f"{private} is the name of a public key; name it e.g. site.key")
    found = make_key(private, public)
    typer.echo(f"{private}: the private key; keep it off the node, and keep a copy")
    typer.echo(f"{public}: the public key {found}, for model.trusted_keys of the nodes")


def sign(
    folder: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    private: Annotated[Path, typer.Option("--key", help="The private key.")],
) -> None:
    """Sign a bundle.

    Its files are verified first, and its digest stays as it is.
    """
    from rebrain_node.model.bundle import load_bundle
    from rebrain_node.model.signature import read_private_key

    finish(load_bundle(folder), read_private_key(private))


def private_key(file: Path | None) -> "PrivateKey | None":
    """Read the key of `--key` before the work begins, so that a wrong one costs nothing."""
    from rebrain_node.model.signature import read_private_key

    return None if file is None else read_private_key(file)


def finish(bundle: "ModelBundle", signing: "PrivateKey | None") -> None:
    """Sign a bundle that was released, where there is a key, and say what it is."""
    from rebrain_node.model.signature import sign_bundle, signing_key

    size = sum(record.size for record in bundle.manifest.files.values())
    typer.echo(
        f"{bundle.path}: {bundle.name} {bundle.version}, {size / 1e6:.1f} MB, {bundle.digest}"
    )
    if signing is None:
        typer.echo("not signed: a node refuses it until `rebrain-train sign` signs it")
    else:
        typer.echo(f"signed by {signing_key(sign_bundle(bundle, signing))}")
