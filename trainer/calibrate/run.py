"""`rebrain-train calibrate` as a function: a bundle and subjects in, a calibrated bundle out."""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rebrain_node.domain.uncertainty import CalibrationSource
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.engine.open import GOLDEN_SCALE_INPUT, open_encoder, open_engine, open_scale
from rebrain_node.errors import RebrainError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.calibration import CALIBRATED_FILES, Calibration
from rebrain_node.model.card import Score
from rebrain_node.model.recipe import Abstain, Recipe
from rebrain_node.model.residual_scale import ResidualScaleHead
from rebrain_node.ports import Engine
from rebrain_node.retrieval.open import open_exemplars
from rebrain_node.steps.estimate import estimate
from rebrain_node.steps.synthesise import synthesise
from trainer.calibrate.intervals import SubjectResiduals, calibration_of, limits_of
from trainer.calibrate.paired_series import paired_series
from trainer.calibrate.report import TESTS, choice_of, report_of, scores_of
from trainer.calibrate.residuals import (
    NodeSteps,
    Residuals,
    Series,
    joined,
    residuals_of,
    simulate_series,
)
from trainer.calibrate.scale_head import STEPS, ScaleTraining, rounded, scales, train_scale_head
from trainer.calibrate.width_curve import compare, curved, width_curve
from trainer.data.dataset import PreparedData
from trainer.data.series import conditioned
from trainer.heads import Head
from trainer.release.bundle import check_unused, derive
from trainer.release.card import card_files
from trainer.release.export import Names, export_onnx, halves_of
from trainer.simulate.hounsfield import Tissues
from trainer.simulate.labels import LabelHead, read_maps

SEED = 505
ENGINE = "openvino"
TRAINING_SERIES, TRAINING_SLICES = 1, 12  # per subject; per kind in a series
HELD_OUT_SERIES, HELD_OUT_SLICES = 2, 10
TIMED_RUNS = 3


class CalibrationError(RebrainError):
    """A bundle cannot be calibrated; the message says what is missing."""


@dataclass(frozen=True)
class Steps:
    """Receives the progress: (what, number of steps), then a call for each step."""

    started: Callable[[str, int], None]
    advance: Callable[[], None]

    def over(self, what: str, names: Sequence[str]) -> Iterator[str]:
        """Yield each name and report when it is done."""
        self.started(what, len(names))
        for name in names:
            yield name
            self.advance()


@dataclass(frozen=True)
class SubjectSplit:
    """Subjects that train the residual-scale network, and subjects that set the widths.

    The former also trained the bridge network, so their residuals may be too small; the coverage
    rests on the latter alone, which no weight was trained on.
    """

    training: tuple[Head, ...]
    held_out: tuple[Head, ...]
    maps: Path  #: folder of their tissue maps

    @classmethod
    def of(cls, heads: Sequence[Head], maps: Path) -> "SubjectSplit":
        """Divide the heads that have maps by their role.

        Raises
        ------
        CalibrationError
            There is no training subject, or no held-out one.
        """
        usable = [h for h in heads if h.whole_head_truth and (maps / f"{h.name}.npz").exists()]
        training = tuple(h for h in usable if h.role == "train")
        held_out = tuple(h for h in usable if h.role != "train")
        for some, role in ((training, "train"), (held_out, "validation or demonstration")):
            if not some:
                raise CalibrationError(
                    f"{maps} holds maps of no subject with the role {role}; make them with "
                    "`rebrain-train tissue-maps`"
                )
        return cls(training, held_out, maps)

    def anatomy(self, head: Head) -> Tissues | LabelHead:
        """Read a head as the training samples of the bridge were simulated from it."""
        return read_maps(self.maps / f"{head.name}.npz", 1.0 if head.sharp else 2.0)


@dataclass(frozen=True)
class CalibrationSet:
    """The subjects of a calibration, and their series.

    Attributes
    ----------
    training, held_out : tuple of str
        Names, as in `SubjectSplit`.
    series : callable
        Gives the series of a subject, by its name and a generator of random numbers.
    source : str
        What the series are.
    recipe : Recipe
        By which they are conditioned.
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]
    series: Callable[[str, Generator], Iterable[Series]]
    source: CalibrationSource
    recipe: Recipe

    @classmethod
    def simulated(cls, split: SubjectSplit, recipe: Recipe) -> "CalibrationSet":
        """Simulate series of heads with tissue maps."""
        heads = {head.name: head for head in (*split.training, *split.held_out)}
        training = tuple(head.name for head in split.training)

        def series(name: str, rng: Generator) -> list[Series]:
            count = TRAINING_SERIES if name in training else HELD_OUT_SERIES
            anatomy = split.anatomy(heads[name])
            return [simulate_series(anatomy, rng) for _ in range(count)]

        held_out = tuple(head.name for head in split.held_out)
        return cls(training, held_out, series, "simulated CT", recipe)

    @classmethod
    def paired(cls, data: PreparedData, recipe: Recipe) -> "CalibrationSet":
        """Take the pairs of a prepared data set; who does not train is held out.

        Raises
        ------
        CalibrationError
            Nobody trains, nobody is held out, or the slices have no positions.
        """
        held_out = (*data.split["validation"], *data.split["test"])
        if not data.volumetric:
            raise CalibrationError(
                f"{data.origin} holds single slices without positions in millimetres: a "
                "calibration needs volumes"
            )
        for some, role in ((data.split["train"], "train"), (held_out, "validation or test")):
            if not some:
                raise CalibrationError(
                    f"{data.origin} has no subject with the role {role}; prepare more subjects"
                )
        return cls(
            tuple(data.split["train"]),
            held_out,
            lambda name, _: paired_series(data, name, recipe),
            "paired scans",
            conditioned(recipe, data.source_kind),
        )

    def residuals(self, name: str, steps: NodeSteps) -> Residuals:
        """Compare what the node draws of a subject's series with the truth."""
        rng = np.random.default_rng((SEED, zlib.crc32(name.encode())))
        return residuals_of(name, self.series(name, rng), steps, rng)


def calibrate(
    bundle: ModelBundle,
    subjects: CalibrationSet,
    out: Path,
    version: str,
    steps: Steps,
) -> dict[str, Any]:
    """Write a calibrated bundle at `out` and return the report.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    """
    check_unused(out)
    model = load_model(bundle)
    training = NodeSteps(model, subjects.recipe, TRAINING_SLICES)
    held_out = NodeSteps(model, subjects.recipe, HELD_OUT_SLICES)
    training_residuals = [
        subjects.residuals(name, training)
        for name in steps.over("training subjects", subjects.training)
    ]
    held_out_residuals = [
        subjects.residuals(name, held_out)
        for name in steps.over("held-out subjects", subjects.held_out)
    ]
    steps.started("residual-scale network", STEPS)
    settings = ScaleTraining(SEED, STEPS)
    head = rounded(
        train_scale_head(joined(training_residuals), settings, lambda _: steps.advance())
    )
    scaled = [SubjectResiduals(each, scales(head, each)) for each in held_out_residuals]
    curve = width_curve([SubjectResiduals(each, scales(head, each)) for each in training_residuals])
    compared = compare(scaled, curve)
    scaled = curved(scaled, curve) if compared.kept else scaled
    calibration = calibration_of(scaled, subjects.source)
    if compared.kept:
        calibration = calibration.model_copy(update={"curve": curve})
    report = report_of(bundle, scaled, calibration, [r.subject for r in training_residuals])
    report["width_curve"] = {**asdict(compared), "sentence": compared.sentence}
    report["spread_factor"] = float(head.factor) if head.spreads else None
    abstain = limits_of(scaled, calibration)
    parts = CalibrationParts(
        head=head,
        calibration=calibration,
        abstain=abstain,
        scores=scores_of(report),
        choice=choice_of(report),
    )
    written = write_calibrated(bundle, parts, out, version)
    steps.started("cost", TIMED_RUNS)
    example = next(iter(subjects.series(subjects.held_out[0], np.random.default_rng(SEED))))
    volume = held_out.synthesise(example, np.random.default_rng(SEED))
    report["cost"] = _cost_of(volume, written, calibration, model.engine, steps.advance)
    report["abstain"] = abstain.model_dump()
    report["written"] = {"version": version, "digest": written.digest}
    return report


def load_model(bundle: ModelBundle) -> LoadedModel:
    """Load a bundle as the node does, on one thread, so that figures and times do not vary."""
    engine = open_engine(ENGINE, bundle, 1)
    if not bundle.recipe.retrieves:
        return LoadedModel.of(bundle, engine)
    encoder = open_encoder(ENGINE, bundle, 1)
    exemplars = open_exemplars(bundle, encoder)
    return LoadedModel.of(bundle, engine, encoder=encoder, exemplars=exemplars)


@dataclass(frozen=True)
class CalibrationParts:
    """What a calibration adds to a bundle; `write_calibrated` fills in the digests of its files."""

    head: ResidualScaleHead
    calibration: Calibration
    abstain: Abstain
    scores: tuple[Score, ...]
    choice: str


def write_calibrated(
    bundle: ModelBundle, parts: CalibrationParts, out: Path, version: str
) -> ModelBundle:
    """Write a new bundle with a calibration; raises as `derive`."""
    golden = load_tensors(bundle.read("golden.safetensors"))
    x, s = golden["x"].float(), torch.tensor([GOLDEN_SCALE_INPUT])
    with torch.no_grad():
        golden["b"] = parts.head(x, s)
    recipe = bundle.recipe.model_copy(update={"abstain": parts.abstain})
    changed = {
        "scale.onnx": export_onnx(parts.head, (x, s), Names(("x", "s"), ("b",))),
        "scale.safetensors": save_tensors(halves_of(parts.head.state_dict())),
        "golden.safetensors": save_tensors(golden),
        "recipe.json": recipe.to_json().encode(),
    }
    digests = {
        name: hashlib.sha256(changed[name] if name in changed else bundle.read(name)).hexdigest()
        for name in CALIBRATED_FILES
    }
    calibration = parts.calibration.model_copy(update={"files": digests})
    changed["calibration.json"] = calibration.to_json().encode()
    earlier = (
        score for score in bundle.card.scores if not score.test.startswith(tuple(TESTS.values()))
    )
    card = bundle.card.model_copy(
        update={
            "version": version,
            "scores": (*earlier, *parts.scores),
            "choices": (*bundle.card.choices, parts.choice),
        }
    )
    return derive(bundle, changed | card_files(card), out, version)


def _cost_of(
    volume: SyntheticVolume,
    bundle: ModelBundle,
    calibration: Calibration,
    engine: Engine,
    advance: Callable[[], None],
) -> dict[str, float]:
    """Return the median processor time of synthesis and estimate, in alternating runs."""
    scale = open_scale(ENGINE, bundle, 1)
    recipe = bundle.recipe.model_copy(update={"z_filter_mm": 0.0})  # of some slices
    synthesis, added = [], []
    for seed in range(TIMED_RUNS):
        start = time.process_time()
        again = synthesise(volume.prepared, volume.guides, engine, recipe, seed)
        between = time.process_time()
        estimate(again, recipe, scale, calibration)
        synthesis.append(between - start)
        added.append(time.process_time() - between)
        advance()
    slices = len(volume.guides)
    return {
        "synthesis_s_per_slice": float(np.median(synthesis)) / slices,
        "estimate_s_per_slice": float(np.median(added)) / slices,
        "share": float(np.median(np.array(added) / np.array(synthesis))),
    }
