"""CRANIECTOMY: an opening of the vault (hazard H9)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import MillimetreArray
from rebrain_node.steps.check.survey import Survey


def judge_opening(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find a gap of the vault that is wide and high."""
    height = opening_height_mm(survey, limits.head.opening_mm)
    if height > limits.head.opening_height_mm:
        yield Finding(
            code="CRANIECTOMY",
            sentence=(
                f"the vault has an opening wider than {limits.head.opening_mm:g} mm over "
                f"{height:.0f} mm of height, at most {limits.head.opening_height_mm:g} mm are "
                "accepted: part of the skull was removed"
            ),
            severity=limits.severity("CRANIECTOMY"),
            value=round(height, 1),
            limit=limits.head.opening_height_mm,
        )


def opening_height_mm(survey: Survey, width_mm: float) -> float:
    """Return the greatest unbroken height over which the widest gap exceeds ``width_mm``."""
    greatest = height = 0.0
    for k, gap in zip(survey.vault, gaps_mm(survey), strict=True):
        height = height + float(survey.heights_mm[k]) if gap > width_mm else 0.0
        greatest = max(greatest, height)
    return greatest


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
