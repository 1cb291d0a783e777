"""The detection rates of the node's input checks on simulated heads.

Each head is simulated in Hounsfield units, given one condition or none, cut into thick slices with
the noise of a scanner and checked by the function that the node uses. A class is caught when its
own code is among the findings; a head without a condition that gets any finding is a false
refusal. Intervals are Wilson's, 95 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.stats import binomtest

from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.steps.check import check_volume
from trainer.heads import Head, catalogue
from trainer.simulate.anatomy import map_anatomy
from trainer.simulate.conditions import OF_THE_HEAD, OF_THE_SCAN, OUTSIDE, scanner_noise
from trainer.simulate.hounsfield import Anatomy, Tissues, tissues
from trainer.simulate.labels import LabelHead
from trainer.simulate.scanner import Pose, cut, series_of
from trainer.simulate.template import CtTemplate, Volume, load_template

CLASSES = (*OF_THE_HEAD, *OF_THE_SCAN, *OUTSIDE)
IN_DOMAIN = "IN-DOMAIN"


@dataclass(frozen=True)
class DetectionRate:
    """One class: how many series, how many caught (or, in-domain, falsely refused)."""

    code: str
    n: int
    hits: int

    @property
    def share(self) -> float:
        """Hits among n."""
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the share at 95 %."""
        interval = binomtest(self.hits, self.n).proportion_ci(0.95, "wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class SeriesResult:
    """One simulated series and the codes found in it."""

    head: str
    condition: str
    codes: tuple[str, ...]

    @property
    def hit(self) -> bool:
        """Whether the class was caught, or the head without a condition got any finding."""
        if self.condition == IN_DOMAIN:
            return bool(self.codes)
        outside = OUTSIDE.get(self.condition)
        wanted = {self.condition} if outside is None else outside.codes
        return not wanted.isdisjoint(self.codes)


def anatomy(head: Head, template: CtTemplate, folder: Path) -> Tissues:
    """Return the tissues of a head; the maps of its anatomy are kept in ``folder``."""
    path = folder / f"{head.name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **map_anatomy(head, template))  # type: ignore[arg-type] # arrays only
    with np.load(path) as maps:
        return tissues(dict(maps))


def trials(
    name: str, head: Tissues | LabelHead, draws: int, seed: int, limits: Limits
) -> Iterator[SeriesResult]:
    """Check ``draws`` simulated series of each class, and as many without a condition."""
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw, *name.encode()])
        person = head.drawn(rng)
        for condition in (IN_DOMAIN, *CLASSES):
            volume = _scan(_changed(person.hu, person.anatomy, condition, rng), condition, rng)
            if condition in OUTSIDE:
                volume = OUTSIDE[condition].change(volume, rng)
            codes = tuple(sorted({finding.code for finding in check_volume(volume, limits)}))
            yield SeriesResult(name, condition, codes)


def measure(
    data: Path, folder: Path, draws: int, seed: int, limits: Limits
) -> Iterator[SeriesResult]:
    """Check ``draws`` series of each class for every head of the catalogue.

    Parameters
    ----------
    data : Path
        Folder of shared data with the heads and the CT template.
    folder : Path
        Where the maps of anatomy are kept; a missing one costs about a minute.
    """
    template = load_template(data / "templates")
    for head in (each for each in catalogue(data) if each.kind == "t1"):
        yield from trials(head.name, anatomy(head, template, folder), draws, seed, limits)


def detection_rates(found: Sequence[SeriesResult]) -> tuple[DetectionRate, ...]:
    """Count the hits of each class."""
    return tuple(
        DetectionRate(
            code,
            sum(trial.condition == code for trial in found),
            sum(trial.condition == code and trial.hit for trial in found),
        )
        for code in (IN_DOMAIN, *CLASSES)
        if any(trial.condition == code for trial in found)
    )


def table(found: Sequence[DetectionRate]) -> str:
    """Return the detection rates as Markdown."""
    lines = ["| class | n | caught | share | 95 % interval |", "|---|---|---|---|---|"]
    for score in found:
        low, high = score.interval
        what = "in-domain heads refused or flagged" if score.code == IN_DOMAIN else score.code
        lines.append(
            f"| {what} | {score.n} | {score.hits} | {100 * score.share:.1f} % | "
            f"{100 * low:.1f} to {100 * high:.1f} % |"
        )
    return "\n".join(lines)


def _changed(hu: Volume, head: Anatomy, condition: str, rng: Generator) -> Volume:
    change = OF_THE_HEAD.get(condition)
    return hu if change is None else change(hu, head, rng)


def _scan(hu: Volume, condition: str, rng: Generator) -> SourceVolume:
    """Cut a head into thick, tilted slices, with noise and the condition of the scan, if any."""
    pose = Pose.drawn(rng)
    slices = scanner_noise(cut(hu, pose), rng)
    change = OF_THE_SCAN.get(condition)
    return series_of(slices if change is None else change(slices, pose.pixel_mm, rng), pose)
