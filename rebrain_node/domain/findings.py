"""Findings: reasons for or against the synthesis of a series, each with a stable code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["refuse", "flag"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason, with the value seen and the limit it was held against."""

    code: str  #: stable, upper case, e.g. ``GEOM-GAP``; documented in docs/refusals.md
    sentence: str  #: one sentence a radiographer understands; no patient data
    severity: Severity = "refuse"  #: ``flag`` publishes with the finding written into the objects
    value: float | str | None = None  #: what was seen
    limit: float | str | None = None  #: what it was held against
