"""Rules: the pixels are a complete and plausible image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from rebrain_node.domain import marks
from rebrain_node.domain.volume import FloatArray
from rebrain_node.steps.gate.context import Context, SlicePixels, WrittenObject
from rebrain_node.steps.gate.ink import ink
from rebrain_node.steps.gate.rules import (
    MAP,
    PIXELS,
    PREVIEW,
    SLICES,
    Violation,
    rule,
    set_rule,
)
from rebrain_node.watermark import detect

#: Image Pixel module of the MR series (PS3.3 C.7.6.3)
FORMAT: Final = {
    "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
    "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
}  # fmt: skip
#: ratio of a slice's non-zero voxels at the largest value; a clipped image has more
SATURATED: Final = 0.2
#: a slice with fewer different values is a mask or a block, not an image of tissue
FEWEST_VALUES: Final = 8
#: slices in which the watermark is searched
SEARCHED: Final = 5
#: pixels above black; a smaller head may hide the watermark
SMALLEST_MARKED: Final = 8000


@rule("GATE-PIXEL-FORMAT", "Pixels are 12-bit unsigned monochrome.", on=SLICES)
def _format(obj: WrittenObject, _: Context) -> str | None:
    """Every viewer supports this format."""
    wrong = [keyword for keyword, expected in FORMAT.items() if obj.get(keyword) != expected]
    return f"{', '.join(wrong)} is not that of a 12-bit monochrome image" if wrong else None


@rule("GATE-PIXEL-RANGE", "All stored values are in the output range of the recipe.", on=PIXELS)
def _range(pixels: SlicePixels, context: Context) -> str | None:
    """The window shows that range only, and viewers wrap or clip values beyond 12 bits."""
    black, white = context.stored_range.black, context.stored_range.white
    values = np.flatnonzero(pixels.counts)
    least, largest = int(values[0]), int(values[-1])
    if black <= least and largest <= white:
        return None
    return f"its values are {least} to {largest}, the recipe's are {black} to {white}"


@set_rule("GATE-PIXEL-CONSTANT", "No slice within the head is empty or flat.", on="MR slices")
def _constant(context: Context) -> Iterator[Violation]:
    """It would be a hole in the volume; only the ends of the range may be air."""
    flat = [np.count_nonzero(pixels.counts) < FEWEST_VALUES for pixels in context.mr_pixels]
    images = [k for k, is_flat in enumerate(flat) if not is_flat]
    if not images:
        yield Violation("MR", "no slice contains an image")
        return
    for k in range(images[0], images[-1]):
        if flat[k]:
            what = f"it has fewer than {FEWEST_VALUES} different values"
            yield Violation(context.mr_pixels[k].name, what)


@rule(
    "GATE-PIXEL-SATURATED",
    "At most 20 % of the voxels that are not black have the recipe's value for white.",
    on=PIXELS,
)
def _saturated(pixels: SlicePixels, context: Context) -> str | None:
    """Contrast is lost where an image is clipped. A visible mark beside the head is left out."""
    black, white = context.stored_range.black, context.stored_range.white
    mark = context.once(ink)
    drawn = 0 if mark is None else int(mark.sum())
    shown = int(pixels.counts[black + 1 :].sum()) - drawn
    share = float(pixels.counts[white:].sum() - drawn) / shown if shown > 0 else 0.0
    if share <= SATURATED:
        return None
    return f"{100 * share:.0f} % of its voxels are at {white}, limit {100 * SATURATED:.0f} %"


@set_rule("GATE-PIXEL-REPEATED", "No two slices have the same pixels.", on="MR slices")
def _repeated(context: Context) -> Iterator[Violation]:
    """One slice would be shown at two positions."""
    names: dict[bytes, str] = {}
    for pixels in context.mr_pixels:
        if pixels.counts[context.stored_range.black + 1 :].any():
            first = names.setdefault(pixels.stored.tobytes(), pixels.name)
            if first != pixels.name:
                yield Violation(pixels.name, f"its pixels are those of {first}")


@set_rule(
    "GATE-WATERMARK",
    "Where the site requests the watermark, each MR slice names it and the pixels carry it; "
    "otherwise neither.",
    on="MR slices",
)
def _watermark(context: Context) -> Iterator[Violation]:
    """Software and people must find in the pixels what the header says of them.

    Searched are the five slices with the most head; one with the mark is enough, because a small or
    a noisy one may hide it.
    """
    wanted = marks.WATERMARK_SCHEME if context.watermark else None
    for each in context.mr_slices:
        if each.private(marks.WATERMARK) != wanted:
            yield Violation(each.name, f"its private block does not say {wanted or 'no watermark'}")
            return
    black = context.stored_range.black
    sizes = [int(np.count_nonzero(pixels.stored > black)) for pixels in context.mr_pixels]
    largest = sorted(range(len(sizes)), key=lambda k: -sizes[k])[:SEARCHED]
    if not largest or sizes[largest[0]] < SMALLEST_MARKED:
        return
    found = any(
        detect(context.mr_pixels[k].stored, (1.0,), any_orientation=False).is_marked
        for k in largest
    )
    if found != context.watermark:
        what = "carry no watermark" if context.watermark else "carry a watermark"
        yield Violation(context.mr_pixels[largest[0]].name, f"the pixels {what}")


@rule(
    "GATE-WINDOW",
    "Window Center and Window Width are present and overlap the output range of the recipe.",
    on=SLICES,
)
def _window(obj: WrittenObject, context: Context) -> str | None:
    """Without a window viewers open the image black or white."""
    centre, width = obj.get("WindowCenter"), obj.get("WindowWidth")
    if centre is None or width is None:
        return "Window Center or Window Width is absent"
    low, high = float(centre) - float(width) / 2, float(centre) + float(width) / 2
    black, white = context.stored_range.black, context.stored_range.white
    usable = float(width) >= 1 and low < white and high > black
    return None if usable else f"its window {centre}/{width} shows nothing of {black} to {white}"


@rule("GATE-MAP-FINITE", "All values of the uncertainty map are finite and not negative.", on=MAP)
def _map_finite(obj: WrittenObject, _: Context) -> str | None:
    """Viewers display NaN as an arbitrary value, and an expected error is positive."""
    values = map_values(obj)
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    if wrong:
        return f"{wrong} of {values.size} values are not finite"
    least = float(values.min(initial=0.0))
    return None if least >= 0 else f"its least value is {least:.3g}"


@rule("GATE-MAP-CONSTANT", "The values of the uncertainty map differ.", on=MAP)
def _map_constant(obj: WrittenObject, _: Context) -> str | None:
    """A constant map contains no information."""
    values = map_values(obj)
    constant = values.size == 0 or bool((values == values.flat[0]).all())
    return "all its values are the same" if constant else None


@rule("GATE-MAP-UNIT", "A Real World Value Mapping gives the unit of the uncertainty map.", on=MAP)
def _map_unit(obj: WrittenObject, _: Context) -> str | None:
    """A number without a unit cannot be interpreted."""
    items = [
        item
        for element in obj.dataset.iterall()
        if element.keyword == "RealWorldValueMappingSequence"
        for item in element.value
    ]
    if not items:
        return "it has no Real World Value Mapping"
    missing = [item for item in items if not item.get("MeasurementUnitsCodeSequence")]
    return "a Real World Value Mapping lacks its unit" if missing else None


@rule("GATE-PREVIEW", "The preview is a colour image of more than one colour.", on=PREVIEW)
def _preview(obj: WrittenObject, _: Context) -> str | None:
    """Most readers look at the preview first."""
    found = obj.get("SamplesPerPixel"), obj.get("PhotometricInterpretation")
    if found != (3, "RGB"):
        return f"it is {found[0]} x {found[1]}, not a colour image"
    values = np.frombuffer(obj.dataset.PixelData, dtype=np.uint8)
    return None if values.size and np.ptp(values) > 0 else "it has one colour only"


def map_values(obj: WrittenObject) -> FloatArray:
    """Values of a parametric map, flat: float or whole numbers (PS3.3 C.7.6.3, C.7.6.24)."""
    if "FloatPixelData" in obj.dataset:
        return np.frombuffer(obj.dataset.FloatPixelData, dtype="<f4")
    return np.frombuffer(obj.dataset.PixelData, dtype="<u2").astype(np.float32)
