"""A histogram as a picture and a table, for the pages of a period."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rebrain_node.report.markup import Html, join, table, tag

_BARS: Final = 25
_HEIGHT: Final = 100


def histogram(values: Sequence[float], step: float, name: str) -> Html:
    """Draw how many values lie in each step from 0; the last bar holds all above."""
    counts = Counter(min(int(value / step), _BARS - 1) for value in values)
    largest = max(counts.values())
    bars = [
        tag("rect", x=40 * k + 2, y=round(_HEIGHT * (1 - count / largest)), width=36,
            height=round(_HEIGHT * count / largest))
        for k, count in sorted(counts.items())
    ]  # fmt: skip
    picture = tag("svg", *bars, viewBox=f"0 0 {40 * _BARS} {_HEIGHT}", preserveAspectRatio="none",
                  class_="histogram")  # fmt: skip
    ends = tag("p", f"From 0 on the left to {step * _BARS:g} on the right.", class_="faint")
    rows = [
        (f"{step * k:.2f} to {step * (k + 1):.2f}", count) for k, count in sorted(counts.items())
    ]
    return join(picture, ends, table((name, "results"), rows))
