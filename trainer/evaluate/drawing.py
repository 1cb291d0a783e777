"""Paper and pens of the figures: matplotlib without its global state, the same bytes each time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.evaluate.scores import OURS

WIDTH_INCH: Final = 11.2
DOTS_PER_INCH: Final = 120
INK: Final = "#1b222c"
FAINT: Final = "#66717f"
OUR_COLOUR: Final = "#d55e00"
#: Okabe and Ito's, apart to colour-blind eyes, without the vermilion of our own method
_OTHERS: Final = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5195", "#8a8f98")
_DASHES: Final = ("-", "--", ":", "-.")
_LOOK: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "normal",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Plate:
    """One finished figure of a report."""

    name: str  #: of its file, without the ending
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Pen:
    """How the line of one method is drawn."""

    colour: str
    dashes: str
    width: float


@contextmanager
def sheet(height_inch: float) -> Iterator[Figure]:
    """Lend an empty sheet of the report's width, in the report's look."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        drawn = Figure((WIDTH_INCH, height_inch), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn


def png(drawn: Figure) -> bytes:
    """Finish a sheet; no date and no version of any program goes into the file."""
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def pens(methods: Sequence[str]) -> dict[str, Pen]:
    """Give every method its own pen; ours is the heavy one."""
    made = {OURS: Pen(OUR_COLOUR, "-", 2.4)} if OURS in methods else {}
    others = [method for method in methods if method != OURS]
    for place, method in enumerate(others):
        turn, colour = divmod(place, len(_OTHERS))
        made[method] = Pen(_OTHERS[colour], _DASHES[turn % len(_DASHES)], 1.4)
    return made
