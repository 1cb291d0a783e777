"""One series of the study as the rules see it: headers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain.arrangement import Arrangement, arrange_frames
from rebrain_node.domain.series import SourceFrame
from rebrain_node.instance.header import frames


@dataclass(frozen=True, kw_only=True)
class Series:
    """All instances of one series, and their frames."""

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[Dataset, ...]
    frames: tuple[SourceFrame, ...]

    @property
    def first(self) -> SourceFrame:
        """A frame to read from what all frames have in common."""
        return self.frames[0]

    @cached_property
    def arrangement(self) -> Arrangement | None:
        """How the slices lie; ``None`` unless each has a place and all are parallel."""
        return arrange_frames(self.frames)

    @property
    def thickness_mm(self) -> float | None:
        """Median nominal thickness; where none is declared, the median step of the slices."""
        declared = [f.slice_thickness_mm for f in self.frames if f.slice_thickness_mm]
        if declared:
            return float(np.median(declared))
        steps = () if self.arrangement is None else self.arrangement.steps_mm
        return float(np.median(steps)) if len(steps) else None

    @property
    def coverage_mm(self) -> float | None:
        """Length of the series along its normal."""
        return None if self.arrangement is None else self.arrangement.coverage_mm

    @property
    def span_mm(self) -> float:
        """From the centre of the first slice to that of the last; 0 where it is not known."""
        steps = () if self.arrangement is None else self.arrangement.steps_mm
        return float(np.sum(steps))

    @property
    def tilt_deg(self) -> float:
        """Gantry tilt, from positions and orientation."""
        return 0.0 if self.arrangement is None else self.arrangement.tilt_deg


def series_of(study: Sequence[Dataset]) -> tuple[Series, ...]:
    """Group instances by study and series, in the order of series number, then UID."""
    groups: dict[tuple[str, str], list[Dataset]] = {}
    for instance in study:
        key = (_uid(instance, "StudyInstanceUID"), _uid(instance, "SeriesInstanceUID"))
        groups.setdefault(key, []).append(instance)
    found = [
        Series(
            study_instance_uid=study_uid,
            series_instance_uid=series_uid,
            instances=tuple(instances),
            frames=frames(instances),
        )
        for (study_uid, series_uid), instances in groups.items()
    ]
    return tuple(sorted(found, key=_order))


def _uid(instance: Dataset, keyword: str) -> str:
    return str(instance.get(keyword) or "")


def _order(series: Series) -> tuple[str, int, str]:
    number = series.frames[0].series_number if series.frames else None
    return series.study_instance_uid, 0 if number is None else number, series.series_instance_uid
