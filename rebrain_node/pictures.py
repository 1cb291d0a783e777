"""How a volume becomes a picture: planes the right way up, colours, letters, a canvas.

Axial: anterior up, the patient's right on the left. Coronal: head up, right on the left.
Sagittal: head up, anterior on the left. These are the conventions of radiology.

The preview that is sent as a DICOM object uses the planes, colours and capital letters alone, which
are arithmetic: its bytes do not depend on a font or on a version of Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rebrain_node.domain.volume import FloatArray, Grid

View = Literal["axial", "coronal", "sagittal"]
Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]  #: (rows, columns, 3), RGB

#: letters at the left and right edge of each view
EDGES: dict[View, tuple[str, str]] = {
    "axial": ("R", "L"),
    "coronal": ("R", "L"),
    "sagittal": ("A", "P"),
}
PAPER: Final[Colour] = (13, 16, 22)
PANEL: Final[Colour] = (0, 0, 0)
LINE: Final[Colour] = (44, 51, 63)
INK: Final[Colour] = (233, 237, 243)
FAINT: Final[Colour] = (146, 156, 172)
WARNING: Final[Colour] = (255, 179, 64)

#: one colour for each kind of slice, in every picture; they differ in lightness too
KINDS: Final[dict[str, Colour]] = {
    "measured": (0, 170, 80),
    "retrieved": (60, 120, 255),
    "interpolated": (255, 140, 0),
}
#: black over violet and orange to pale yellow, rising evenly in lightness; from 0 to 1
HEAT: Final[Mapping[float, Colour]] = {
    0.0: (0, 0, 0), 0.2: (59, 15, 100), 0.4: (140, 41, 129), 0.6: (222, 73, 104),
    0.8: (254, 159, 109), 1.0: (252, 253, 191),
}  # fmt: skip

_GLYPH_COLUMNS: Final = 5
#: seven rows of five pixels, the leftmost in bit 4
_GLYPHS: Final = {
    "A": (0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "B": (0x1E, 0x11, 0x11, 0x1E, 0x11, 0x11, 0x1E),
    "C": (0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E),
    "D": (0x1E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1E),
    "E": (0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F),
    "F": (0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x10),
    "G": (0x0E, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0F),
    "H": (0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "I": (0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E),
    "L": (0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F),
    "M": (0x11, 0x1B, 0x15, 0x15, 0x11, 0x11, 0x11),
    "N": (0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11),
    "O": (0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E),
    "P": (0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10),
    "R": (0x1E, 0x11, 0x11, 0x1E, 0x14, 0x12, 0x11),
    "S": (0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E),
    "T": (0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04),
    "U": (0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E),
    "V": (0x11, 0x11, 0x11, 0x11, 0x11, 0x0A, 0x04),
    "W": (0x11, 0x11, 0x11, 0x15, 0x15, 0x1B, 0x11),
    "X": (0x11, 0x11, 0x0A, 0x04, 0x0A, 0x11, 0x11),
    "Y": (0x11, 0x11, 0x0A, 0x04, 0x04, 0x04, 0x04),
    "0": (0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E),
    "3": (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    "5": (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    ".": (0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x0C),
    "-": (0x00, 0x00, 0x00, 0x1F, 0x00, 0x00, 0x00),
    " ": (0x00,) * 7,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """One plane as it is shown: row 0 on top, column 0 on the left."""

    values: FloatArray  #: (rows, columns)
    height_mm: float
    width_mm: float
    view: View


@dataclass(frozen=True, eq=False)
class UprightVolume:
    """A volume turned so that its axes run to head, back and the patient's left."""

    values: npt.NDArray[Any]  #: (slices to the head, rows to the back, columns to the left)
    size_mm: tuple[float, float, float]  #: of one voxel, in the same order

    @classmethod
    def of(cls, values: npt.NDArray[Any], grid: Grid, spacing_mm: float) -> UprightVolume:
        """Turn a volume (slices, rows, columns) on its grid upright, whatever way it lies."""
        directions = np.stack([grid.normal, grid.column_direction, grid.row_direction])
        wanted = (2, 1, 0)  # patient axes z, y, x of slices, rows, columns
        axes = max(permutations(range(3)), key=lambda own: np.abs(directions[own, wanted]).sum())
        turned = values.transpose(axes)
        for place, (own, axis) in enumerate(zip(axes, wanted, strict=True)):
            if directions[own, axis] < 0:
                turned = np.flip(turned, place)
        sizes = (spacing_mm, grid.pixel_mm, grid.pixel_mm)
        return cls(turned, (sizes[axes[0]], sizes[axes[1]], sizes[axes[2]]))

    def axial(self, index: int) -> Picture:
        """One slice, counted from the foot."""
        return self._picture(self.values[index], 1, 2, "axial")

    def coronal(self, index: int) -> Picture:
        """One plane from the front, counted from the nose."""
        return self._picture(self.values[::-1, index, :], 0, 2, "coronal")

    def sagittal(self, index: int) -> Picture:
        """One plane from the side, counted from the patient's right."""
        return self._picture(self.values[::-1, :, index], 0, 1, "sagittal")

    def _picture(self, values: FloatArray, down: int, across: int, view: View) -> Picture:
        rows, columns = values.shape
        return Picture(values, rows * self.size_mm[down], columns * self.size_mm[across], view)


def as_measured(
    hu: FloatArray, distances_mm: FloatArray, count: int, spacing_mm: float
) -> FloatArray:
    """Repeat each measured slice over the places nearest to it: thick slices as they are.

    Parameters
    ----------
    hu : FloatArray
        (n, rows, columns), HU.
    distances_mm : FloatArray
        (n,) from the first slice, increasing.
    count, spacing_mm
        Number and distance of the places.

    Returns
    -------
    FloatArray
        (count, rows, columns), HU.
    """
    places = np.arange(count) * spacing_mm
    nearest = np.abs(places[:, None] - distances_mm[None, :]).argmin(axis=1)
    return np.asarray(hu[nearest])


def grey(values: FloatArray, low: float = 0.0, high: float = 1.0) -> Pixels:
    """Values (rows, columns) in grey, black up to ``low``, white from ``high`` on."""
    unit = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.repeat((unit * 255.0).astype(np.uint8)[..., None], 3, axis=-1)


def colour_map(values: npt.NDArray[np.floating], colours: Mapping[float, Colour]) -> Pixels:
    """Values (rows, columns) in colours given by value, in between as between their neighbours."""
    bands = np.array([*colours.values()]).T  # (3, stops)
    return np.stack([np.interp(values, [*colours], band) for band in bands], axis=-1).astype(
        np.uint8
    )


def lettering(text: str, size: int) -> npt.NDArray[np.bool_]:
    """Draw one line of capitals.

    Parameters
    ----------
    text : str
        Letters of the banner and the captions only.
    size : int
        Pixels of the picture for one pixel of a letter.

    Returns
    -------
    ndarray of bool
        (7 * size, 6 * size * len(text)), true where there is ink.
    """
    rows = np.array([_GLYPHS[letter] for letter in text]).T  # (7, letters)
    bits = (rows[:, :, None] >> np.arange(_GLYPH_COLUMNS, -1, -1)) & 1  # one column of space first
    drawn = bits.reshape(len(rows), -1).astype(bool)
    return np.kron(drawn, np.ones((size, size), dtype=bool))


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column beyond it."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row beyond it."""
        return self.top + self.height


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own scalable face: the same on every machine."""
    return ImageFont.load_default(size)


class Canvas:
    """A sheet on which panels, captions and bars are placed by pixel."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self, at: tuple[float, float], words: str, size: int, colour: Colour, anchor: str = "la"
    ) -> float:
        """Write; return the width of what was written, in pixels."""
        self._draw.text(at, words, font=font(size), fill=colour, anchor=anchor)
        return self.text_width(words, size)

    def text_width(self, words: str, size: int) -> float:
        """Width of words in pixels."""
        return float(self._draw.textlength(words, font=font(size)))

    def bar(self, box: tuple[float, float, float, float], colour: Colour, radius: int = 0) -> None:
        """Fill a rectangle (left, top, right, bottom)."""
        self._draw.rounded_rectangle(box, radius, fill=colour)

    def panel(self, box: Box, picture: Picture, colours: Pixels) -> None:
        """Place a picture into a box, as large as its proportions allow, with edge letters."""
        scale = min(box.width / picture.width_mm, box.height / picture.height_mm)
        size = round(picture.width_mm * scale), round(picture.height_mm * scale)
        drawn = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
        self.bar((box.left, box.top, box.right - 1, box.bottom - 1), PANEL, 6)
        self.image.paste(
            drawn,
            (box.left + (box.width - size[0]) // 2, box.top + (box.height - size[1]) // 2),
        )
        left, right = EDGES[picture.view]
        self.text((box.left + 9, box.top + 7), left, 15, FAINT, "la")
        self.text((box.right - 9, box.top + 7), right, 15, FAINT, "ra")
