"""Every method on every subject of a data set, and the figures summed up over subjects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.recipe import Recipe
from trainer.data.dataset import PreparedData
from trainer.evaluate import judge
from trainer.evaluate.bridges import Bridge
from trainer.evaluate.evaluation import Figure, Montage
from trainer.evaluate.intensities import unit
from trainer.evaluate.methods import Baselines
from trainer.evaluate.predicted import Predictions
from trainer.evaluate.protocols import Case, Sparsity, thinned
from trainer.evaluate.template import why_no_template

Volume = NDArray[np.float32]
Found = dict[str, dict[str, dict[str, float]]]  # method, subject, metric

RESAMPLES: Final = 2000  # of the bootstrap over subjects
SMALLEST_SHARE: Final = 0.01  # of the reference's range that a prediction should span


@dataclass(frozen=True)
class Progress:
    """Called with the number of positions to be drawn before the first, and after each."""

    started: Callable[[int], None]
    advance: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Who is compared on what.

    Attributes
    ----------
    recipe : Recipe
        Its brain window is the image that the baselines see.
    """

    data: PreparedData
    sparsity: Sparsity
    mode: judge.Mode
    recipe: Recipe
    bridges: Sequence[Bridge]
    predictions: Sequence[Predictions] = ()

    def over(self, names: Sequence[str], progress: Progress) -> "Outcome":
        """Draw and judge subject after subject; one is in memory at a time.

        Parameters
        ----------
        names : sequence of str
            Subjects scored, at least one.

        Raises
        ------
        PredictionRefused
            A volume of another method is missing or cannot be scored.
        """
        for other in self.predictions:
            for name in names:
                other.path(name)  # a missing file is found before an hour of drawing
        teachers = self.data.split["train"] or tuple(names)
        drawn = sum(bridge.positions(self._case(name)) for name in names for bridge in self.bridges)
        placed = 0 if why_no_template(self.data) else len(self.data.split["train"])
        progress.started(len(teachers) + placed + drawn)
        baselines = Baselines.taught(self.data, teachers, self.recipe, progress.advance)
        outcome = Outcome()
        if isinstance(baselines.template, str):
            outcome.skipped["template"] = baselines.template
        for name in names:
            case = self._case(name)
            truth = judge.Truth.of(case, volumetric=self.data.volumetric)
            outcome.slices[name] = len(case.rows)
            kept = {}
            for method, volume in self._drawn(case, truth, baselines, progress):
                outcome.found.setdefault(method, {})[name] = judge.figures(volume, truth, self.mode)
                outcome.remark(method, name, volume, truth)
                if not outcome.montages:
                    kept[method] = volume
            if not outcome.montages:
                outcome.montages.append(self._montage(case, truth, kept))
        outcome.remarks.extend(baselines.remarks)
        return outcome

    def _case(self, name: str) -> Case:
        return thinned(self.data.subject(name), self.sparsity)

    def _drawn(
        self, case: Case, truth: judge.Truth, baselines: Baselines, progress: Progress
    ) -> Iterator[tuple[str, Volume]]:
        yield from baselines.draw(case)
        for bridge in self.bridges:
            yield from bridge.draw(case, progress.advance)
        for other in self.predictions:
            yield other.name, truth.scale.map(other.read(case.subject)[case.rows])

    def _montage(self, case: Case, truth: judge.Truth, kept: dict[str, Volume]) -> Montage:
        given = unit(case.source, case.head, self.data.source_kind, self.recipe)
        return Montage(
            subject=case.subject.name,
            source=case.linear(given),
            reference=truth.reference,
            mask=truth.head,
            predictions=kept,
            positions_mm=case.targets_mm,
            measured=case.measured,
            pixel_mm=case.subject.pixel_mm,
        )


@dataclass(frozen=True)
class Outcome:
    """What a contest found; filled subject by subject.

    Attributes
    ----------
    slices : dict
        Positions scored, by subject.
    montages : list of Montage
        Of the first subject.
    skipped : dict
        Why a method has no figure, by method.
    remarks : list of str
        What a reader of the figures should know.
    """

    found: Found = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)
    montages: list[Montage] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def remark(self, method: str, name: str, volume: Volume, truth: judge.Truth) -> None:
        """Remark on a volume that seems to be in another unit than the reference."""
        spanned = float(np.ptp(volume[truth.head]))
        if method != "constant" and spanned < SMALLEST_SHARE * np.ptp(truth.reference[truth.head]):
            self.remarks.append(
                f"{method}: the volume of {name} spans less than 1 % of the reference's range; "
                "is it in the unit of the data set's target?"
            )

    def methods(self, seed: int) -> dict[str, dict[str, Figure]]:
        """Sum up over subjects."""
        return {method: _over_subjects(each, seed) for method, each in self.found.items()}


def _over_subjects(each: dict[str, dict[str, float]], seed: int) -> dict[str, Figure]:
    names = dict.fromkeys(name for figures in each.values() for name in figures)
    found = {
        name: figure({s: of[name] for s, of in each.items() if name in of}, seed) for name in names
    }
    for name in ("slice_id_exact", "slice_id_within_one"):
        if name in found:
            hits = [of[name] * of[judge.SLICES] for of in each.values() if name in of]
            found[name]["pooled"] = sum(hits) / sum(found[judge.SLICES]["per_subject"].values())
    return found


def figure(per_subject: dict[str, float], seed: int) -> Figure:
    """Sum up one metric over subjects: mean, bootstrap 95 % interval of the mean, SD (n - 1)."""
    values = np.array(list(per_subject.values()))
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": float(values.mean()),
        "ci95": [float(low), float(high)],
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "per_subject": per_subject,
    }
