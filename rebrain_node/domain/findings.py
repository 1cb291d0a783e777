"""Findings: reasons for or against the synthesis of a series, each with a stable code."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Literal

from rebrain_node.domain.codes import is_code

Severity = Literal["refuse", "flag"]

_MOST_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason, with the value seen and the limit it was held against.

    Raises `ValueError` for a code that `domain.codes` does not list.
    """

    code: str  #: stable, upper case, e.g. ``GEOM-GAP``; documented in docs/refusals.md
    sentence: str  #: one sentence a radiographer understands; no patient data
    severity: Severity = "refuse"  #: ``flag`` publishes with the finding written into the objects
    value: float | str | None = None  #: what was seen
    limit: float | str | None = None  #: what it was held against
    #: read back from a ledger, which another version may have written: any code is taken
    recorded: InitVar[bool] = False

    def __post_init__(self, recorded: bool) -> None:
        if not recorded and not is_code(self.code):
            raise ValueError(f"{self.code!r} is no code of a finding; list it in domain/codes.py")


def unlike(value: float, limit: float, digits: int = 1) -> str:
    """Write a value with so many digits after the point that it reads other than the limit."""
    text = f"{value:.{digits}f}"
    while digits < _MOST_DIGITS and float(text) == limit != value:
        digits += 1
        text = f"{value:.{digits}f}"
    return text
