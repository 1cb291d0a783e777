"""The Ed25519 signature (RFC 8032) of a bundle's manifest by its releaser.

`manifest.sig` is stored beside the manifest and not listed in it, so signing changes no digest:

    {
      "format": 1,
      "algorithm": "Ed25519",
      "key": "<the signer's public key, 32 bytes in hexadecimal>",
      "signature": "<of exactly the bytes of manifest.json, 64 bytes in hexadecimal>"
    }

Its bytes must equal those that `Signature.to_json` writes. Keys are PEM files, as `openssl genpkey
-algorithm ed25519` makes them: the private one PKCS#8, the public one SubjectPublicKeyInfo
(RFC 8410).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field

from rebrain_node.errors import BundleError, KeyFileError
from rebrain_node.model.bundle import MANIFEST, SIGNATURE, ModelBundle, load_bundle, parsed

#: type of the private key; an alias, so that no other module imports `cryptography`
PrivateKey = Ed25519PrivateKey

_OTHERS = 0o077  #: permission bits of all users except the owner


class Signature(BaseModel):
    """`manifest.sig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    algorithm: Literal["Ed25519"] = "Ed25519"
    key: str = Field(pattern="^[0-9a-f]{64}$")
    signature: str = Field(pattern="^[0-9a-f]{128}$")

    def to_json(self) -> bytes:
        """Write the one form that is accepted."""
        return (self.model_dump_json(indent=2) + "\n").encode()


@dataclass(frozen=True, kw_only=True)
class Signer:
    """The signer of a bundle: public key in hexadecimal, and the name under which it is trusted."""

    name: str
    key: str


def make_key(private: Path, public: Path) -> str:
    """Write a new key pair, the private key readable by its owner only; return the public key.

    Raises
    ------
    KeyFileError
        A file exists: a key is never overwritten.
    """
    for file in (private, public):
        if file.exists():
            raise KeyFileError(f"{file} exists and a key is never overwritten; name another file")
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(text)
    with public.open("xb") as stream:
        stream.write(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return _hexadecimal(key.public_key())


def read_private_key(path: Path) -> PrivateKey:
    """Read a private key for signing.

    Raises
    ------
    KeyFileError
        It is missing, not an Ed25519 key, encrypted, or accessible to other users.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}; make one with `rebrain-train key`"
        ) from error
    if mode & _OTHERS:
        raise KeyFileError(
            f"{path} has the mode {mode & 0o777:o}; only its owner may access a private key; "
            f"run `chmod 600 {path}`, and make a new one if another user may have read it"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise KeyFileError(
            f"{path} is not an unencrypted private key in PEM; restore it from a backup, or make "
            "another with `rebrain-train key`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another kind; an Ed25519 key is needed")
    return key


def read_public_key(content: bytes, path: Path) -> str:
    """Read a public key to be trusted; return its 32 bytes in hexadecimal.

    Raises
    ------
    KeyFileError
        It is not a public Ed25519 key in PEM.
    """
    try:
        key = load_pem_public_key(content)
    except ValueError as error:
        raise KeyFileError(
            f"{path} is not a public key in PEM; restore it from a backup, or ask its owner for it"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds a key of another kind; an Ed25519 key is needed")
    return _hexadecimal(key)


def sign(manifest: bytes, key: PrivateKey) -> bytes:
    """Return the content of `manifest.sig`."""
    return Signature(
        key=_hexadecimal(key.public_key()), signature=key.sign(manifest).hex()
    ).to_json()


def sign_bundle(bundle: ModelBundle, key: PrivateKey) -> ModelBundle:
    """Write the signature of a bundle beside its manifest; load the bundle with it.

    Raises
    ------
    BundleError
        The bundle is signed already.
    """
    file = bundle.path / SIGNATURE
    if bundle.holds(SIGNATURE):
        raise BundleError(f"{file}: the bundle is signed already; remove it to sign again")
    with file.open("xb") as stream:
        stream.write(sign(bundle.read(MANIFEST), key))
    return load_bundle(bundle.path)


def signing_key(bundle: ModelBundle) -> str | None:
    """Return the public key that signed exactly this manifest; None for an unsigned bundle.

    It does not check whether the key is trusted (`trusted_signer`).

    Raises
    ------
    BundleError
        The signature cannot be read, or belongs to another manifest or key.
    """
    if not bundle.holds(SIGNATURE):
        return None
    file, content = bundle.path / SIGNATURE, bundle.read(SIGNATURE)
    signature = parsed(Signature, content, file)
    if content != signature.to_json():
        raise BundleError(
            f"{file} differs from the form in which it is written; copy the bundle again"
        )
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
        key.verify(bytes.fromhex(signature.signature), bundle.read(MANIFEST))
    except (InvalidSignature, ValueError) as error:
        raise BundleError(
            f"{file}: the key {signature.key} did not sign this {MANIFEST} "
            f"(SHA-256 {bundle.digest}): "
            "one of the two was altered or belongs to another bundle; copy the bundle again"
        ) from error
    return signature.key


def trusted_signer(bundle: ModelBundle, trusted: Mapping[str, str]) -> Signer | None:
    """Return the trusted signer of a bundle; None for an unsigned bundle.

    Parameters
    ----------
    trusted : mapping of str to str
        Names by public key in hexadecimal.

    Raises
    ------
    BundleError
        The signature belongs to another bundle, or was made with an untrusted key.
    """
    key = signing_key(bundle)
    if key is None:
        return None
    if key not in trusted:
        names = ", ".join(sorted(trusted.values()))
        raise BundleError(
            f"{bundle.path / SIGNATURE}: signed with the untrusted key {key}; trusted are "
            f"{names}; if it is the releaser's key, add its file to model.trusted_keys"
        )
    return Signer(name=trusted[key], key=key)


def _hexadecimal(key: Ed25519PublicKey) -> str:
    return key.public_bytes_raw().hex()
