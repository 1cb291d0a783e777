"""Keyed hashes of people: who holds the key can find a person's slices, nobody else.

The key lies beside the knowledge base, never in it: a bundle cannot tell whose slices it holds.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from rebrain_node.errors import KeyFileError

_KEY_BYTES = 32
_DIGITS = 32  #: of the hash that are kept: 128 bits


def key_beside(base: Path) -> Path:
    """Name the key file of a knowledge base where none is given."""
    return base.with_name(f"{base.name}.key")


def make_key(path: Path) -> bytes:
    """Write a new key, readable by the owner alone.

    Raises
    ------
    KeyFileError
        The file exists: a new key would make every person of the base unknown.
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
        There is none, or it is not 32 bytes in hexadecimal.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError as error:
        raise KeyFileError(
            f"{path} is missing; without the key of a knowledge base its people cannot be named"
        ) from error
    except ValueError as error:
        raise KeyFileError(f"{path} holds no key: {_KEY_BYTES} bytes in hexadecimal") from error
    if len(key) != _KEY_BYTES:
        raise KeyFileError(f"{path} holds {len(key)} bytes, a key has {_KEY_BYTES}")
    return key


def person_hash(key: bytes, name: str) -> str:
    """Return the keyed hash of a person: HMAC-SHA-256, its first 32 hexadecimal digits."""
    return hmac.new(key, name.encode("utf-8"), hashlib.sha256).hexdigest()[:_DIGITS]
