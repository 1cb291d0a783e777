"""Kinds of values that several sections share."""

from __future__ import annotations

import re
from typing import Annotated, Final

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
MailAddress = Annotated[
    str, text_of(r"[!-?A-~]+@[!-?A-~]+", "must be a mail address, e.g. it@example.org")
]
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Section(BaseModel):
    """One group of settings; an unknown name in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
