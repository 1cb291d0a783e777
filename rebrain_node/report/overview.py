"""The picture of a result: source, synthetic MR, uncertainty and the origin of each slice."""

from __future__ import annotations

import io
from collections import Counter
from typing import Final

import numpy as np
from PIL import Image

from rebrain_node.domain.volume import FloatArray, MaskArray, SyntheticVolume
from rebrain_node.pictures import (
    FAINT,
    HEAT,
    INK,
    KINDS,
    LINE,
    WARNING,
    Box,
    Canvas,
    Colour,
    Picture,
    Pixels,
    UprightVolume,
    as_measured,
    colour_map,
    grey,
)

WIDTH: Final = 1400
MARGIN: Final = 40
GAP: Final = 15
AXIAL_COUNT: Final = 5
BANNER: Final = "SYNTHETIC - not for diagnosis"
#: the brain window of CT, centre 40, width 80 HU
CT_LOW_HU: Final = 0.0
CT_HIGH_HU: Final = 80.0
#: the axial slices shown lie between these shares of the head's height
_LOWEST, _HIGHEST = 0.12, 0.88
_INNER: Final = WIDTH - 2 * MARGIN
_DARK: Final[Colour] = (30, 20, 2)


def overview(synthetic: SyntheticVolume, caption: str) -> bytes:
    """Draw source and result on one sheet.

    Parameters
    ----------
    synthetic : SyntheticVolume
        With the prepared source it was made from.
    caption : str
        One line below the title, e.g. series, model and engine; no patient data.

    Returns
    -------
    bytes
        A PNG, 1400 pixels wide.
    """
    sheet = _Sheet(synthetic)
    return sheet.draw(caption)


class _Sheet:
    """The layout, from top to bottom; each part returns the row at which the next begins."""

    def __init__(self, synthetic: SyntheticVolume) -> None:
        prepared = synthetic.prepared
        upended = synthetic.grid.normal[2] < 0
        self.guides = synthetic.guides[::-1] if upended else synthetic.guides
        self.spacing_mm = prepared.spacing_mm
        self.measured_count = len(prepared.distances_mm)
        thick = as_measured(
            prepared.hu,
            np.asarray(prepared.distances_mm, dtype=np.float32),
            len(self.guides),
            self.spacing_mm,
        )
        self.ct = self._upright(synthetic, thick)
        self.mr = self._upright(synthetic, synthetic.intensity)
        self.map = self._upright(synthetic, synthetic.uncertainty * synthetic.head)
        self.head = self._upright(synthetic, synthetic.head.astype(np.float32))
        self.white = _bright(synthetic.intensity, synthetic.head)
        self.largest = _bright(synthetic.uncertainty, synthetic.head)
        self.meaning = synthetic.meaning

    def draw(self, caption: str) -> bytes:
        axial_width = (_INNER - (AXIAL_COUNT - 1) * GAP) // AXIAL_COUNT
        first = self.mr.axial(0)
        axial_height = round(axial_width * first.height_mm / first.width_mm)
        across_height = self._across_height()
        height = 108 + 2 * (44 + axial_height) + 60 + across_height + 158
        self.canvas = Canvas(WIDTH, height)
        top = self._header(caption)
        top = self._axial_rows(top, axial_width, axial_height)
        top = self._across_row(top, across_height)
        self._strip(top)
        return _png(self.canvas.image)

    def _header(self, caption: str) -> int:
        self.canvas.text((MARGIN, 26), "Head CT to synthetic T1-like MR", 30, INK)
        self.canvas.text((MARGIN, 68), caption, 16, FAINT)
        width = self.canvas.text_width(BANNER, 20) + 36
        self.canvas.bar((WIDTH - MARGIN - width, 26, WIDTH - MARGIN, 66), WARNING, 8)
        self.canvas.text((WIDTH - MARGIN - width / 2, 46), BANNER, 20, _DARK, "mm")
        return 108

    def _axial_rows(self, top: int, width: int, height: int) -> int:
        chosen = self._axial_places()
        ct_note = f"{self.measured_count} measured slices, window C40 W80"
        mr_note = (
            f"{len(self.guides)} slices, {self.spacing_mm:.2f} mm apart, shown at the same places"
        )
        for title, note, volume, low, high in (
            ("Source CT", ct_note, self.ct, CT_LOW_HU, CT_HIGH_HU),
            ("Synthetic MR", mr_note, self.mr, 0.0, self.white),
        ):
            self._title(top, title, note)
            for place, index in enumerate(chosen):
                box = Box(MARGIN + place * (width + GAP), top + 26, width, height)
                picture = volume.axial(index)
                self.canvas.panel(box, picture, grey(picture.values, low, high))
                self.canvas.text(
                    (box.left + 9, box.bottom - 9),
                    f"{index * self.spacing_mm:.0f} mm",
                    14,
                    FAINT,
                    "ld",
                )
            top += 44 + height
        return top

    def _across_row(self, top: int, height: int) -> int:
        row, column = self._middle()
        scale = height / self.mr.sagittal(column).height_mm
        left = MARGIN
        for title, picture, colours in self._across(row, column):
            box = Box(left, top + 26, round(picture.width_mm * scale), height)
            self.canvas.text((left, top), title, 17, INK)
            self.canvas.panel(box, picture, colours)
            left = box.right + GAP
        self._colour_bar(left - GAP, top)
        return top + 26 + height + 34

    def _across(self, row: int, column: int) -> list[tuple[str, Picture, Pixels]]:
        ct, mr = self.ct.sagittal(column), self.mr.sagittal(column)
        front, doubt = self.mr.coronal(row), self.map.coronal(row)
        return [
            ("Source CT, sagittal", ct, grey(ct.values, CT_LOW_HU, CT_HIGH_HU)),
            ("Synthetic MR, sagittal", mr, grey(mr.values, 0.0, self.white)),
            ("Synthetic MR, coronal", front, grey(front.values, 0.0, self.white)),
            ("Uncertainty, coronal", doubt, colour_map(doubt.values / self.largest, HEAT)),
        ]

    def _across_height(self) -> int:
        row, column = self._middle()
        widths = sum(p.width_mm for _, p, _ in self._across(row, column))
        return int((_INNER - 3 * GAP) / widths * self.mr.coronal(row).height_mm)

    def _colour_bar(self, right: int, top: int) -> None:
        """The scale of the uncertainty, at the right end of its title."""
        width = 64
        largest = f"{self.largest:.2f}"
        right -= round(self.canvas.text_width(largest, 14))
        self.canvas.text((right, top + 3), largest, 14, FAINT)
        right -= width + 7
        colours = colour_map(np.linspace(0, 1, width)[None].repeat(9, 0), HEAT)
        self.canvas.image.paste(Image.fromarray(colours), (right, top + 7))
        self.canvas.text((right - 6, top + 3), "0", 14, FAINT, "ra")

    def _strip(self, top: int) -> None:
        """One bar for each slice, from foot to head, coloured by its kind."""
        self._title(top, "Provenance by slice", "from foot to head, mm")
        self._legend(top)
        count = len(self.guides)
        edges = [MARGIN + round(k * _INNER / count) for k in range(count + 1)]
        for guide, left, right in zip(self.guides, edges, edges[1:], strict=False):
            inset = 0 if guide.kind == "measured" else 8
            gap = 1 if right - left > 4 else 0
            self.canvas.bar(
                (left, top + 32 + inset, right - 1 - gap, top + 76 - inset), KINDS[guide.kind]
            )
        self._ruler(top + 82, count)
        words = (
            f"Uncertainty: {self.meaning.quantity.lower()} as a ratio of the display range, "
            f"{self.meaning.label}. Research software: a network synthesised these images from a "
            "CT; no MR scanner measured them."
        )
        self.canvas.text((MARGIN, top + 120), words, 14, FAINT)

    def _legend(self, top: int) -> None:
        counts = Counter(guide.kind for guide in self.guides)
        right = WIDTH - MARGIN
        for kind in reversed(KINDS):
            words = f"{counts[kind]} {kind}"  # type: ignore[index] # KINDS names the kinds
            right -= int(self.canvas.text_width(words, 15))
            self.canvas.text((right, top + 2), words, 15, INK)
            right -= 20
            self.canvas.bar((right, top + 4, right + 12, top + 16), KINDS[kind], 3)
            right -= 22

    def _ruler(self, top: int, count: int) -> None:
        length_mm = count * self.spacing_mm
        for place_mm in range(0, int(length_mm) + 1, 20):
            left = MARGIN + (place_mm / self.spacing_mm + 0.5) / count * _INNER
            if left > WIDTH - MARGIN:
                break
            self.canvas.bar((left, top, left + 1, top + 5), LINE)
            self.canvas.text((left, top + 8), str(place_mm), 13, FAINT, "ma")

    def _title(self, top: int, words: str, note: str) -> None:
        width = self.canvas.text((MARGIN, top), words, 17, INK)
        self.canvas.text((MARGIN + width + 12, top + 2), note, 15, FAINT)

    def _axial_places(self) -> list[int]:
        """Slices at measured places, spread evenly over the height of the head."""
        areas = self.head.values.sum(axis=(1, 2))
        held = np.flatnonzero(areas >= 0.05 * areas.max())
        low, high = int(held[0]), int(held[-1])
        measured = np.flatnonzero([guide.kind == "measured" for guide in self.guides])
        wanted = np.linspace(
            low + _LOWEST * (high - low), low + _HIGHEST * (high - low), AXIAL_COUNT
        )
        pool = measured if len(measured) else np.arange(len(areas))
        return [int(pool[np.abs(pool - place).argmin()]) for place in wanted]

    def _middle(self) -> tuple[int, int]:
        """Row and column through the middle of the head."""
        where = np.argwhere(self.head.values >= min(1.0, float(self.head.values.max())))
        low, high = where.min(axis=0), where.max(axis=0)
        return int((low[1] + high[1]) / 2), int((low[2] + high[2]) / 2)

    def _upright(self, synthetic: SyntheticVolume, values: FloatArray) -> UprightVolume:
        return UprightVolume.of(values, synthetic.grid, self.spacing_mm)


def _bright(values: FloatArray, head: MaskArray) -> float:
    """Upper end of the display: what one voxel of the head in 300 exceeds."""
    inside = values[head]
    return max(float(np.percentile(inside, 99.7)), 1e-3) if inside.size else 1.0


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
