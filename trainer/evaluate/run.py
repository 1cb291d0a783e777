"""One evaluation from beginning to end: data, protocol, methods, figures, document."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rebrain_node.errors import RebrainError
from trainer.dataset import PreparedData, open_any
from trainer.evaluate import judge
from trainer.evaluate.bridges import OURS, Bridge
from trainer.evaluate.evaluation import DatasetFacts, Document, Evaluation, Figure, Montage
from trainer.evaluate.intensities import unit
from trainer.evaluate.methods import NO_TEMPLATE, Baselines
from trainer.evaluate.networks import Network, open_network
from trainer.evaluate.predicted import Predictions
from trainer.evaluate.protocols import Case, ProtocolRefused, Sparsity, thinned

Split = Literal["train", "validation", "test"]
Volume = NDArray[np.float32]

RESAMPLES: Final = 2000  # of the bootstrap over subjects
RESERVED: Final = frozenset(
    "constant identity lut linear-lut exemplar template bridge-average bridge-linear "
    "bridge-slerp rebrain".split()
)
SCALE_NOTE: Final = (
    "Every image is scored in the unit in which the percentiles 0.5 and 99.5 of the reference "
    "within the head are 0 and 1; our methods draw in that unit, predictions of others are read "
    "in the unit of the data set's target."
)
PAIRS_NOTE: Final = (
    "The pairs are single slices, 8-bit and windowed, each stretched to a square: no figure is in "
    "HU or millimetres, SSIM is taken within slices, and head-mask scores hardly separate a "
    "constant from a network."
)
SMALL_UNIT_NOTE: Final = (
    "{name}: the volume of {subject} spans less than 1 % of the reference's range; is it in the "
    "unit of the data set's target?"
)


class EvaluationRefused(RebrainError):
    """What was asked for cannot be evaluated."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be evaluated, as the command takes it.

    Attributes
    ----------
    bundle : str
        `demo` or the folder of a bundle.
    predictions, networks : dict of str to str
        By name of the method: a folder of volumes; a bundle or a training run.
    seed : int
        Of the bridge's noise and of the bootstrap.
    """

    bundle: str
    data: Path
    sparsity: Sparsity
    split: Split = "test"
    mode: judge.Mode = "standard"
    predictions: dict[str, Path] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """Called with the number of positions to be drawn before the first, and after each."""

    started: Callable[[int], None]
    advance: Callable[[], None]


def evaluate(request: Request, progress: Progress) -> Evaluation:
    """Evaluate a bundle beside every baseline.

    Raises
    ------
    EvaluationRefused
        A name is taken twice, or nobody is in the split.
    DatasetRefused, ProtocolRefused, PredictionRefused, NetworkRefused, BundleRefused
        As their names say; each names the file at fault.
    """
    _check_names(request)
    data = open_any(request.data)
    if not data.volumetric and request.sparsity.kind != "none":
        raise ProtocolRefused(
            f"{request.data}: slices without positions in mm cannot be thinned; "
            "use the protocol none"
        )
    names = data.split[request.split]
    if not names:
        raise EvaluationRefused(f"{request.data}: nobody is in the split {request.split!r}")
    ours = open_network(request.bundle)
    return _Run(request, data, ours, progress).over(names)


def _check_names(request: Request) -> None:
    names = [*request.predictions, *request.networks]
    for name in names:
        if name in RESERVED or names.count(name) > 1 or not name:
            raise EvaluationRefused(f"the name {name!r} of a method is taken; give another")


@dataclass
class _Run:
    request: Request
    data: PreparedData
    ours: Network
    progress: Progress

    def __post_init__(self) -> None:
        recipe = self.ours.recipe
        self.bridges = [
            Bridge(OURS, self.ours, self.data, self.request.seed),
            *(
                Bridge(name, open_network(where, recipe), self.data, self.request.seed)
                for name, where in self.request.networks.items()
            ),
        ]
        self.others = [Predictions(*item) for item in self.request.predictions.items()]
        self.notes = [SCALE_NOTE] if self.data.volumetric else [SCALE_NOTE, PAIRS_NOTE]

    def over(self, names: tuple[str, ...]) -> Evaluation:
        """Draw and judge subject after subject; one is in memory at a time."""
        for other in self.others:
            for name in names:
                other.path(name)  # a missing file is found before an hour of drawing
        teachers = self.data.split["train"] or names
        cases = {name: self._positions(name) for name in names}
        self.progress.started(len(teachers) + sum(cases.values()))
        baselines = Baselines.taught(
            self.data, teachers, self.ours.recipe, self.progress.advance
        )
        found: dict[str, dict[str, dict[str, float]]] = {}
        montage: Montage | None = None
        slices = {}
        for name in names:
            case = thinned(self.data.subject(name), self.request.sparsity)
            truth = judge.Truth.of(case, volumetric=self.data.volumetric)
            slices[name] = len(case.rows)
            kept = {}
            for method, volume in self._drawn(case, truth, baselines):
                found.setdefault(method, {})[name] = judge.figures(
                    volume, truth, self.request.mode
                )
                if montage is None:
                    kept[method] = volume
            montage = montage or self._montage(case, truth, kept)
        if montage is None:
            raise EvaluationRefused(f"{self.request.data}: nobody was scored")
        return Evaluation(document=self._document(names, slices, found), montage=montage)

    def _positions(self, name: str) -> int:
        case = thinned(self.data.subject(name), self.request.sparsity)
        return sum(bridge.positions(case) for bridge in self.bridges)

    def _drawn(
        self, case: Case, truth: judge.Truth, baselines: Baselines
    ) -> Iterator[tuple[str, Volume]]:
        yield from baselines.draw(case)
        for bridge in self.bridges:
            yield from bridge.draw(case, self.progress.advance)
        for other in self.others:
            volume = truth.scale.map(other.read(case.subject)[case.rows])
            if np.ptp(volume[truth.head]) < 0.01 * np.ptp(truth.reference[truth.head]):
                self.notes.append(
                    SMALL_UNIT_NOTE.format(name=other.name, subject=case.subject.name)
                )
            yield other.name, volume

    def _montage(self, case: Case, truth: judge.Truth, kept: dict[str, Volume]) -> Montage:
        recipe = self.ours.recipe
        return Montage(
            subject=case.subject.name,
            source=case.linear(unit(case.source, case.head, self.data.source_kind, recipe)),
            reference=truth.reference,
            mask=truth.head,
            predictions=kept,
            positions_mm=case.targets_mm,
            measured=case.measured,
            pixel_mm=case.subject.pixel_mm,
        )

    def _document(
        self,
        names: tuple[str, ...],
        slices: dict[str, int],
        found: dict[str, dict[str, dict[str, float]]],
    ) -> Document:
        facts: DatasetFacts = {
            "name": self.request.data.resolve().name,
            "source_kind": self.data.source_kind,
            "volumetric": self.data.volumetric,
            "licence": self.data.licence,
            "origin": self.data.origin,
            "split": self.request.split,
            "subjects": list(names),
            "slices": slices,
        }
        return {
            "format": 1,
            "dataset": facts,
            "protocol": str(self.request.sparsity),
            "mode": self.request.mode,
            "bundle": self.ours.facts,
            "seed": self.request.seed,
            "methods": {
                method: _over_subjects(by_subject, self.request.seed)
                for method, by_subject in found.items()
            },
            "skipped": self._skipped(found),
            "notes": self.notes,
            "montage": names[0],
        }

    def _skipped(self, found: dict[str, dict[str, dict[str, float]]]) -> dict[str, str]:
        whole = f"the protocol {self.request.sparsity} leaves no position to fill"
        return {"template": NO_TEMPLATE} | {
            name: whole for name in sorted(RESERVED - found.keys() - {"template"})
        }


def _over_subjects(by_subject: dict[str, dict[str, float]], seed: int) -> dict[str, Figure]:
    names = dict.fromkeys(name for figures in by_subject.values() for name in figures)
    return {
        name: figure({s: found[name] for s, found in by_subject.items() if name in found}, seed)
        for name in names
    }


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
