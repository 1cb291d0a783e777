"""Rules: the pixels are an image, whole and plausible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from rebrain_node.domain.volume import FloatArray
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: Image Pixel module of the MR series (PS3.3 C.7.6.3)
FORMAT: Final = {
    "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
    "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
}  # fmt: skip
LARGEST: Final = (1 << 12) - 1
#: ratio of a slice's non-zero voxels at the largest value; a clipped image has more
SATURATED: Final = 0.2
#: a slice with fewer different values is a mask or a block, not an image of tissue
FEWEST_VALUES: Final = 8


def _format(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _format_fault)


def _format_fault(written: Written) -> str | None:
    wrong = [k for k, wanted in FORMAT.items() if written.get(k) != wanted]
    return f"{', '.join(wrong)} is not that of a 12-bit monochrome image" if wrong else None


def _range(evidence: Evidence) -> Iterator[Breach]:
    for written, stored in evidence.mr_pixels:
        highest = int(stored.max(initial=0))
        if highest > LARGEST:
            yield Breach(written.name, f"its largest value is {highest}, more than {LARGEST}")


def _constant(evidence: Evidence) -> Iterator[Breach]:
    """Air above the vertex may be empty; between two images no slice is."""
    plain = [len(np.unique(stored)) < FEWEST_VALUES for _, stored in evidence.mr_pixels]
    images = [k for k, is_plain in enumerate(plain) if not is_plain]
    if not images:
        yield Breach("MR", "no slice holds an image")
        return
    for k in range(images[0], images[-1]):
        if plain[k]:
            name = evidence.mr_pixels[k][0].name
            yield Breach(name, f"it has fewer than {FEWEST_VALUES} different values")


def _saturated(evidence: Evidence) -> Iterator[Breach]:
    for written, stored in evidence.mr_pixels:
        inside = stored[stored > 0]
        share = float(np.mean(inside >= LARGEST)) if inside.size else 0.0
        if share > SATURATED:
            what = (
                f"{100 * share:.0f} % of its voxels are at {LARGEST}, limit {100 * SATURATED:.0f} %"
            )
            yield Breach(written.name, what)


def _repeated(evidence: Evidence) -> Iterator[Breach]:
    seen: dict[bytes, str] = {}
    for written, stored in evidence.mr_pixels:
        if stored.any():
            first = seen.setdefault(stored.tobytes(), written.name)
            if first != written.name:
                yield Breach(written.name, f"its pixels are those of {first}")


def _window(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _window_fault)


def _window_fault(written: Written) -> str | None:
    centre, width = written.get("WindowCenter"), written.get("WindowWidth")
    if centre is None or width is None:
        return "no window is set"
    low, high = float(centre) - float(width) / 2, float(centre) + float(width) / 2
    usable = float(width) >= 1 and low < LARGEST and high > 0
    return None if usable else f"its window {centre}/{width} shows nothing of 0 to {LARGEST}"


def _map_finite(evidence: Evidence) -> Iterator[Breach]:
    for written in evidence.of("PM"):
        values = map_values(written)
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            yield Breach(written.name, f"{wrong} of {values.size} values are not finite")
        elif float(values.min(initial=0.0)) < 0:
            yield Breach(
                written.name, f"its least value is {values.min():.3g}; an error is positive"
            )


def _map_constant(evidence: Evidence) -> Iterator[Breach]:
    for written in evidence.of("PM"):
        values = map_values(written)
        if values.size == 0 or bool((values == values.flat[0]).all()):
            yield Breach(written.name, "all its values are the same")


def _map_unit(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.of("PM"), _map_unit_fault)


def _map_unit_fault(written: Written) -> str | None:
    mappings = [
        element
        for element in written.dataset.iterall()
        if element.keyword == "RealWorldValueMappingSequence"
    ]
    items = [item for mapping in mappings for item in mapping.value]
    if not items:
        return "no Real World Value Mapping says what its values mean"
    bare = [item for item in items if not item.get("MeasurementUnitsCodeSequence")]
    return "a Real World Value Mapping lacks its unit" if bare else None


def _preview(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.of("SC"), _preview_fault)


def _preview_fault(written: Written) -> str | None:
    found = written.get("SamplesPerPixel"), written.get("PhotometricInterpretation")
    if found != (3, "RGB"):
        return f"it is {found[0]} x {found[1]}, not a picture in colour"
    values = np.frombuffer(written.dataset.PixelData, dtype=np.uint8)
    return None if values.size and np.ptp(values) > 0 else "it is one colour throughout"


def map_values(written: Written) -> FloatArray:
    """Values of a parametric map, flat: float or whole numbers (PS3.3 C.7.6.3, C.7.6.24)."""
    if "FloatPixelData" in written.dataset:
        return np.frombuffer(written.dataset.FloatPixelData, dtype="<f4")
    return np.frombuffer(written.dataset.PixelData, dtype="<u2").astype(np.float32)


RULES: Final = (
    Rule("GATE-PIXEL-FORMAT", "MR pixels are 12-bit unsigned monochrome.", _format),
    Rule("GATE-PIXEL-RANGE", "No MR value exceeds the bits that are declared.", _range),
    Rule("GATE-PIXEL-CONSTANT", "No MR slice within the head is empty or flat.", _constant),
    Rule("GATE-PIXEL-SATURATED", "No MR slice is clipped at its largest value.", _saturated),
    Rule("GATE-PIXEL-REPEATED", "No two MR slices hold the same pixels.", _repeated),
    Rule("GATE-WINDOW", "A window that shows the image is set.", _window),
    Rule("GATE-MAP-FINITE", "The uncertainty map is finite and not negative.", _map_finite),
    Rule("GATE-MAP-CONSTANT", "The uncertainty map varies.", _map_constant),
    Rule("GATE-MAP-UNIT", "The uncertainty map says what its values mean.", _map_unit),
    Rule("GATE-PREVIEW", "The preview is a picture in colour.", _preview),
)
