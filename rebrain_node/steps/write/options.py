"""What shapes the objects beside the series itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Companion = Literal["PM", "SEG", "SC", "SR", "KOS"]


@dataclass(frozen=True, kw_only=True)
class AuditAnchor:
    """The last row of the audit log at the time of writing, anchored in the SR."""

    sequence: int  #: gap-less number of the row
    sha256: str  #: hash of the row, chained over all before it, hexadecimal


@dataclass(frozen=True, kw_only=True)
class ObjectOptions:
    """Which objects are written, and how; site settings."""

    mr: Literal["classic", "enhanced"] = "classic"
    companions: tuple[Companion, ...] = ("PM", "SEG", "SC", "SR", "KOS")
    map_precision: Literal["float32", "uint16"] = "float32"
    preview_banner: Literal["none", "border", "full"] = "border"
    #: voxels with a larger expected absolute error (ratio of the display range) are in the SEG
    uncertain_above: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.uncertain_above < 1.0:
            raise ValueError(
                f"uncertain_above is {self.uncertain_above}; it is a ratio of the display range, "
                "give a number between 0 and 1"
            )
