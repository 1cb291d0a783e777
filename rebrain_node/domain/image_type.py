"""What Image Type (0008,0008) and Frame Type (0008,9007) say an image is.

Values 1 and 2: ORIGINAL or DERIVED, PRIMARY or SECONDARY (PS3.3 C.7.6.1.1.2). The values after
them are defined terms (PS3.3 C.8.2.1.1.1 with the multi-energy terms of Supplement 188;
C.8.15.3.1.1 and C.8.16.1 for Enhanced CT) or the scanner's own words; those read here were seen
in public headers and lists of them (docs/selection.md). A word that is not listed says nothing:
MIXED, NORM, HELIX, VOLUME, STD, SNRG, JP2K and hundreds of others stand on images of plain HU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

#: projection: of many slices on one plane; difference, statistic: computed from several images;
#: blend: of two energies; capture: of a screen; map: of perfusion or of a material; monitoring: of
#: a bolus, at one place; monoenergetic: HU at one energy; dual: HU of a dual-energy scan
ImageKind = Literal[
    "projection", "difference", "statistic", "blend", "capture", "map", "monitoring",
    "monoenergetic", "dual",
]  # fmt: skip

#: longer values are cut: a Code String has at most 16 characters (PS3.5 6.2)
_LONGEST = 32
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM", "REF_SURVIEW"})

#: anything before or after, separated
_BEFORE, _AFTER = r"(?:.*_)?", r"(?:_.*)?"
#: patterns of a whole value, in capitals with single underscores for blanks and hyphens; the first
#: that fits decides
_PATTERNS: tuple[tuple[ImageKind, str], ...] = (
    # PS3.3 C.8.16.2.1.3: Volume Based Calculation Technique of enhanced objects
    ("projection", rf"{_BEFORE}(?:T?MIP|MINIP|MAX_IP|MIN_IP|MPVR|RAYSUM|VRT?|VOLREN|SSD){_AFTER}"),
    ("projection", r"MAXIMUM|MINIMUM|(?:VOLUME|SURFACE)_RENDER\w*|PROJECTION\w*"),
    ("projection", r"(?:CSA_)?CURVED(?:_MPR)?|CPR"),
    ("difference", rf"{_BEFORE}(?:SUBTRACT(?:ION|ED)?|DSA|BONE_?REMOVAL){_AFTER}|SUB"),
    # PS3.3 C.8.16.1.4: Derived Pixel Contrast of enhanced objects
    ("statistic", r"AVERAGE|AVG|MEAN|MEDIAN|STD_DEVIATION|ADDITION|DIVISION|MASKED|MULTIPLICATION"),
    ("capture", r"SCREEN_?(?:SAVE|SHOT|CAPTURE)?|DOSE_?(?:INFO|REPORT)?|PROTOCOL|REPORT"),
    ("monitoring", r"CT_SOM\d+_MON|(?:PRE)?MONITORING|SMART_?PREP|TRACKER|LOCATOR|BOLUS\w*"),
    ("map", rf"{_BEFORE}R?(?:CBF|CBV|BF|BV|MTT|TTP|TMAX|TTD|PBV){_AFTER}"),
    ("map", r"(?:CT_)?PERFUSION\w*|DYNAMIC\w*|PENUMBRA|CT_SOM\d+_(?:VPCT|PERF)"),
    # PS3.3 C.8.2.1.1.1, value 4 of multi-energy images (Supplement 188)
    ("monoenergetic", r"VMI"),
    ("map", r"MAT_\w+|EFF_ATOMIC_NUM|ELECTRON_DENSITY"),
    # words of the vendors for the same
    ("monoenergetic", rf"{_BEFORE}(?:ME)?\d+(?:\.\d+)?_?KEV{_AFTER}"),
    ("monoenergetic", rf"{_BEFORE}MONO(?:E|ENERGETIC|CHROMATIC|PLUS)?\+?(?:_?\d+(?:\.\d+)?)?"),
    ("map", rf"{_BEFORE}(?:VN(?:C|CA|UC)|IODINE){_AFTER}|VIRTUAL_(?:NON|UN)\w+|VUE"),
    ("map", r"EFF\w*_?Z|Z_?EFF\w*|RHO_?Z|URIC_ACID|CALCIUM_?SUPP\w*|(?:GSI_)?MD(?:_\w+)?"),
    ("map", r"(?:WATER|IODINE|CALCIUM|HAP|FAT|BLOOD)\(\w+\)"),
    ("blend", rf"{_BEFORE}(?:DEOC|BLEND\w*)"),
    ("dual", r"DUAL_?ENERGY\w*|DNRG|DET_?DUAL\w*|DET_[AB]|DE(?:_\w+)?"),
    ("dual", rf"(?:GSI|SPECTRAL){_AFTER}"),
)
#: the same in a description, where Image Type says no more than DERIVED
_PROJECTION_WORDS = re.compile(
    r"\b(?:MIP|MINIP|MPVR|VRT?|SSD|CPR|CURVED|RAYSUM|SUBTR(?:ACTION|ACTED)?|DSA|BONE ?REMOVAL)\b"
)
#: a reformat of thin slices that the scanner made thick is written as an average
_REFORMATTED = "REFORMATTED"


@dataclass(frozen=True)
class ImageTypeReading:
    """What a value of Image Type names that is no plain slice in HU."""

    kind: ImageKind
    value: str  #: as it may stand in a sentence


@lru_cache(maxsize=4096)
def read_image_type(values: tuple[str, ...]) -> ImageTypeReading | None:
    """Return what the values after the second name, or ``None`` for a plain slice in HU."""
    named = {_folded(value): value for value in values[2:]}
    for kind, pattern in _PATTERNS:
        for folded, value in named.items():
            if not re.fullmatch(pattern, folded):
                continue
            if kind == "statistic" and _REFORMATTED in named:
                continue
            return ImageTypeReading(kind, shown(value))
    return None


def is_localizer(values: Iterable[str]) -> bool:
    """Whether Image Type names a scout (PS3.3 C.8.2.1.1.1: LOCALIZER), by whichever word."""
    return any(_folded(value) in _LOCALIZERS for value in values)


def names_projection(description: str) -> str | None:
    """Return the word by which the description of computed images names a projection, if any."""
    match = _PROJECTION_WORDS.search(description[:128].upper().replace("_", " "))
    return match[0] if match else None


def is_original(values: tuple[str, ...]) -> bool:
    """Whether the pixels were reconstructed from measured data, not computed from other images.

    SECONDARY stands on slices that were reconstructed after the examination (C.7.6.1.1.2).
    """
    return len(values) > 1 and values[0] == "ORIGINAL"


def shown(defined_term: str) -> str:
    """A code string as it may stand in a sentence (PS3.5 6.2, CS): nothing but its characters."""
    return "".join(c for c in defined_term.upper() if c.isalnum() or c in "_ ")[:16] or "unknown"


def _folded(value: str) -> str:
    return re.sub(r"[\s_-]+", "_", value[:_LONGEST].strip().upper())
