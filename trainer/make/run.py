"""From a folder of pairs to a released bundle, stage by stage, each as its own command does it.

    OUT/data/NAME   prepare     the prepared data set, split by subject
    OUT/run         bridge      the training run
    OUT/report      evaluation  the report on exactly these weights
    OUT/network     release     the bundle, refused where it is no better than what needs no network
    OUT/calibrated  calibrate   with calibrated uncertainty
    OUT/domain      fit-ood     with an out-of-distribution model
    OUT/bundle      bundle      the result, signed if there is a key

`OUT/records` says which stages are done, and with what (`trainer.make.records`).
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import torch

from rebrain_node.model.bundle import MANIFEST, ModelBundle, load_bundle
from rebrain_node.model.signature import PrivateKey, sign_bundle, signing_key
from trainer.calibrate.report import write_report as write_uncertainty
from trainer.calibrate.run import CalibrationSet, Steps, calibrate
from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData, digest_of
from trainer.data.prepare import Summary, Task, prepare
from trainer.data.protocols import Sparsity
from trainer.data.series import usual_factor
from trainer.evaluate.report_files import replaced, write_report
from trainer.evaluate.run import Progress, Request, evaluate
from trainer.make.records import MakeError, StageRunner, StageWork
from trainer.ood.fit import OodFitError
from trainer.release.bundle import release_ood, release_prepared
from trainer.release.card import ReleaseEvaluation, Title
from trainer.release.ood_model import ood_model_of, prepared_series
from trainer.release.requirements import ReleaseError
from trainer.train.bridge import fresh_state, train
from trainer.train.loop import CHECKPOINT
from trainer.train.prepared import PreparedSource
from trainer.train.workers import joined

STAGES: Final = (
    "prepare", "bridge", "evaluation", "release", "calibrate", "fit-ood", "bundle",
)  # fmt: skip
#: one subject for each role
LEAST_SUBJECTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class MakeRequest:
    """What is to be made.

    Attributes
    ----------
    task : Task
        What is prepared; its folder is OUT/data/NAME.
    config : TrainConfig
        Parameters of the training, and the recipe.
    name, version : str
        Of the bundle.
    override : str or None
        Why it is released although it is no better than what needs no network.
    key : PrivateKey or None
        That signs it.
    """

    task: Task
    config: TrainConfig
    out: Path
    name: str
    version: str
    override: str | None = None
    key: PrivateKey | None = None

    @property
    def data(self) -> Path:
        """Folder of the prepared data set."""
        return self.task.out

    @property
    def run(self) -> Path:
        """Folder of the training run."""
        return self.out / "run"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.out / "report"


@dataclass(frozen=True)
class Watcher:
    """Receives the progress."""

    begun: Callable[[str], None]  #: with the name of a stage that has work to do
    ended: Callable[[str, float | None], None]  #: with its seconds; None where it was done before
    started: Callable[[str, int], None]  #: with what is counted, and how many there are
    advance: Callable[[int], None]  #: with how many more are done
    told: Callable[[str], None]  #: with a line for the reader

    def one(self) -> None:
        """Count one more."""
        self.advance(1)


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    bundle: ModelBundle | None  #: None where it may not be released
    reason: str | None  #: why not, and the remedy
    refused: Mapping[str, str]  #: reason by subject that could not be used
    left_out: Mapping[str, str]  #: reason by stage that these data do not allow
    seconds: Mapping[str, float] = field(default_factory=dict)  #: by stage


def make(request: MakeRequest, watcher: Watcher) -> Outcome:
    """Make a bundle; called again, go on where it was interrupted.

    Raises
    ------
    MakeError
        There are too few subjects, or OUT holds what was made from other data or parameters.
    DatasetError, ProtocolError, CalibrationError, BundleError
        As their names say.
    """
    stages = StageRunner(request.out, watcher.begun, watcher.ended)
    refused = _prepare(request, watcher)
    data_digest = digest_of(request.data / "dataset.json")
    _train(request, stages, watcher, data_digest)
    weights = {"data": data_digest, "weights": digest_of(request.run / CHECKPOINT)}
    _evaluate(request, stages, watcher, weights)
    try:
        _release(request, stages, weights)
    except ReleaseError as refusal:
        return Outcome(None, str(refusal), refused, {}, stages.seconds)
    _calibrate(request, stages, watcher, data_digest)
    last, left_out = request.out / "calibrated", {}
    try:
        last = _fit_ood(request, stages, watcher, data_digest)
    except OodFitError as error:
        left_out["fit-ood"] = f"{error}; a node flags its results NO-DOMAIN"
    bundle = _finish(request, stages, last)
    return Outcome(bundle, None, refused, left_out, stages.seconds)


def _prepare(request: MakeRequest, watcher: Watcher) -> Mapping[str, str]:
    """Prepare and split the subjects; who is prepared already is kept. Return who is refused.

    Raises
    ------
    MakeError
        Too few can be used.
    """
    watcher.begun("prepare")
    start = monotonic()
    done: list[str] = []

    def subject(name: str, outcome: str) -> None:
        done.append(name)
        watcher.one()
        if outcome not in {"prepared", "kept"}:
            watcher.told(f"{name}: refused: {outcome}")

    summary = prepare(request.task, partial(watcher.started, "subjects"), subject)
    watcher.told(_in_words(summary))
    index = summary.index
    if index is None or not all(index.split.get(role) for role in ("train", "test")):
        usable = 0 if index is None else len(index.subjects)
        raise MakeError(
            f"{request.task.source}: {usable} of {len(done)} subjects can be used, and none is "
            f"left to train or to test; at least {LEAST_SUBJECTS} are needed, and a --split with "
            "both"
        )
    watcher.ended("prepare", round(monotonic() - start, 1))
    return summary.refused


def _in_words(summary: Summary) -> str:
    roles = {} if summary.index is None else summary.index.split
    return (
        f"{len(summary.prepared)} prepared, {len(summary.kept)} kept, {len(summary.refused)} "
        "refused; " + ", ".join(f"{len(names)} {role}" for role, names in roles.items())
    )


def _train(request: MakeRequest, stages: StageRunner, watcher: Watcher, data_digest: str) -> None:
    """Train the bridge network, from the last checkpoint on.

    Raises
    ------
    MakeError
        The run in OUT is of other data or parameters.
    """
    config = request.config
    inputs = {"data": data_digest, "parameters": _sha256(config.model_dump_json())}
    record, checkpoint = stages.record("bridge"), request.run / CHECKPOINT
    if record is not None and record.inputs != inputs and checkpoint.exists():
        raise MakeError(
            f"{request.run} was trained with other data or parameters than are given now: give "
            f"another --out, or remove {request.run} to train anew"
        )

    def work() -> None:
        request.run.mkdir(parents=True, exist_ok=True)
        with joined(None) as workers:
            state = fresh_state(config, workers.device)
            if checkpoint.exists():
                state.resume(checkpoint)
                watcher.told(f"training goes on from step {state.step} of {config.train.steps}")
            watcher.started("steps", config.train.steps)
            watcher.advance(state.step)
            counted = state.step

            def report(step: int, loss: float) -> None:  # noqa: ARG001 -- it is in curve.csv
                nonlocal counted
                watcher.advance(step - counted)
                counted = step

            train(config, PreparedSource.open(request.data, config.recipe), state, request.run,
                  report, workers)  # fmt: skip

    stages.run(StageWork("bridge", inputs, (f"run/{CHECKPOINT}",), work))


def _evaluate(
    request: MakeRequest, stages: StageRunner, watcher: Watcher, weights: Mapping[str, str]
) -> None:
    """Evaluate exactly these weights on the test subjects, thinned to a usual head CT."""
    sparsity = usual_sparsity(PreparedData.open(request.data))

    def work() -> None:
        asked = Request(bundle=str(request.run), data=request.data, sparsity=sparsity)
        progress = Progress(partial(watcher.started, "positions"), watcher.one)
        evaluation = evaluate(asked, progress)
        replaced(request.report, lambda part: write_report(evaluation, part))

    inputs = {**weights, "protocol": str(sparsity)}
    stages.run(StageWork("evaluation", inputs, ("report/evaluation.json",), work))


def usual_sparsity(data: PreparedData) -> Sparsity:
    """Return the protocol of thick slices under which the test subjects are usual head CT."""
    factor = min(usual_factor(data.subject(name)) for name in data.split["test"])
    return Sparsity("none") if factor == 1 else Sparsity("thick", factor)


def _release(request: MakeRequest, stages: StageRunner, weights: Mapping[str, str]) -> None:
    """Turn the run into a bundle; raises `ReleaseError` where that may not be."""
    evaluation = request.report / "evaluation.json"
    title = Title(
        request.name, request.version, ReleaseEvaluation.read(evaluation), request.override
    )
    inputs = {
        **weights,
        "evaluation": digest_of(evaluation),
        "title": f"{request.name} {request.version}",
        "override": request.override or "",
    }
    work = partial(
        release_prepared, request.config, request.run, request.data, request.out / "network", title
    )
    _run_bundle(stages, "release", "network", inputs, work)


def _calibrate(
    request: MakeRequest, stages: StageRunner, watcher: Watcher, data_digest: str
) -> None:
    """Calibrate the uncertainty on the pairs."""
    network, out = request.out / "network", request.out / "calibrated"

    def work() -> None:
        torch.set_num_threads(1)
        bundle = load_bundle(network)
        subjects = CalibrationSet.paired(PreparedData.open(request.data), bundle.recipe)
        steps = Steps(watcher.started, watcher.one)
        write_uncertainty(calibrate(bundle, subjects, out, request.version, steps), out)

    inputs = {"data": data_digest, "bundle": digest_of(network / MANIFEST)}
    _run_bundle(stages, "calibrate", "calibrated", inputs, work)


def _fit_ood(request: MakeRequest, stages: StageRunner, watcher: Watcher, data_digest: str) -> Path:
    """Fit the OOD model to the training subjects; raises `OodFitError` where there can be none."""
    calibrated, out = request.out / "calibrated", request.out / "domain"

    def work() -> None:
        bundle, data = load_bundle(calibrated), PreparedData.open(request.data)
        watcher.started("subjects", len(data.split["train"]))
        series = prepared_series(bundle, data, watcher.one)
        release_ood(bundle, ood_model_of(bundle, series), out)

    inputs = {"data": data_digest, "bundle": digest_of(calibrated / MANIFEST)}
    _run_bundle(stages, "fit-ood", "domain", inputs, work)
    return out


def _finish(request: MakeRequest, stages: StageRunner, last: Path) -> ModelBundle:
    """Put the finished bundle to OUT/bundle, and sign it if there is a key.

    Raises
    ------
    MakeError
        There is another bundle.
    """
    digest, out = digest_of(last / MANIFEST), request.out / "bundle"
    manifest = out / MANIFEST
    if manifest.exists() and digest_of(manifest) != digest:
        raise MakeError(
            f"{out} holds another bundle, and a bundle is never overwritten: give another --out, "
            "or move it away"
        )

    def work() -> None:
        shutil.copytree(last, out)

    _run_bundle(stages, "bundle", "bundle", {"bundle": digest}, work)
    bundle = load_bundle(out)
    if request.key is not None and signing_key(bundle) is None:
        bundle = sign_bundle(bundle, request.key)
    return bundle


def _run_bundle(
    stages: StageRunner,
    name: str,
    folder: str,
    inputs: Mapping[str, str],
    work: Callable[[], object],
) -> None:
    """Run a stage that writes a bundle; what an interrupted one left is removed first."""

    def anew() -> None:
        shutil.rmtree(stages.out / folder, ignore_errors=True)
        work()

    stages.run(StageWork(name, inputs, (f"{folder}/{MANIFEST}",), anew))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
