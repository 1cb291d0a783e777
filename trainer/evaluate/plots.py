"""Figures of numbers: by subject, power spectra, image error against iterations.

matplotlib is used without its global state and gives the same bytes each time.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.evaluate.results import Montage, Scores, Statistic, metrics_of
from trainer.evaluate.spectrum import radial_spectrum
from trainer.evaluate.tables import PAIRS, metric
from trainer.release.card import OURS

WIDTH_INCH: Final = 11.2
DOTS_PER_INCH: Final = 120
INK: Final = "#1b222c"
FAINT: Final = "#66717f"
OUR_COLOUR: Final = "#d55e00"
#: Okabe and Ito's, apart to colour-blind eyes, without the vermilion of our own method
_OTHERS: Final = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5195", "#8a8f98")
_DASHES: Final = ("-", "--", ":", "-.")
_RC_PARAMS: Final[dict[str, Any]] = {
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
class Plot:
    """One finished figure of a report."""

    name: str  #: of its file, without the ending
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class LineStyle:
    """Colour, dashes and width of the line of one method."""

    colour: str
    dashes: str
    width: float


@contextmanager
def blank_figure(height_inch: float) -> Iterator[Figure]:
    """Yield an empty figure of the report's width and style."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC_PARAMS)
        figure = Figure((WIDTH_INCH, height_inch), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, without a date or the version of a program."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def line_styles(methods: Sequence[str]) -> dict[str, LineStyle]:
    """Return a line style for each method; the widest for `rebrain`."""
    made = {OURS: LineStyle(OUR_COLOUR, "-", 2.4)} if OURS in methods else {}
    others = [method for method in methods if method != OURS]
    for number, method in enumerate(others):
        turn, colour = divmod(number, len(_OTHERS))
        made[method] = LineStyle(_OTHERS[colour], _DASHES[turn % len(_DASHES)], 1.4)
    return made


_RUN: Final = ("data", "objective", "seed")  # the columns that distinguish runs


@dataclass(frozen=True)
class Curve:
    """What one run scored at which step; `figures` by metric, as long as `steps`."""

    steps: tuple[int, ...]
    figures: Mapping[str, tuple[float, ...]]


def read_curves(path: Path) -> dict[str, Curve]:
    """Read the runs of a CSV, e.g. of `curves.csv` of `rebrain-train compare-objectives`.

    The columns are `step`, any of `data`, `objective` and `seed`, and columns named like metrics;
    other columns, as losses, are ignored. A step that was not scored is passed over.

    Raises
    ------
    ValueError
        There is no column `step`, or no column of a metric, or a value is no number.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or ()
        names = [name for name in columns if metric(name).meaning]
        if "step" not in columns or not names:
            raise ValueError(
                f"{path} has the columns {', '.join(columns) or 'none'}; needed are step and at "
                "least one metric, e.g. psnr"
            )
        runs: dict[str, list[dict[str, str]]] = {}
        for row in reader:
            if all(row[name] for name in names):
                runs.setdefault(_name(row, path), []).append(row)
    try:
        return {run: _curve(rows, names) for run, rows in runs.items()}
    except ValueError as wrong:
        raise ValueError(f"{path}: {wrong}") from wrong


def _name(row: Mapping[str, str], path: Path) -> str:
    parts = [f"seed {row[key]}" if key == "seed" else row[key] for key in _RUN if row.get(key)]
    return ", ".join(parts) or path.stem


def _curve(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> Curve:
    return Curve(
        tuple(int(row["step"]) for row in rows),
        {name: tuple(float(row[name]) for row in rows) for name in names},
    )


_PAIRS_SHOWN: Final = (*PAIRS, "ssim_brain", "spectrum_error")
_VOLUMES_SHOWN: Final = ("psnr", "ssim", "nrmse", "mae", "i_ssim_gap", "spectrum_error")
_ACROSS: Final = 3
_LOWEST_FREQUENCY: Final = 0.004


def points(scores: Scores) -> Plot | None:
    """Plot every subject as a point, the mean and its interval over them, by method."""
    held = metrics_of(scores)
    wanted = _PAIRS_SHOWN if PAIRS[0] in held else _VOLUMES_SHOWN
    shown = [name for name in wanted if name in held]
    if not shown:
        return None
    methods = list(scores)
    colours = line_styles(methods)
    rows = math.ceil(len(shown) / _ACROSS)
    with blank_figure(rows * (0.9 + 0.3 * len(methods))) as figure:
        across = min(len(shown), _ACROSS)
        panels = figure.subplots(rows, across, squeeze=False, sharey=True)
        for name, panel in zip(shown, panels.flat, strict=False):
            panel.set_title(metric(name).heading.replace("↑", "→").replace("↓", "←"))
            panel.set_yticks(range(len(methods)), methods)
            panel.set_ylim(len(methods) - 0.5, -0.5)
            panel.grid(axis="x", color="#dde2e8", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.tick_params(axis="y", length=0)
            for row, method in enumerate(methods):
                if name in scores[method]:
                    _row(panel, row, scores[method][name], colours[method])
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        for label in [text for panel in panels[:, 0] for text in panel.get_yticklabels()]:
            label.set_fontweight("bold" if label.get_text() == OURS else "normal")
        picture = png(figure)
    return Plot(
        "points",
        "Every subject",
        "Small points: one subject each. Large point and bar: the mean and its 95 % bootstrap "
        "interval over subjects. Arrows point to the better end.",
        picture,
    )


def _row(panel: Any, row: int, statistic: Statistic, style: LineStyle) -> None:
    values = list(statistic.per_subject.values())
    offsets = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
    panel.plot(values, row + np.asarray(offsets), ".", color=FAINT, alpha=0.55, markersize=4)
    if not math.isnan(statistic.low):
        panel.plot([statistic.low, statistic.high], [row] * 2, color=style.colour, linewidth=2.6)
    panel.plot([statistic.mean], [row], "o", color=style.colour, markersize=6.5)


def spectrum(shown: Montage) -> Plot:
    """Plot the radial power spectrum of the real MR and of every method, and their ratio."""
    mask = shown.mask
    frequency, truth = radial_spectrum(shown.reference, mask)
    kept = (frequency > _LOWEST_FREQUENCY) & (truth > 0)
    colours = line_styles(sorted(shown.predictions, key=lambda name: name != OURS))
    with blank_figure(4.6) as figure:
        power, ratio = figure.subplots(1, 2)
        power.semilogy(frequency[kept], truth[kept], color=INK, linewidth=2, label="the real MR")
        ratio.axhline(0, color=INK, linewidth=2)
        for name, line in colours.items():
            _, own = radial_spectrum(shown.predictions[name], mask)
            level = np.maximum(own[kept], truth[kept].max() * 1e-9)
            style = {"color": line.colour, "linestyle": line.dashes, "linewidth": line.width,
                     "zorder": 2 + line.width}  # fmt: skip
            power.semilogy(frequency[kept], level, label=name, **style)
            ratio.plot(frequency[kept], 10 * np.log10(level / truth[kept]), **style)
        low = float(truth[kept].min())
        power.set_ylim(low / 30, float(truth[kept].max()) * 3)
        ratio.set_ylim(-22, 12)
        power.set_title("power")
        ratio.set_title("power against the real MR, dB")
        for panel in (power, ratio):
            panel.set_xlabel("frequency, cycles per pixel")
            panel.grid(color="#dde2e8", linewidth=0.6)
        figure.legend(loc="outside right center", fontsize=9)
        picture = png(figure)
    return Plot(
        "spectrum",
        "Radial power spectrum",
        f"Subject {shown.subject}, in-plane, mean over slices, head mask only. Below 0 dB on the "
        "right a method is smoother than the real MR, above it is rougher; curves that leave the "
        "frame are cut at -22 and 12 dB.",
        picture,
    )


def learning(curves: Mapping[str, Curve]) -> tuple[Plot, ...]:
    """Plot image error against iterations, one panel for each figure the curves hold."""
    shown = list(dict.fromkeys(name for curve in curves.values() for name in curve.figures))
    if not shown:
        return ()
    rows = math.ceil(len(shown) / _ACROSS)
    colours = line_styles(list(curves))
    with blank_figure(0.4 + 3.2 * rows) as figure:
        across = min(len(shown), _ACROSS)
        panels = figure.subplots(rows, across, squeeze=False)
        for name, panel in zip(shown, panels.flat, strict=False):
            _learning_panel(panel, name, curves, colours)
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        figure.legend(
            *panels.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=4
        )
        picture = png(figure)
    plot = Plot(
        "iterations",
        "Image error against iterations",
        "Every run is scored on the same images during training. Losses of different objectives "
        "are not comparable and are not shown.",
        picture,
    )
    return (plot,)


def _learning_panel(
    panel: Any, name: str, curves: Mapping[str, Curve], colours: Mapping[str, LineStyle]
) -> None:
    for run, curve in curves.items():
        if name in curve.figures:
            line = colours[run]
            panel.plot(
                curve.steps, curve.figures[name], marker=".", color=line.colour, label=run,
                linestyle=line.dashes, linewidth=line.width,
            )  # fmt: skip
    panel.set_title(metric(name).heading, color=INK)
    panel.set_xlabel("iterations")
    panel.grid(color="#dde2e8", linewidth=0.6)
