"""The acceptance of a bundle: the figures to reach, beside those of an earlier bundle.

    rebrain-train acceptance BUNDLE --against demo --out acceptance

`TARGETS` is the table: which figure of which case, and what it must be, alone or against the
earlier bundle. A guard looks at the same volumes blurred: if a blur reached what the volume itself
does not, the figures would be measuring the wrong thing.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from rebrain_node.model.bundle import ModelBundle
from trainer.data.dataset import DatasetError, Volume
from trainer.evaluate.acceptance_cases import BLUR_PX, HELD_OUT_HEADS, CaseOutcome, cases
from trainer.evaluate.montage import bundles_beside
from trainer.evaluate.results import Montage
from trainer.evaluate.scanned_heads import NodeResult

Sign = Literal[">=", "<=", ""]
_SHOWN_TO_HU: Final = 80.0  # C40 W80
ACCEPTANCE: Final = "acceptance.json"


@dataclass(frozen=True)
class Target:
    """One row: a figure of a case and what is required of it."""

    case: str
    figure: str
    label: str
    sign: Sign = ""  #: "" for a figure that is shown without a requirement
    limit: float | None = None  #: of the figure itself
    over_old: float | None = None  #: limit as a difference to the earlier bundle
    digits: int = 3

    def limit_with(self, old: float | None) -> float | None:
        """Return the limit that holds beside an earlier bundle; None where there is none."""
        if self.over_old is not None:
            return None if old is None else old + self.over_old
        return self.limit

    def reached(self, value: float | None, old: float | None) -> bool | None:
        """Return whether a value is good enough; None without a requirement or a value."""
        limit = self.limit_with(old)
        if not self.sign or value is None or limit is None or math.isnan(value):
            return None
        return value >= limit - 1e-9 if self.sign == ">=" else value <= limit + 1e-9


_DEMO, _HOSPITAL, _PLANTED = "demonstration head", "hospital study", "planted disease"
_PAIRS, _MAP, _HEADS = "real pairs", "uncertainty", HELD_OUT_HEADS
# fmt: off
TARGETS: Final = (
    Target(_DEMO, "stripe_ratio", "stripes", "<=", 1.3, digits=2),
    Target(_HOSPITAL, "stripe_ratio", "stripes", "<=", 1.3, digits=2),
    Target(_DEMO, "amplitude_low", "amplitude at .06-.11 cycles/pixel"),
    Target(_DEMO, "amplitude_middle", "amplitude at .16-.21 cycles/pixel", ">=", 0.70),
    Target(_DEMO, "amplitude_high", "amplitude at .26-.31 cycles/pixel"),
    Target(_DEMO, "correlated_amplitude_middle", "correlated, at .16-.21", ">=", None, 0.0),
    Target(_DEMO, "brain_correlation", "correlation inside the skull", ">=", 0.84),
    Target(_DEMO, "tissue_correlation", "the same without CSF", ">=", None, 0.0),
    Target(_DEMO, "lncc", "LNCC"),
    Target(_DEMO, "spectrum_error", "spectrum error, dB"),
    Target(_PLANTED, "false_csf", "hypodense white matter (16-22 HU) drawn as CSF", "<=", 0.03),
    Target(_PLANTED, "false_csf_worst", "the same, worst calibration of the scanner"),
    Target(_PLANTED, "false_csf_uncertain", "of it in the most uncertain 5 %", ">=", 0.90),
    Target(_PLANTED, "cyst_csf", "cyst drawn as CSF, worst calibration", ">=", 0.90),
    Target(_PLANTED, "contrast_leukoaraiosis", "contrast kept: leukoaraiosis", digits=2),
    Target(_PLANTED, "contrast_infarct", "contrast kept: infarct", digits=2),
    Target(_PLANTED, "contrast_haemorrhage", "contrast kept: haemorrhage", digits=2),
    Target(_PLANTED, "contrast_cyst", "contrast kept: cyst", digits=2),
    Target(_HOSPITAL, "hypodense_as_csf", "brain of 16-20 HU drawn as CSF"),
    Target(_PAIRS, "tissue_correlation", "correlation without CSF, registered", ">=", None, 0.08),
    Target(_PAIRS, "lncc", "LNCC, registered", ">=", None, 0.04),
    Target(_PAIRS, "spectrum_error", "spectrum error, dB, registered", "<=", None, 0.0),
    Target(_PAIRS, "brain_correlation", "correlation inside the skull, registered"),
    Target(_PAIRS, "unregistered_tissue_correlation", "correlation without CSF, as published"),
    Target(_PAIRS, "unregistered_lncc", "LNCC, as published"),
    Target(_PAIRS, "unregistered_brain_correlation", "correlation inside the skull, as published"),
    Target(_MAP, "coverage", "coverage of intervals of 90 %, least", ">=", 0.87),
    Target(_MAP, "coverage", "coverage of intervals of 90 %, most", "<=", 0.93),
    Target(_MAP, "people", "heads that set the intervals", ">=", 20, digits=0),
    Target(_DEMO, "map_stripe_ratio", "stripes of the map of uncertainty", "<=", 1.3, digits=2),
    Target(_DEMO, "volume_error_brain", "volume of the brain, relative error"),
    Target(_DEMO, "volume_error_ventricles", "volume of the ventricles, relative error"),
    Target(_DEMO, "volume_error_grey_matter", "volume of grey matter, relative error"),
    Target(_HEADS, "volume_error_brain", "volume of the brain, relative error"),
    Target(_HEADS, "volume_error_ventricles", "volume of the ventricles, relative error"),
    Target(_HEADS, "volume_error_grey_matter", "volume of grey matter, relative error"),
    Target(_HEADS, "brain_correlation", "correlation inside the skull"),
    Target(_HEADS, "coverage", "coverage of the map as delivered"),
    Target(_DEMO, "seconds", "seconds of a volume on one core", "<=", None, 0.0, digits=1),
)
# fmt: on
#: figures that a blur must lose: case, figure, the better direction
GUARDS: Final[tuple[tuple[str, str, Sign], ...]] = (
    (_DEMO, "amplitude_middle", ">="),
    (_DEMO, "amplitude_high", ">="),
    (_DEMO, "correlated_amplitude_middle", ">="),
    (_DEMO, "spectrum_error", "<="),
    (_PAIRS, "spectrum_error", "<="),
)
BLUR_LOSES: Final = "blur does not win"


@dataclass(frozen=True)
class BundleScore:
    """The figures of one bundle by case."""

    name: str
    version: str
    digest: str
    cases: Mapping[str, CaseOutcome]

    def value(self, target: Target) -> float | None:
        """Return a figure; None where it was not measured."""
        case = self.cases.get(target.case)
        return None if case is None else case.figures.get(target.figure)


class CaseMontage:
    """Three planes of the whole volumes, the bundles of one run beside each other."""

    def __init__(self) -> None:
        self._shown: dict[str, Montage] = {}
        self._with_truth: set[str] = set()

    def add(self, bundle: str, case: str, result: NodeResult, truth: Volume | None) -> None:
        """Show a result under the name of its bundle; a head has one grid for all bundles."""
        volume = result.volume
        if case not in self._shown:
            window = np.clip(result.hu / np.float32(_SHOWN_TO_HU), 0, 1)
            below, above, share = np.array(
                [(g.target.below, g.target.above, g.target.alpha) for g in volume.guides]
            ).T
            weight = share.astype(np.float32)[:, None, None]
            ct = (1 - weight) * window[below.astype(int)] + weight * window[above.astype(int)]
            pixel_mm = volume.grid.pixel_mm
            self._shown[case] = Montage(
                subject=case,
                source=ct,
                reference=ct if truth is None else truth,
                mask=volume.head,
                predictions={},
                positions_mm=np.array([g.target.distance_mm for g in volume.guides]),
                measured=result.measured,
                pixel_mm=(pixel_mm, pixel_mm),
            )
        if truth is not None:
            self._with_truth.add(case)
        shown = self._shown[case]
        predictions = {**shown.predictions, bundle: result.image}
        self._shown[case] = replace(shown, predictions=predictions)

    def png(self) -> dict[str, bytes]:
        """Return the pictures by file name."""
        return {
            f"{case.replace(' ', '-')}.png": bundles_beside(shown, truth=case in self._with_truth)
            for case, shown in self._shown.items()
        }


def measure(
    bundle: ModelBundle,
    data: Path | None,
    maps: Path | None,
    case_done: Callable[[str], None],
    advance: Callable[[], None],
    pictures: CaseMontage,
) -> BundleScore:
    """Measure a bundle case after case.

    Parameters
    ----------
    data : Path or None
        Folder of shared data; without it the real study and the real pairs are left out.
    maps : Path or None
        Folder of tissue maps of its heads; without it the held-out heads are left out.
    case_done : callable
        Called with the name of a case when it is done.
    advance : callable
        Called after each synthesised position of the real pairs.
    pictures : CaseMontage
        Receives the volumes that are shown.
    """
    found = {}
    label = f"{bundle.name} {bundle.version}"
    for name, figures in cases(bundle, data, maps, advance, partial(pictures.add, label)):
        found[name] = figures
        case_done(name)
    return BundleScore(bundle.name, bundle.version, bundle.digest, found)


def read_figures(path: Path) -> BundleScore:
    """Read the figures of the judged bundle from an earlier `acceptance.json`.

    Raises
    ------
    DatasetError
        The file is not one.
    """
    try:
        new = json.loads(path.read_bytes())["new"]
        found = {
            name: CaseOutcome(**{**case, "notes": tuple(case["notes"])})
            for name, case in new["cases"].items()
        }
        return BundleScore(new["name"], new["version"], new["digest"], found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is no {ACCEPTANCE} of an earlier run: {error}") from error


def blur_verdict(figures: BundleScore) -> str:
    """Say whether the same volumes, blurred, are worse in every guard.

    Returns
    -------
    str
        `BLUR_LOSES`, or the sentence that names the guards that a blur wins.
    """
    won = []
    for case, name, better in GUARDS:
        found = figures.cases.get(case)
        if found is None or name not in found.figures or name not in found.blurred:
            continue
        gain = found.blurred[name] - found.figures[name]
        if gain >= 0 if better == ">=" else gain <= 0:
            won.append(f"{name} of the {case}")
    if not won:
        return BLUR_LOSES
    return f"BLUR WINS: a Gaussian of {BLUR_PX:g} pixels is not worse in {', '.join(won)}"


def document(new: BundleScore, old: BundleScore | None) -> dict[str, Any]:
    """Return everything as JSON: both bundles, the rows, the verdicts."""
    rows = []
    for target in TARGETS:
        value = new.value(target)
        before = None if old is None else old.value(target)
        rows.append(
            {
                "case": target.case,
                "figure": target.figure,
                "label": target.label,
                "target": _requirement(target, before),
                "old": before,
                "new": value,
                "blurred": new.cases[target.case].blurred.get(target.figure)
                if target.case in new.cases
                else None,
                "reached": target.reached(value, before),
                "digits": target.digits,
            }
        )
    judged = [row["reached"] for row in rows if row["reached"] is not None]
    return {
        "format": 1,
        "new": asdict(new),
        "old": None if old is None else asdict(old),
        "rows": rows,
        "reached": sum(judged),
        "judged": len(judged),
        "blur": blur_verdict(new),
    }


def _requirement(target: Target, old: float | None) -> str:
    """Write what is required, e.g. `<= 1.30` or `>= 0.431 (old + 0.08)`."""
    if not target.sign:
        return ""
    limit = target.limit_with(old)
    if target.over_old is None:
        return f"{target.sign} {_number(limit, target.digits)}"
    beside = f"old + {target.over_old:g}" if target.over_old else "old"
    if limit is None:
        return f"{target.sign} {beside}"
    return f"{target.sign} {_number(limit, target.digits)} ({beside})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with what was not measured below it."""
    new, old = found["new"], found["old"]
    beside = f"{old['name']} {old['version']}" if old else "-"
    judged = f"{new['name']} {new['version']}"
    lines = [
        f"# Acceptance of {judged}",
        "",
        "Synthetic images: research software, not for diagnosis.",
        "",
        f"| case | figure | target | {beside} | {judged} | blurred | reached |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in found["rows"]:
        digits = row["digits"]
        reached = {True: "yes", False: "**no**", None: ""}[row["reached"]]
        numbers = " | ".join(_number(row[key], digits) for key in ("old", "new", "blurred"))
        lines.append(
            f"| {row['case']} | {row['label']} | {row['target']} | {numbers} | {reached} |"
        )
    lines += ["", f"{found['reached']} of {found['judged']} targets reached."]
    lines += [f"Blurred: the new volumes by a Gaussian of {BLUR_PX:g} pixels; {found['blur']}."]
    lines += _intervals(new)
    for label, bundle in (("new", new), ("old", old)):
        for case, figures in (bundle or {"cases": {}})["cases"].items():
            lines += [f"- {label}, {case}: {note}" for note in figures["notes"]]
    return "\n".join(lines) + "\n"


def _intervals(new: Mapping[str, Any]) -> list[str]:
    """Write the 95 % intervals of the means over the held-out heads, where they were measured."""
    case = new["cases"].get(HELD_OUT_HEADS)
    if case is None:
        return []
    figures, count = case["figures"], len(case["subjects"])
    return [
        f"Means over {count} held-out heads, 95 % interval:",
        *(
            f"- {target.label} {_number(figures[target.figure], 3)} "
            f"({_number(figures[f'{target.figure}_low'], 3)} to "
            f"{_number(figures[f'{target.figure}_high'], 3)})"
            for target in TARGETS
            if target.case == HELD_OUT_HEADS and target.figure in figures
        ),
    ]
