"""What the gates cost: seconds of each, over a series of 33 and one of 400 slices of 512 x 512.

Run: ``python -m tests.benchmarks.gates``. Wanted: at most 2 s for each, 10 s for all together.
Exit code 1 if one is above.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rebrain_node.domain.arrangement import arrange, judge_arrangement
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.check import GATES
from rebrain_node.steps.check.head import judge_head, judge_upright
from rebrain_node.steps.check.hounsfield import judge_scale
from rebrain_node.steps.check.survey import survey
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
    """Measure the seconds of each gate on one series."""
    found: dict[str, float] = {}

    def timed(name: str, gate: Callable[[], object]) -> None:
        begun = time.process_time()
        gate()
        found[name] = time.process_time() - begun

    source = volume(count)
    headers = head_ct(rows=4, columns=4, slice_distances_mm=tuple(np.arange(count) * 0.35))
    timed("selection", lambda: select(headers, LIMITS))
    lie = arrange(source.positions_mm, source.normal, source.thickness_mm)
    timed("geometry", lambda: judge_arrangement(lie, LIMITS.geometry))
    timed("scale", lambda: list(judge_scale(source, LIMITS.hounsfield)))
    begun = time.process_time()
    look = survey(source)
    found["look at the head"] = time.process_time() - begun
    timed("upright", lambda: list(judge_upright(look, LIMITS)))
    timed("head", lambda: list(judge_head(look, LIMITS)))
    for name, gate in GATES.items():
        timed(name, lambda gate=gate: list(gate(source, look, LIMITS)))
    return found


def main() -> int:
    """Print the table; 1 if a gate is dearer than wanted."""
    measured = [costs(count) for count in COUNTS]
    heading = " | ".join(f"{count} slices, s" for count in COUNTS)
    sys.stdout.write(f"| gate | {heading} |\n|---|{'---|' * len(COUNTS)}\n")
    for name in measured[0]:
        sys.stdout.write(f"| {name} | {' | '.join(f'{m[name]:.3f}' for m in measured)} |\n")
    totals = [sum(m.values()) for m in measured]
    sys.stdout.write(f"| all | {' | '.join(f'{total:.3f}' for total in totals)} |\n")
    dear = max(max(m.values()) for m in measured)
    return int(dear > EACH_S or max(totals) > ALL_S)


if __name__ == "__main__":
    raise SystemExit(main())
