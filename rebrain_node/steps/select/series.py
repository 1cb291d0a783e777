"""One series of the study as the rules see it: headers only; and what its kernel is made for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain.arrangement import Arrangement, arrange_frames
from rebrain_node.domain.contrast import ContrastReading, strongest
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.image_type import ImageTypeReading, is_original, read_image_type
from rebrain_node.domain.limits import GeometryLimits, KernelRule, Limits
from rebrain_node.domain.passes import slices_to_use
from rebrain_node.domain.series import SourceFrame
from rebrain_node.instance.header import axial_instances, frames

KernelKind = Literal["soft", "bone", "unknown"]

#: longer names are not looked at: (0018,1210) is a Short String, at most 16 characters
_LONGEST = 16


@dataclass(frozen=True, kw_only=True)
class Series:
    """All instances of one series, and those of their frames that are used."""

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[Dataset, ...]
    axial_instances: tuple[Dataset, ...]  #: without the scouts among slices
    listed: tuple[SourceFrame, ...]  #: all frames of `axial_instances`
    frames: tuple[SourceFrame, ...]  #: those of them that are used
    passes: tuple[Finding, ...] = ()  #: what `slices_to_use` found

    @property
    def first(self) -> SourceFrame:
        """A frame to read from what all frames have in common."""
        return self.frames[0]

    @cached_property
    def arrangement(self) -> Arrangement | None:
        """How the slices lie; ``None`` unless each has a place and all are parallel."""
        return arrange_frames(self.frames)

    @cached_property
    def contrast(self) -> ContrastReading:
        """What says most of all frames that contrast was given."""
        return strongest([frame.contrast for frame in self.frames])

    @cached_property
    def image_type(self) -> ImageTypeReading | None:
        """The first kind named by Image Type that is no plain slice in HU."""
        kinds = (
            read_image_type((*_two(f.image_type), f.volume_calculation or "")) for f in self.frames
        )
        return next((kind for kind in kinds if kind is not None), None)

    def kernel_kind(self, limits: Limits) -> KernelKind:
        """The sharpest kind among the kernels of the frames; unknown before soft."""
        kinds = {
            kernel_kind(f.manufacturer, f.convolution_kernel, limits.kernels) for f in self.frames
        }
        sharpest: tuple[KernelKind, ...] = ("bone", "unknown", "soft")
        return next(kind for kind in sharpest if kind in kinds)

    @property
    def original(self) -> bool:
        """Whether each image is an acquired slice."""
        return all(is_original(frame.image_type) for frame in self.frames)

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


def _two(values: tuple[str, ...]) -> tuple[str, ...]:
    """Values 1 and 2, empty where absent, and the values after them."""
    return (*values, *("",) * (2 - len(values)))


def series_of(study: Sequence[Dataset], limits: GeometryLimits) -> tuple[Series, ...]:
    """Group instances by study and series, in the order of series number, then UID."""
    groups: dict[tuple[str, str], list[Dataset]] = {}
    for instance in study:
        key = (_uid(instance, "StudyInstanceUID"), _uid(instance, "SeriesInstanceUID"))
        groups.setdefault(key, []).append(instance)
    found = []
    for (study_uid, series_uid), instances in groups.items():
        axial = axial_instances(instances)
        listed = frames(axial)
        used = slices_to_use(listed, limits)
        found.append(
            Series(
                study_instance_uid=study_uid,
                series_instance_uid=series_uid,
                instances=tuple(instances),
                axial_instances=axial,
                listed=listed,
                frames=used.frames,
                passes=used.findings,
            )
        )
    return tuple(sorted(found, key=_order))


def _uid(instance: Dataset, keyword: str) -> str:
    return str(instance.get(keyword) or "")


def _order(series: Series) -> tuple[str, int, str]:
    number = series.frames[0].series_number if series.frames else None
    return series.study_instance_uid, 0 if number is None else number, series.series_instance_uid


def kernel_kind(
    manufacturer: str | None, kernel: str | None, rules: Sequence[KernelRule]
) -> KernelKind:
    """Classify Convolution Kernel (0018,1210) by the rules of its vendor.

    Parameters
    ----------
    manufacturer : str or None
        (0008,0070) as received.
    kernel : str or None
        The values joined by a backslash; the first counts. Siemens adds the strength of the
        iterative reconstruction as a second one.
    rules : sequence of KernelRule
        In order; the first whose vendor fits and that knows the kernel decides.
    """
    name = (kernel or "").split("\\")[0].strip().upper()[:_LONGEST]
    vendor = (manufacturer or "").strip().upper()
    if not name:
        return "unknown"
    for rule in rules:
        if not vendor.startswith(rule.vendors):
            continue
        if any(re.fullmatch(pattern, name) for pattern in rule.bone):
            return "bone"
        if any(re.fullmatch(pattern, name) for pattern in rule.soft):
            return "soft"
    return "unknown"
