"""CRANIECTOMY: an opening of the vault (hazard H9)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import MillimetreArray
from rebrain_node.steps.check.survey import Survey

#: a slice without any bone counts as a gap of half a head
_WIDEST_MM = 250.0


def judge_opening(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find an opening of the vault."""
    area, most = opening_cm2(survey, limits.head.opening_mm), limits.head.opening_cm2
    if area > most:
        yield Finding(
            code="CRANIECTOMY",
            sentence=(
                f"the vault has openings of {area:.1f} cm2 that are wider than "
                f"{limits.head.opening_mm:g} mm, at most {most:g} cm2 are accepted: part of the "
                "skull was removed"
            ),
            severity=limits.severity("CRANIECTOMY"),
            value=round(area, 2),
            limit=most,
        )


def opening_cm2(survey: Survey, width_mm: float) -> float:
    """Return the area of the gaps of the vault that are wider than ``width_mm``."""
    gaps = np.minimum(gaps_mm(survey), _WIDEST_MM)
    return float(gaps[gaps > width_mm] @ survey.heights_mm[survey.vault][gaps > width_mm]) / 100.0


def gaps_mm(survey: Survey) -> MillimetreArray:
    """Return the widest gap of the skull along its circumference, for each slice of the vault."""
    return np.array([_gap_mm(survey.outer_mm[k]) for k in survey.vault])


def _gap_mm(outer_mm: MillimetreArray) -> float:
    missing = ~np.isfinite(outer_mm)
    if missing.all():
        return np.inf
    radius = float(np.nanmedian(outer_mm))
    return _longest_run(missing) * 2.0 * np.pi * radius / len(outer_mm)


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    """Return the length of the longest run of true values on a circle that is not all true."""
    breaks = np.flatnonzero(~np.concatenate([flags, flags]))
    return int(np.max(np.diff(breaks), initial=1)) - 1
