"""Who may release a bundle for this node: the key that ships, and those of the settings."""

from __future__ import annotations

from importlib import resources

from rebrain_node.errors import BundleRefused, KeyRefused, SettingsError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.signature import Signer, read_public_key, trusted_signer
from rebrain_node.settings import Settings


def signer(settings: Settings, found: ModelBundle) -> Signer | None:
    """Say who released a bundle; None for an unsigned one that the settings accept.

    Raises
    ------
    BundleRefused
        It is unsigned and the settings refuse that, its signature is not of this manifest, or
        the key is not a trusted one. A signature that is there is never passed over.
    SettingsError
        A trusted key cannot be read.
    """
    found_signer = trusted_signer(found, trusted_keys(settings))
    if found_signer is None and settings.model.unsigned == "refuse":
        raise BundleRefused(
            f"{found.path}: {found.name} {found.version} is not signed, and model.unsigned is "
            '"refuse"; sign it (`rebrain-train sign`) with a key of model.trusted_keys, or set '
            'model.unsigned = "accept"'
        )
    return found_signer


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
    with resources.as_file(resources.files("rebrain_node") / "bundles" / "demo.pub") as shipped:
        keys = {read_public_key(shipped.read_bytes(), shipped): shipped.stem}
    for file in settings.model.trusted_keys:
        try:
            keys[read_public_key(file.read_bytes(), file)] = file.stem
        except OSError as error:
            raise SettingsError(f"model.trusted_keys {file}: {error.strerror}") from error
        except KeyRefused as error:
            raise SettingsError(f"model.trusted_keys: {error}") from error
    return keys
