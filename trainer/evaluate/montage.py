"""Images of one subject: source, every method, the real MR, and the error of each method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from rebrain_node.pictures import Picture, UprightVolume
from trainer.data.dataset import Volume
from trainer.evaluate.plots import FAINT, Plot, blank_figure, png
from trainer.evaluate.results import Montage
from trainer.release.card import OURS

_PICTURES: Final = 3
_COLUMNS: Final = 2
_FALLBACK_MM: Final = 1.0  # square pixels where the size is not known
#: the error shown palest, as a ratio of the display range; one for all reports
_LARGEST: Final = 0.5
_SPREAD: Final = (0.3, 0.5, 0.7)
_SHADE: Final = ("gray", 0.0, 1.0)


@dataclass(frozen=True)
class _Cut:
    """One plane and the words above it."""

    view: Literal["axial", "coronal", "sagittal"]
    index: int
    words: str


class Planes:
    """The three planes of a subject that its images show, cropped to the head."""

    def __init__(self, shown: Montage, *, volumetric: bool) -> None:
        rows, columns = shown.pixel_mm or (_FALLBACK_MM, _FALLBACK_MM)
        gaps = np.diff(shown.positions_mm)
        spacing = float(np.median(gaps)) if volumetric and len(gaps) else _FALLBACK_MM
        self._size_mm = (spacing, rows, columns)
        self._box = _box(shown.mask)
        mask = shown.mask[self._box]
        self.cuts = _volume_cuts(shown, mask) if volumetric else _slice_cuts(shown, mask)

    def of(self, volume: npt.NDArray[Any]) -> list[Picture]:
        """Cut a volume of the subject; every volume gives planes of the same size."""
        upright = UprightVolume(np.asarray(volume[self._box], dtype=np.float32), self._size_mm)
        made = {"axial": upright.axial, "coronal": upright.coronal, "sagittal": upright.sagittal}
        return [made[cut.view](cut.index) for cut in self.cuts]


def montage(shown: Montage, source_kind: str, *, volumetric: bool) -> Plot:
    """Show the source, the real MR and every method, three planes of each."""
    planes = Planes(shown, volumetric=volumetric)
    strips = {
        f"source ({_source_words(source_kind)})": shown.source,
        "the real MR": shown.reference,
    } | _ordered(shown.predictions)
    picture = _strips(strips, planes, _SHADE, "")
    kinds = "three planes" if volumetric else "three slices"
    return Plot(
        "montage",
        f"One subject: {shown.subject}",
        f"Subject {shown.subject}, {kinds} of each. MR images on one scale, fixed from the real "
        "MR: black at its 0.5th percentile in the head, white at its 99.5th.",
        picture,
    )


def bundles_beside(shown: Montage, *, truth: bool) -> bytes:
    """Show one subject as CT, as synthesised by every bundle and, with `truth`, as it is (PNG)."""
    strips = {"CT": shown.source, **shown.predictions}
    if truth:
        strips["true T1"] = shown.reference
    return _strips(strips, Planes(shown, volumetric=True), _SHADE, "")


def error_maps(shown: Montage, *, volumetric: bool) -> Plot:
    """Show |method - real MR| in the head for every method, all on one stated range."""
    planes = Planes(shown, volumetric=volumetric)
    errors = {
        name: np.where(shown.mask, np.abs(volume - shown.reference), 0).astype(np.float32)
        for name, volume in _ordered(shown.predictions).items()
    }
    words = "absolute error, as a ratio of the display range of the real MR"
    return Plot(
        "errors",
        "Where each method errs",
        f"Subject {shown.subject}, the same planes. |method - real MR| inside the head mask, from "
        f"0 (black) to {_LARGEST:g} (pale) of the display range of the real MR; larger errors are "
        "shown as that. The range is the same in every report.",
        _strips(errors, planes, ("magma", 0.0, _LARGEST), words),
    )


def _ordered(predictions: Mapping[str, Volume]) -> dict[str, Volume]:
    return {name: predictions[name] for name in sorted(predictions, key=lambda n: n != OURS)}


def _strips(
    strips: Mapping[str, Volume],
    planes: Planes,
    shade: tuple[str, float, float],
    bar_words: str,
) -> bytes:
    """Lay strips of three pictures out in two columns, a colour bar below where it has words."""
    cut = {name: planes.of(volume) for name, volume in strips.items()}
    first = next(iter(cut.values()))
    widths = [picture.width_mm for picture in first]
    tallest = max(picture.height_mm for picture in first)
    rows = math.ceil(len(cut) / _COLUMNS)
    strip_height = 5.4 * tallest / sum(widths)
    bar_height = 0.75 if bar_words else 0.05
    with blank_figure(rows * (strip_height + 0.45) + bar_height) as figure:
        heights = (rows * (strip_height + 0.45), bar_height)
        room, foot = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        grid = room.subfigures(rows, _COLUMNS, squeeze=False, wspace=0.02, hspace=0.0)
        image = None
        for (name, pictures), part in zip(cut.items(), grid.flat, strict=False):
            part.suptitle(name, fontsize=11, fontweight="bold" if name == OURS else "normal")
            for panel, picture, plane in zip(
                part.subplots(1, _PICTURES, width_ratios=widths), pictures, planes.cuts, strict=True
            ):
                image = _panel(panel, picture, plane, shade)
        if bar_words:
            _bar(foot, image, bar_words)
        return png(figure)


def _panel(panel: Any, picture: Picture, plane: _Cut, shade: tuple[str, float, float]) -> Any:
    colours, low, high = shade
    image = panel.imshow(
        picture.values,
        cmap=colours,
        vmin=low,
        vmax=high,
        interpolation="bilinear",
        extent=(0, picture.width_mm, picture.height_mm, 0),
    )
    panel.set_axis_off()
    panel.set_title(plane.words, fontsize=8.5, color=FAINT, pad=3)
    return image


def _bar(foot: Any, image: Any, words: str) -> None:
    area = foot.add_axes((0.25, 0.62, 0.5, 0.22))
    bar = foot.colorbar(image, cax=area, orientation="horizontal", extend="max")
    bar.set_label(words, fontsize=9)


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """All slices, and the rows and columns of the head with a margin of four pixels."""
    held = [np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1))]
    row, column = (
        slice(max(int(h[0]) - 4, 0), int(h[-1]) + 5) if len(h) else slice(None) for h in held
    )
    return slice(None), row, column


def _volume_cuts(shown: Montage, mask: npt.NDArray[np.bool_]) -> tuple[_Cut, ...]:
    areas = mask.sum(axis=(1, 2))
    held = np.flatnonzero(areas >= 0.3 * areas.max())
    wanted = int(held[int(0.6 * (len(held) - 1))])
    filled = np.flatnonzero(~np.asarray(shown.measured))
    axial = int(filled[np.abs(filled - wanted).argmin()]) if len(filled) else wanted
    words = "axial, filled position" if len(filled) else "axial, measured position"
    row, column = mask.shape[1] // 2, int(mask.shape[2] * 0.46)
    return (
        _Cut("axial", axial, words),
        _Cut("coronal", row, "coronal"),
        _Cut("sagittal", column, "sagittal"),
    )


def _slice_cuts(shown: Montage, mask: npt.NDArray[np.bool_]) -> tuple[_Cut, ...]:
    chosen = [round(share * (len(mask) - 1)) for share in _SPREAD]
    return tuple(_Cut("axial", index, f"slice {shown.positions_mm[index]:g}") for index in chosen)


def _source_words(kind: str) -> str:
    return {"ct": "CT", "ct-window": "CT, brain window", "mr": "MR"}.get(kind, kind)
