"""Figures of numbers: points by subject, power spectra, image error against iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from trainer.evaluate.curves import Curve
from trainer.evaluate.drawing import FAINT, INK, Pen, Plate, pens, png, sheet
from trainer.evaluate.evaluation import Montage
from trainer.evaluate.metrics import radial_spectrum
from trainer.evaluate.scores import OURS, Scores, Statistic, metrics_of
from trainer.evaluate.tables import PAIRS
from trainer.evaluate.vocabulary import metric

_PAIRS_SHOWN: Final = (*PAIRS, "ssim_brain", "spectrum_error")
_VOLUMES_SHOWN: Final = ("psnr", "ssim", "nrmse", "mae", "i_ssim_gap", "spectrum_error")
_ACROSS: Final = 3
_LOWEST_FREQUENCY: Final = 0.004


def points(scores: Scores) -> Plate | None:
    """Draw every subject as a point, the mean and its interval over them, by method."""
    held = metrics_of(scores)
    wanted = _PAIRS_SHOWN if PAIRS[0] in held else _VOLUMES_SHOWN
    shown = [name for name in wanted if name in held]
    if not shown:
        return None
    methods = list(scores)
    colours = pens(methods)
    rows = math.ceil(len(shown) / _ACROSS)
    with sheet(rows * (0.9 + 0.3 * len(methods))) as drawn:
        across = min(len(shown), _ACROSS)
        panels = drawn.subplots(rows, across, squeeze=False, sharey=True)
        for name, panel in zip(shown, panels.flat, strict=False):
            panel.set_title(metric(name).heading.replace("↑", "→").replace("↓", "←"))
            panel.set_yticks(range(len(methods)), methods)
            panel.set_ylim(len(methods) - 0.5, -0.5)
            panel.grid(axis="x", color="#dde2e8", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.tick_params(axis="y", length=0)
            for place, method in enumerate(methods):
                if name in scores[method]:
                    _row(panel, place, scores[method][name], colours[method])
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        for label in [text for panel in panels[:, 0] for text in panel.get_yticklabels()]:
            label.set_fontweight("bold" if label.get_text() == OURS else "normal")
        picture = png(drawn)
    return Plate(
        "points",
        "Every subject",
        "Small points: one subject each. Large point and bar: the mean and its 95 % bootstrap "
        "interval over subjects. Arrows point to the better end.",
        picture,
    )


def _row(panel: Any, place: int, statistic: Statistic, pen: Pen) -> None:
    values = list(statistic.per_subject.values())
    offsets = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
    panel.plot(values, place + np.asarray(offsets), ".", color=FAINT, alpha=0.55, markersize=4)
    if not math.isnan(statistic.low):
        panel.plot([statistic.low, statistic.high], [place] * 2, color=pen.colour, linewidth=2.6)
    panel.plot([statistic.mean], [place], "o", color=pen.colour, markersize=6.5)


def spectrum(shown: Montage) -> Plate:
    """Draw the radial power spectrum of the real MR and of every method, and their ratio."""
    mask = shown.mask
    frequency, truth = radial_spectrum(shown.reference, mask)
    kept = (frequency > _LOWEST_FREQUENCY) & (truth > 0)
    colours = pens(sorted(shown.predictions, key=lambda name: name != OURS))
    with sheet(4.6) as drawn:
        power, ratio = drawn.subplots(1, 2)
        power.semilogy(frequency[kept], truth[kept], color=INK, linewidth=2, label="the real MR")
        ratio.axhline(0, color=INK, linewidth=2)
        for name, pen in colours.items():
            _, own = radial_spectrum(shown.predictions[name], mask)
            level = np.maximum(own[kept], truth[kept].max() * 1e-9)
            style = {
                "color": pen.colour,
                "linestyle": pen.dashes,
                "linewidth": pen.width,
                "zorder": 2 + pen.width,
            }
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
        drawn.legend(loc="outside right center", fontsize=9)
        picture = png(drawn)
    return Plate(
        "spectrum",
        "Radial power spectrum",
        f"Subject {shown.subject}, in-plane, mean over slices, head mask only. Below 0 dB on the "
        "right a method is smoother than the real MR, above it is rougher; curves that leave the "
        "frame are cut at -22 and 12 dB.",
        picture,
    )


def learning(curves: Mapping[str, Curve]) -> tuple[Plate, ...]:
    """Draw image error against iterations, one panel for each figure the curves hold."""
    shown = list(dict.fromkeys(name for curve in curves.values() for name in curve.figures))
    if not shown:
        return ()
    rows = math.ceil(len(shown) / _ACROSS)
    colours = pens(list(curves))
    with sheet(0.4 + 3.2 * rows) as drawn:
        across = min(len(shown), _ACROSS)
        panels = drawn.subplots(rows, across, squeeze=False)
        for name, panel in zip(shown, panels.flat, strict=False):
            _learning_panel(panel, name, curves, colours)
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        drawn.legend(
            *panels.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=4
        )
        picture = png(drawn)
    plate = Plate(
        "iterations",
        "Image error against iterations",
        "Every run scored on the same images while it learned. Losses of different objectives do "
        "not compare and are not shown.",
        picture,
    )
    return (plate,)


def _learning_panel(
    panel: Any, name: str, curves: Mapping[str, Curve], colours: Mapping[str, Pen]
) -> None:
    for run, curve in curves.items():
        if name in curve.figures:
            pen = colours[run]
            panel.plot(
                curve.steps, curve.figures[name], marker=".", color=pen.colour, label=run,
                linestyle=pen.dashes, linewidth=pen.width,
            )  # fmt: skip
    panel.set_title(metric(name).heading, color=INK)
    panel.set_xlabel("iterations")
    panel.grid(color="#dde2e8", linewidth=0.6)
