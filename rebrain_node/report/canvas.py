"""Paper and pens of the pictures: colours, type, tiles; Pillow alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rebrain_node.domain.volume import FloatArray
from rebrain_node.report.planes import EDGES, Picture

Colour = tuple[int, int, int]

PAPER: Final[Colour] = (13, 16, 22)
PANEL: Final[Colour] = (0, 0, 0)
LINE: Final[Colour] = (44, 51, 63)
INK: Final[Colour] = (233, 237, 243)
FAINT: Final[Colour] = (146, 156, 172)
WARNING: Final[Colour] = (255, 179, 64)

#: one colour for each kind of slice; distinct for colour-blind eyes
KINDS: Final[dict[str, Colour]] = {
    "measured": (64, 170, 246),
    "retrieved": (247, 140, 69),
    "interpolated": (98, 110, 130),
}
#: black over violet and orange to pale yellow, rising evenly in lightness
_HEAT: Final = np.array(
    [(0, 0, 0), (59, 15, 100), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)]
)


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


def grey(values: FloatArray, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Values to grey (rows, columns, 3), black at ``low``, white at ``high``."""
    unit = np.clip((values - low) / (high - low), 0.0, 1.0)
    shade: npt.NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
    return np.stack([shade, shade, shade], axis=-1)


def heat(values: FloatArray, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Values to colours (..., 3), black at ``low``, pale yellow at ``high``."""
    unit = np.clip((values - low) / (high - low), 0.0, 1.0) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    parts = [np.interp(unit, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.rint(np.stack(parts, axis=-1)).astype(np.uint8)


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

    def panel(self, box: Box, picture: Picture, colours: npt.NDArray[np.uint8]) -> None:
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
