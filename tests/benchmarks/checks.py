"""What the checks cost: seconds of each, over a series of 33 and one of 400 slices of 512 x 512.

Run: ``python -m tests.benchmarks.checks``. Wanted: at most 2 s for each, 10 s for all together.
Exit code 1 if one is above.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rebrain_node.domain.volume import SourceVolume
from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.check import BASIC_CHECKS, HEAD_CHECKS, PRECONDITIONS
from rebrain_node.steps.check.survey import Survey
from rebrain_node.steps.select import select
from tests.support.phantom_conditions import changed
from tests.support.phantoms import head_ct

LIMITS = shipped_limits()
EACH_S, ALL_S = 2.0, 10.0
COUNTS = (33, 400)


def volume(count: int) -> SourceVolume:
    """Make a head of ``count`` slices of 512 x 512, 140 mm high."""
    places = tuple(np.linspace(-60.0, 80.0, count))
    coarse = changed(
        rows=128, columns=128, pixel_spacing_mm=(1.9, 1.9), slice_distances_mm=places,
        slice_thickness_mm=140.0 / count, noise_hu=3.0,
    )  # fmt: skip
    fine = coarse.hu.repeat(4, axis=1).repeat(4, axis=2)
    padding = np.zeros(fine.shape, dtype=bool)
    return replace(coarse, hu=fine, padding=padding, pixel_spacing_mm=(0.475, 0.475))


def costs(count: int) -> dict[str, float]:
    """Measure the seconds of each check on one series."""
    found: dict[str, float] = {}

    def timed(name: str, check: Callable[[], object]) -> None:
        begun = time.process_time()
        check()
        found[name] = time.process_time() - begun

    source = volume(count)
    headers = head_ct(rows=4, columns=4, slice_distances_mm=tuple(np.arange(count) * 0.35))
    timed("selection", lambda: select(headers, LIMITS))
    survey = Survey(source)
    timed("survey of the head", lambda: survey.head)
    for check in (*BASIC_CHECKS, *PRECONDITIONS, *HEAD_CHECKS):
        timed(check.__name__, lambda check=check: list(check(survey, LIMITS)))
    return found


def main() -> int:
    """Print the table; 1 if a check takes longer than wanted."""
    measured = [costs(count) for count in COUNTS]
    heading = " | ".join(f"{count} slices, s" for count in COUNTS)
    sys.stdout.write(f"| check | {heading} |\n|---|{'---|' * len(COUNTS)}\n")
    for name in measured[0]:
        sys.stdout.write(f"| {name} | {' | '.join(f'{m[name]:.3f}' for m in measured)} |\n")
    totals = [sum(m.values()) for m in measured]
    sys.stdout.write(f"| all | {' | '.join(f'{total:.3f}' for total in totals)} |\n")
    dear = max(max(m.values()) for m in measured)
    return int(dear > EACH_S or max(totals) > ALL_S)


if __name__ == "__main__":
    raise SystemExit(main())
