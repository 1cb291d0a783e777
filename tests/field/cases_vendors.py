"""What the scanners of seven vendors send: every series of `tests.support.scanners`, and its right
answer, alone in a study and beside the others of its study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from tests.field.case import Case
from tests.support.phantoms import write
from tests.support.scanners import SCANNERS, SOURCES, Scanner, scan, study

#: the right answer for each series, by vendor
RIGHT: Final[Mapping[str, Mapping[str, str]]] = {
    "GE": {
        "thick": "accepted",
        "tilted-two-row": "accepted",
        "retrospective": "accepted",
        "lossy-archive": "accepted: DERIVED",
        "reformatted-axial": "accepted: DERIVED",
        "material": "refused: IMAGE-TYPE",
        "localizer": "refused: LOCALIZER",
        "dose-page": "refused: MODALITY",
    },
    "Siemens": {
        "thick": "accepted",
        "dual-source": "accepted",
        "sharp": "refused: KERNEL",
        "reformatted-axial": "accepted: DERIVED",
        "coronal-named-localizer": "refused: LOCALIZER",
        "mip": "refused: DERIVED",
        "perfusion-average": "refused: DERIVED",
        "perfusion-flow": "refused: IMAGE-TYPE",
        "localizer": "refused: LOCALIZER",
        "localizer-resampled": "refused: LOCALIZER",
        "dose-page": "refused: MODALITY",
        "dose-report": "refused: MODALITY",
    },
    "Philips": {
        "thick": "accepted",
        "helix": "accepted",
        "iterative": "accepted",
        "tilted": "accepted",
        "sharp": "refused: KERNEL",
        "reformatted-axial": "accepted: DERIVED",
        "reformatted-coronal": "refused: DERIVED",
        "localizer": "refused: LOCALIZER",
        "exam-summary": "refused: MODALITY",
    },
    "Canon": {
        "thick": "accepted",
        "tilted": "accepted",
        "sharp": "refused: KERNEL",
        "reformatted-axial": "accepted: DERIVED",
        "reformatted-coronal": "refused: DERIVED",
        "localizer": "refused: LOCALIZER",
        "dose-page": "refused: MODALITY",
    },
    "Hitachi": {
        "thick": "accepted: KERNEL-UNKNOWN",
        "tilted": "accepted: KERNEL-UNKNOWN",
        "localizer": "refused: LOCALIZER",
    },
    "United Imaging": {
        "thick": "accepted: KERNEL-UNKNOWN",
        "localizer": "refused: LOCALIZER",
    },
    "Neusoft": {
        "thick": "accepted: KERNEL-UNKNOWN",
        "reformatted-axial": "refused: DERIVED",
    },
}
#: judged with their pixels too: padding, intercept and representation of the vendor matter there
_WITH_PIXELS: Final = frozenset({"thick", "tilted", "tilted-two-row"})


def _alone(scanner: Scanner, name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(scan(scanner, name, blank=name not in _WITH_PIXELS), folder)

    return make


def _together(scanner: Scanner) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(study(scanner, blank=True), folder)

    return make


def _sums_below_pairs(folder: Path) -> None:
    """Write the head as the real HiSpeed Dual does: the header shifts the two slices of a pair."""
    instances = scan(SCANNERS[0], "tilted-two-row")
    for place, instance in enumerate(instances):
        pair, phase = divmod(place - 10, 2)
        instance.AcquisitionNumber = 1 + place if place < 10 else 11 + pair
        if place >= 10:
            instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            position = np.array(instance.ImagePositionPatient, dtype=float)
            column = np.array(instance.ImageOrientationPatient[3:], dtype=float)
            shifted = position + (phase - 0.5) * 2.3 * column
            instance.ImagePositionPatient = [f"{value:.4f}" for value in shifted]
    write(instances, folder)


def _source(scanner: Scanner, name: str) -> str:
    keys = {key for _, key in scanner.series[name].attributes.values()}
    return "; ".join(sorted(SOURCES[key] for key in keys))


def _slug(*words: str) -> str:
    return "-".join(words).lower().replace(" ", "-")


CASES = (
    *(
        Case(
            name=_slug(scanner.vendor, name),
            group="vendors",
            situation=f"{scanner.vendor} writes a series of the kind {name}.",
            source=_source(scanner, name),
            expected=RIGHT[scanner.vendor][name],
            make=_alone(scanner, name),
            pixels=name in _WITH_PIXELS,
        )
        for scanner in SCANNERS
        for name in scanner.series
    ),
    *(
        Case(
            name=_slug(scanner.vendor, "study"),
            group="vendors",
            situation=f"All series of {scanner.vendor} in one study: the thick one is taken.",
            source="the sources of its series",
            expected=RIGHT[scanner.vendor]["thick"],
            make=_together(scanner),
        )
        for scanner in SCANNERS
    ),
    Case(
        name="ge-sums-below-pairs",
        group="vendors",
        situation="Tilt; below one slice a rotation (both rows added), above two, shifted 2.3 mm.",
        source=SOURCES["ge-hispeed"],
        expected="accepted: GEOM-PAIRS-RECENTRED",
        make=_sums_below_pairs,
        pixels=True,
    ),
)
