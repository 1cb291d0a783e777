"""Who may release a bundle for this node, and which release must not come back."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING

from rebrain_node.domain.release import Release
from rebrain_node.errors import BundleError, KeyFileError, SettingsError

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from rebrain_node.model.signature import Signer
    from rebrain_node.settings import Settings


def signer_of(settings: Settings, bundle: ModelBundle) -> Signer | None:
    """Say who released a bundle; None for an unsigned one that the settings accept.

    Raises
    ------
    BundleError
        It is unsigned and the settings refuse that, its signature is not of this manifest, or
        the key is not a trusted one. A signature that is there is never passed over.
    SettingsError
        A trusted key cannot be read.
    """
    from rebrain_node.model.signature import trusted_signer

    signer = trusted_signer(bundle, trusted_keys(settings))
    if signer is None and settings.model.unsigned == "refuse":
        raise BundleError(
            f"{bundle.path}: {bundle.name} {bundle.version} is not signed, and model.unsigned is "
            '"refuse"; sign it (`rebrain-train sign`) with a key of model.trusted_keys, or set '
            'model.unsigned = "accept"'
        )
    return signer


def trusted_keys(settings: Settings) -> dict[str, str]:
    """Read the public keys whose bundles are taken: the one that ships, and the site's.

    Returns
    -------
    dict of str to str
        Name of each key, that of its file, by the key in hexadecimal.

    Raises
    ------
    SettingsError
        A file cannot be read, or holds no Ed25519 key.
    """
    from rebrain_node.model.signature import read_public_key

    with resources.as_file(resources.files("rebrain_node") / "bundles" / "demo.pub") as shipped:
        keys = {read_public_key(shipped.read_bytes(), shipped): shipped.stem}
    for file in settings.model.trusted_keys:
        try:
            keys[read_public_key(file.read_bytes(), file)] = file.stem
        except OSError as error:
            raise SettingsError(
                f"model.trusted_keys {file}: {error.strerror}; correct the path, or take it out"
            ) from error
        except KeyFileError as error:
            raise SettingsError(f"model.trusted_keys: {error}") from error
    return keys


def refuse_older(found: Release, known: Iterable[Release], accepted: str | None) -> None:
    """Refuse a bundle that is older than the last one active on this node.

    A signature says who released a bundle, not that it is still the one to use: a withdrawn
    release keeps its valid signature.

    Parameters
    ----------
    known : iterable of Release
        Bundles of the same name that were active on this node.
    accepted : str or None
        Digest of the one bundle that is accepted all the same (setting ``model.accept_older``).

    Raises
    ------
    BundleError
        One of them is of a later version, or another one of the same version.
    """
    before = tuple(known)
    if found.digest == accepted or not before:
        return
    newest = max(release.numbers for release in before)
    of_newest = {release.digest: release for release in before if release.numbers == newest}
    if found.numbers > newest or found.digest in of_newest:
        return
    digest, last = max(of_newest.items())
    kind = "older than" if found.numbers < newest else "another release of the same version as"
    raise BundleError(
        f"{found.name} {found.version} (digest {found.digest}) is {kind} {last.name} "
        f"{last.version} (digest {digest}), which was active on this node; use a newer "
        f'one, or set model.accept_older = "{found.digest}" to go back on purpose'
    )
