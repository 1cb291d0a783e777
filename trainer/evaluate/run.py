"""One evaluation: every method on every subject, summarised over subjects as a document."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from rebrain_node.errors import RebrainError
from rebrain_node.model.recipe import Recipe
from trainer.data.archive import open_any
from trainer.data.dataset import PreparedData, Volume
from trainer.data.placing import unit
from trainer.data.protocols import Case, ProtocolError, Sparsity, thinned
from trainer.evaluate.baselines import Baselines, why_no_template
from trainer.evaluate.methods import NetworkMethod, Predictions, write_prediction
from trainer.evaluate.metrics import SLICES, Mode, Reference, metrics_of_volume
from trainer.evaluate.networks import open_network
from trainer.evaluate.results import (
    BundleFacts,
    DatasetFacts,
    Document,
    Evaluation,
    MetricSummary,
    Montage,
)
from trainer.release.card import OURS

Found = dict[str, dict[str, dict[str, float]]]  # method, subject, metric

RESAMPLES: Final = 2000  # of the bootstrap over subjects
SMALLEST_SHARE: Final = 0.01  # of the reference's range that a prediction should span


@dataclass(frozen=True)
class Progress:
    """Called with the number of positions before the first is synthesised, and after each."""

    started: Callable[[int], None]
    advance: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The methods compared, and the data."""

    data: PreparedData
    sparsity: Sparsity
    mode: Mode
    recipe: Recipe  #: its brain window is the image that the baselines see
    bridges: Sequence[NetworkMethod]
    predictions: Sequence[Predictions] = ()
    written: Path | None = None  #: folder for the volumes of the networks; None writes none

    def run(self, names: Sequence[str], progress: Progress) -> "Outcome":
        """Synthesise and score subject after subject; one is in memory at a time.

        Parameters
        ----------
        names : sequence of str
            Subjects scored, at least one.

        Raises
        ------
        PredictionError
            A volume of another method is missing or cannot be scored.
        """
        for other in self.predictions:
            for name in names:
                other.path(name)  # a missing file is named before an hour of synthesis
        training_names = self.data.split["train"] or tuple(names)
        positions = sum(
            bridge.positions(self._case(name)) for name in names for bridge in self.bridges
        )
        placed = 0 if why_no_template(self.data) else len(self.data.split["train"])
        progress.started(len(training_names) + placed + positions)
        baselines = Baselines.fit(self.data, training_names, self.recipe, progress.advance)
        outcome = Outcome()
        if isinstance(baselines.template, str):
            outcome.skipped["template"] = baselines.template
        for name in names:
            case = self._case(name)
            truth = Reference.of(case, volumetric=self.data.volumetric)
            outcome.slices[name] = len(case.rows)
            kept = {}
            for method, volume in self._synthesised(case, truth, baselines, progress):
                outcome.found.setdefault(method, {})[name] = metrics_of_volume(
                    volume, truth, self.mode
                )
                outcome.remark(method, name, volume, truth)
                if not outcome.montages:
                    kept[method] = volume
            if not outcome.montages:
                outcome.montages.append(self._montage(case, truth, kept))
        outcome.remarks.extend(baselines.remarks)
        return outcome

    def _case(self, name: str) -> Case:
        return thinned(self.data.subject(name), self.sparsity)

    def _synthesised(
        self, case: Case, truth: Reference, baselines: Baselines, progress: Progress
    ) -> Iterator[tuple[str, Volume]]:
        yield from baselines.synthesise(case)
        for bridge in self.bridges:
            for method, volume in bridge.synthesise(case, progress.advance):
                if self.written is not None:
                    write_prediction(self.written / method, case, volume)
                yield method, volume
        for other in self.predictions:
            yield other.name, truth.scale.map(other.read(case.subject)[case.rows])

    def _montage(self, case: Case, truth: Reference, kept: dict[str, Volume]) -> Montage:
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
    """The results of a comparison; filled subject by subject."""

    found: Found = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)  #: positions scored, by subject
    montages: list[Montage] = field(default_factory=list)  #: of the first subject
    skipped: dict[str, str] = field(default_factory=dict)  #: why a method has no figure, by method
    remarks: list[str] = field(default_factory=list)  #: what a reader of the figures should know

    def remark(self, method: str, name: str, volume: Volume, truth: Reference) -> None:
        """Remark on a volume that seems to be in another unit than the reference."""
        spanned = float(np.ptp(volume[truth.head]))
        if method != "constant" and spanned < SMALLEST_SHARE * np.ptp(truth.reference[truth.head]):
            self.remarks.append(
                f"{method}: the volume of {name} spans less than 1 % of the reference's range; "
                "is it in the unit of the data set's target?"
            )

    def methods(self, seed: int) -> dict[str, dict[str, MetricSummary]]:
        """Sum up over subjects."""
        return {method: _over_subjects(each, seed) for method, each in self.found.items()}


def _over_subjects(each: dict[str, dict[str, float]], seed: int) -> dict[str, MetricSummary]:
    names = dict.fromkeys(name for of in each.values() for name in of)
    found = {
        name: summarise({s: of[name] for s, of in each.items() if name in of}, seed)
        for name in names
    }
    for name in ("slice_id_exact", "slice_id_within_one"):
        if name in found:
            hits = [of[name] * of[SLICES] for of in each.values() if name in of]
            found[name]["pooled"] = sum(hits) / sum(found[SLICES]["per_subject"].values())
    return found


def summarise(per_subject: dict[str, float], seed: int) -> MetricSummary:
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


Split = Literal["train", "validation", "test"]

FILLING: Final = ("linear-lut", "bridge-average", "bridge-linear", "bridge-slerp")
RESERVED: Final = frozenset({"constant", "identity", "lut", "exemplar", "template", OURS, *FILLING})
SCALE_NOTE: Final = (
    "Every image is scored in the unit in which the percentiles 0.5 and 99.5 of the reference "
    "within the head are 0 and 1; our methods synthesise in that unit, predictions of others are "
    "read in the unit of the data set's target."
)
PAIRS_NOTE: Final = (
    "The pairs are single slices, 8-bit and windowed, each stretched to a square: no figure is in "
    "HU or millimetres, SSIM is taken within slices, and head-mask scores hardly separate a "
    "constant from a network."
)
REGISTERED_NOTE: Final = (
    "Each real T1 slice was moved onto its CT by a shift found from the CT and the real T1 alone "
    "(`rebrain-train register-pairs`): these figures are not comparable with those of the pairs as "
    "published."
)


class EvaluationError(RebrainError):
    """The request cannot be evaluated."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be evaluated, as the command takes it."""

    bundle: str  #: `demo`, the folder of a bundle, or of a training run
    data: Path
    sparsity: Sparsity
    split: Split = "test"
    mode: Mode = "standard"
    #: predictions, networks: by name of the method: a folder of volumes; a bundle or a training run
    predictions: dict[str, Path] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    registered: bool = False  #: T1 of an archive of pairs is moved onto its CT
    written: Path | None = None  #: folder that the volumes of the networks are written to
    seed: int = 0  #: of the bridge's noise and of the bootstrap


def evaluate(request: Request, progress: Progress) -> Evaluation:
    """Evaluate a bundle beside every baseline.

    Raises
    ------
    EvaluationError
        The name of a method is taken, or the split holds no subject.
    ProtocolError
        The data cannot be put under the protocol.
    DatasetError, PredictionError, NetworkError, BundleError
        As their names say; each names the file at fault.
    """
    _check_names(request)
    data = open_any(request.data, registered=request.registered)
    if not data.volumetric and request.sparsity.kind != "none":
        raise ProtocolError(
            f"{request.data}: slices without positions in mm cannot be thinned; "
            "use the protocol none"
        )
    names = data.split[request.split]
    if not names:
        raise EvaluationError(f"{request.data}: no subject is in the split {request.split!r}")
    networks = {
        name: open_network(where)
        for name, where in {OURS: request.bundle, **request.networks}.items()
    }
    comparison = Comparison(
        data=data,
        sparsity=request.sparsity,
        mode=request.mode,
        recipe=networks[OURS].recipe,
        bridges=[
            NetworkMethod(name, network, data, request.seed) for name, network in networks.items()
        ],
        predictions=[Predictions(*item) for item in request.predictions.items()],
        written=request.written,
    )
    outcome = comparison.run(names, progress)
    return Evaluation(
        document=_document(request, data, networks[OURS].facts, outcome),
        montage=outcome.montages[0],
    )


def _check_names(request: Request) -> None:
    names = [*request.predictions, *request.networks]
    for name in names:
        if name in RESERVED or names.count(name) > 1:
            raise EvaluationError(f"the name {name!r} of a method is taken; give another")


def _document(
    request: Request, data: PreparedData, bundle: BundleFacts, outcome: Outcome
) -> Document:
    facts: DatasetFacts = {
        "name": request.data.resolve().name,
        "source_kind": data.source_kind,
        "volumetric": data.volumetric,
        "licence": data.licence,
        "origin": data.origin,
        "split": request.split,
        "subjects": list(outcome.slices),
        "slices": outcome.slices,
    }
    notes = [SCALE_NOTE] if data.volumetric else [SCALE_NOTE, PAIRS_NOTE]
    notes += [REGISTERED_NOTE] if request.registered else []
    return {
        "format": 1,
        "dataset": facts,
        "protocol": str(request.sparsity),
        "mode": request.mode,
        "bundle": bundle,
        "seed": request.seed,
        "methods": outcome.methods(request.seed),
        "skipped": outcome.skipped | _nothing_to_fill(request.sparsity, outcome.found),
        "notes": [*notes, *outcome.remarks],
        "montage": outcome.montages[0].subject,
    }


def _nothing_to_fill(sparsity: Sparsity, found: Found) -> dict[str, str]:
    whole = f"the protocol {sparsity} leaves no position to fill"
    return {name: whole for name in FILLING if name not in found}
