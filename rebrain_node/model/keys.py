"""The key of a node: it signs the checkpoints of the audit log (Ed25519, RFC 8032).

`audit.key` (PKCS#8, PEM, mode 0600) and `audit.pub` (SubjectPublicKeyInfo, PEM) lie in the folder
of the node's state. Whoever can read the first can sign a log of his own; copies of the second
belong where the administrator of the node cannot change them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rebrain_node.blobs import sync_folder
from rebrain_node.errors import KeyFileError
from rebrain_node.model.signature import PrivateKey, make_key, read_private_key, read_public_key

#: private and public key of a node, in the folder of its state
PRIVATE_FILE: Final = "audit.key"
PUBLIC_FILE: Final = "audit.pub"


def make_node_key(folder: Path) -> str | None:
    """Make the key of the node where it has none; the public key, None where it has one.

    Of several processes that ask at once, one makes it.

    Raises
    ------
    KeyFileError
        The public key is there without the private one: a new key would hide that it was lost.
    """
    private, public = folder / PRIVATE_FILE, folder / PUBLIC_FILE
    if private.exists():
        return None
    if public.exists():
        raise KeyFileError(
            f"{private} is missing, but {public} is there: restore it from a backup; if it is "
            f"lost, move {public} to a safe place and start again: a new key is made, and "
            "`rebrain-node audit verify` takes both with --key FILE --key FILE"
        )
    with tempfile.TemporaryDirectory(prefix=".key-", dir=folder) as own:
        made = Path(own)
        key = make_key(made / PRIVATE_FILE, made / PUBLIC_FILE)
        try:
            os.link(made / PRIVATE_FILE, private)
        except FileExistsError:
            return None
        os.link(made / PUBLIC_FILE, public)
    sync_folder(folder)
    return key


def node_key(folder: Path) -> PrivateKey:
    """Read the private key of a node.

    Raises
    ------
    KeyFileError
        It is missing, or other users may read it.
    """
    path = folder / PRIVATE_FILE
    if not path.exists():
        raise KeyFileError(
            f"{path} is missing: restore it from a backup; without it nothing of the audit log is "
            "signed any more"
        )
    return read_private_key(path)


def public_key_text(folder: Path) -> str:
    """Return the public key of a node as PEM.

    Raises
    ------
    KeyFileError
        The node has none yet.
    """
    try:
        return (folder / PUBLIC_FILE).read_text(encoding="ascii")
    except OSError as error:
        raise KeyFileError(
            f"{folder / PUBLIC_FILE}: {error.strerror}; the node makes its key when `rebrain-node "
            "serve` runs for the first time"
        ) from error


def read_key_file(path: Path) -> str:
    """Read a public key; its 32 bytes in hexadecimal.

    Raises
    ------
    KeyFileError
        It is missing or no Ed25519 key.
    """
    try:
        return read_public_key(path.read_bytes(), path)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def public_part(key: PrivateKey) -> str:
    """Return the public key of a private one, in hexadecimal."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def sign_statement(statement: bytes, key: PrivateKey) -> str:
    """Sign some bytes; the signature in hexadecimal."""
    return key.sign(statement).hex()


def is_signed(statement: bytes, signature: str, key: str) -> bool:
    """Whether a public key (hexadecimal) signed exactly these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), statement
        )
    except (InvalidSignature, ValueError):
        return False
    return True
