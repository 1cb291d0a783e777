"""The guides of a series as the audit log keeps them: how many of each kind, and slice by slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rebrain_node.domain.headframe import HeadFrame
    from rebrain_node.domain.volume import Guide

#: place of each value in a row of the table ``slices``
COLUMNS: Final = (
    "distance_mm",
    "kind",
    "alpha",
    "similarity",
    "exemplar",
    "position_difference_mm",
    "reason",
    "registration",
)


def guidance(
    guides: Sequence[Guide], frame: HeadFrame | None, knowledge_base: str | None
) -> dict[str, Any]:
    """Tell what was decided for every slice, as JSON.

    Parameters
    ----------
    guides : sequence of Guide
        In the order of the slices.
    frame : HeadFrame or None
        Where the series lies; None where nothing is retrieved.
    knowledge_base : str or None
        Digest of the base that was asked.
    """
    reasons = list(dict.fromkeys(guide.reason for guide in guides))
    counts = Counter(guide.kind for guide in guides)
    return {
        "slices_in_all": len(guides),
        "kinds": {kind: counts[kind] for kind in ("measured", "retrieved", "interpolated")},
        "tau": next((guide.tau for guide in guides if guide.tau is not None), None),
        "knowledge_base": knowledge_base,
        "plausibility": None if frame is None else round(frame.plausibility, 4),
        "reasons": reasons,
        "slices": [_row(guide, reasons) for guide in guides],
    }


def exemplars_of(details: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Read (number of the slice, hash of its exemplar) from the details of a ``series.guided``."""
    at = COLUMNS.index("exemplar")
    return [(k, row[at]) for k, row in enumerate(details["slices"]) if row[at] is not None]


def _row(guide: Guide, reasons: Sequence[str]) -> list[Any]:
    return [
        round(guide.target.distance_mm, 3),
        guide.kind,
        round(guide.target.alpha, 4),
        _rounded(guide.similarity),
        guide.exemplar,
        _rounded(guide.position_difference_mm),
        reasons.index(guide.reason),
        None if guide.registration is None else guide.registration.to_json(),
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
