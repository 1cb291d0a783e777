"""One evaluation from beginning to end: what was asked for in, an `Evaluation` out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from rebrain_node.errors import RebrainError
from trainer.data.dataset import PreparedData, open_any
from trainer.evaluate.bridges import OURS, Bridge
from trainer.evaluate.contest import Contest, Found, Outcome, Progress
from trainer.evaluate.evaluation import BundleFacts, DatasetFacts, Document, Evaluation
from trainer.evaluate.judge import Mode
from trainer.evaluate.networks import open_network
from trainer.evaluate.predicted import Predictions
from trainer.evaluate.protocols import ProtocolRefused, Sparsity

Split = Literal["train", "validation", "test"]

FILLING: Final = ("linear-lut", "bridge-average", "bridge-linear", "bridge-slerp")
RESERVED: Final = frozenset({"constant", "identity", "lut", "exemplar", "template", OURS, *FILLING})
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


class EvaluationRefused(RebrainError):
    """What was asked for cannot be evaluated."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be evaluated, as the command takes it.

    Attributes
    ----------
    bundle : str
        `demo`, the folder of a bundle, or of a training run.
    predictions, networks : dict
        By name of the method: a folder of volumes; a bundle or a training run.
    seed : int
        Of the bridge's noise and of the bootstrap.
    """

    bundle: str
    data: Path
    sparsity: Sparsity
    split: Split = "test"
    mode: Mode = "standard"
    predictions: dict[str, Path] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    seed: int = 0


def evaluate(request: Request, progress: Progress) -> Evaluation:
    """Evaluate a bundle beside every baseline.

    Raises
    ------
    EvaluationRefused
        The name of a method is taken, or nobody is in the split.
    ProtocolRefused
        The data cannot be put under the protocol.
    DatasetRefused, PredictionRefused, NetworkRefused, BundleRefused
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
    networks = {
        name: open_network(where)
        for name, where in {OURS: request.bundle, **request.networks}.items()
    }
    contest = Contest(
        data=data,
        sparsity=request.sparsity,
        mode=request.mode,
        recipe=networks[OURS].recipe,
        bridges=[Bridge(name, network, data, request.seed) for name, network in networks.items()],
        predictions=[Predictions(*item) for item in request.predictions.items()],
    )
    outcome = contest.over(names, progress)
    return Evaluation(
        document=_document(request, data, networks[OURS].facts, outcome),
        montage=outcome.montages[0],
    )


def _check_names(request: Request) -> None:
    names = [*request.predictions, *request.networks]
    for name in names:
        if name in RESERVED or names.count(name) > 1:
            raise EvaluationRefused(f"the name {name!r} of a method is taken; give another")


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
