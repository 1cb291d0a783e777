"""Kinds of values that several sections share."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def text_of(pattern: str, words: str) -> AfterValidator:
    """Require text of a pattern, and say what is required in words."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(words)
        return value

    return AfterValidator(check)


#: AE title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)
AETitle = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    text_of(
        r"[\x20-\x5b\x5d-\x7e]{1,16}",
        "must be an AE title: 1 to 16 letters, digits, spaces and signs, no backslash",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
RemoteName = Annotated[
    str,
    text_of(
        r"[a-z0-9][a-z0-9_-]{0,31}",
        "must be 1 to 32 small letters, digits, - and _, a letter or digit first",
    ),
]
MachineName = Annotated[
    str,
    text_of(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "must be 1 to 64 letters, digits, ., - and _, a letter or digit first",
    ),
]
MailAddress = Annotated[
    str, text_of(r"[!-?A-~]+@[!-?A-~]+", "must be a mail address, e.g. it@example.org")
]
_HOST: Final = re.compile(r"[^\s/@:\\\[\]?#%]{1,253}")


def _is_host(value: str) -> bool:
    """Whether a connection can be made to it: a name that fits DNS, or an address."""
    try:
        if ":" in value:
            ipaddress.IPv6Address(value)
        value.encode("idna")  # as it is asked of the name service: no empty label, none too long
    except ValueError:
        return False
    return ":" in value or _HOST.fullmatch(value) is not None


def _is_web_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        fit = parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        return False
    return fit and value.isascii()


def _host(value: str) -> str:
    """Require a host.

    Raises
    ------
    ValueError
        It is none.
    """
    if not _is_host(value):
        raise ValueError(
            "must be a host name or an address, without a port (that is the setting `port`)"
        )
    return value


def _web_url(value: str) -> str:
    """Require a URL with a host, and without a user or password, which would be no secret.

    Raises
    ------
    ValueError
        It is none.
    """
    if not _is_web_url(value):
        raise ValueError(
            "must be a URL in ASCII with a host and, if any, a port from 1 to 65535, e.g. "
            "https://host.example.org:8443/path"
        )
    if "@" in urlsplit(value).netloc:
        raise ValueError("must hold no user and no password, which `config show` would print")
    return value


Host = Annotated[str, AfterValidator(_host)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Section(BaseModel):
    """One group of settings; an unknown name in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
