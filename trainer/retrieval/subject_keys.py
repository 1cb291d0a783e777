"""Keyed hashes of subjects: only with the key can the slices of a named subject be found.

The key is stored beside the knowledge base, never in it, so that a bundle does not identify the
subjects of its slices.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from rebrain_node.errors import KeyFileError

_KEY_BYTES = 32
_DIGITS = 32  #: of the hash that are kept: 128 bits


def key_beside(base: Path) -> Path:
    """Return the default key file of a knowledge base."""
    return base.with_name(f"{base.name}.key")


def make_key(path: Path) -> bytes:
    """Write a new key, readable by its owner only.

    Raises
    ------
    KeyFileError
        The file exists: with a new key no subject of the base could be found.
    """
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise KeyFileError(f"{path} exists and is never overwritten; name another --key") from error
    path.write_text(key.hex() + "\n", encoding="ascii")
    return key


def read_key(path: Path) -> bytes:
    """Read a key.

    Raises
    ------
    KeyFileError
        The file is missing, or does not hold 32 bytes in hexadecimal.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError as error:
        raise KeyFileError(
            f"{path} is missing; without the key of a knowledge base its subjects cannot be found"
        ) from error
    except ValueError as error:
        raise KeyFileError(f"{path} holds no key: {_KEY_BYTES} bytes in hexadecimal") from error
    if len(key) != _KEY_BYTES:
        raise KeyFileError(f"{path} holds {len(key)} bytes, a key has {_KEY_BYTES}")
    return key


def subject_hash(key: bytes, name: str) -> str:
    """Return the keyed hash of a subject: HMAC-SHA-256, its first 32 hexadecimal digits."""
    return hmac.new(key, name.encode("utf-8"), hashlib.sha256).hexdigest()[:_DIGITS]
