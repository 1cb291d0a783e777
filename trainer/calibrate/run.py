"""`rebrain-train calibrate` as a plain function: a bundle and maps of heads in, a bundle out."""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.domain.volume import SliceKind
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.engine.open import open_encoder, open_engine
from rebrain_node.errors import RebrainError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.calibration import Calibration, Width
from rebrain_node.retrieval.open import open_exemplars
from trainer.calibrate.bundle import CalibrationParts, limits_of, rounded, write_calibrated
from trainer.calibrate.conformal import width
from trainer.calibrate.cost import RUNS, cost_of
from trainer.calibrate.figures import SubjectResiduals
from trainer.calibrate.report import choice_of, report_of, scores_of
from trainer.calibrate.residuals import KINDS, NodeSteps, Residuals, joined, residuals_of
from trainer.calibrate.scale_head import STEPS, ScaleTraining, scales, teach
from trainer.calibrate.series import draw_series
from trainer.heads import Head
from trainer.release.bundle import check_unused
from trainer.simulate.hounsfield import Tissues, sharpened, tissues

ALPHA = 0.1
SEED = 505
ENGINE = "openvino"
TEACHING_SERIES, TEACHING_SLICES = 1, 12  # of a head; of each kind in a series
CALIBRATING_SERIES, CALIBRATING_SLICES = 2, 10


class CalibrationError(RebrainError):
    """A bundle cannot be calibrated; the message says what is missing."""


@dataclass(frozen=True)
class Steps:
    """Where progress goes: (what, how many steps), then each step."""

    started: Callable[[str, int], None]
    advance: Callable[[], None]

    def through(self, what: str, heads: Sequence[Head]) -> Iterator[Head]:
        """Go through heads one by one and tell of each when it is done."""
        self.started(what, len(heads))
        for head in heads:
            yield head
            self.advance()


@dataclass(frozen=True)
class SubjectSplit:
    """Who teaches the head and who sets the widths: never the same person.

    The head learns from training heads of the bridge, whose residuals may be a little small; the
    widths, which alone promise anything, come from heads that no weight ever saw.
    """

    teaching: tuple[Head, ...]
    calibrating: tuple[Head, ...]
    maps: Path  #: folder of their anatomy maps

    @classmethod
    def of(cls, heads: Sequence[Head], maps: Path) -> "SubjectSplit":
        """Divide the heads that have maps by their one role.

        Raises
        ------
        CalibrationError
            No head teaches, or none calibrates.
        """
        found = [h for h in heads if h.whole_head_truth and (maps / f"{h.name}.npz").exists()]
        teaching = tuple(h for h in found if h.role == "train")
        calibrating = tuple(h for h in found if h.role != "train")
        for some, role in ((teaching, "train"), (calibrating, "validation or demonstration")):
            if not some:
                raise CalibrationError(
                    f"{maps} holds maps of no head with the role {role}; make them with "
                    "`rebrain-train head`"
                )
        return cls(teaching, calibrating, maps)

    def anatomy(self, head: Head) -> Tissues:
        """Read a head as the samples of the bridge were drawn from it."""
        with np.load(self.maps / f"{head.name}.npz", allow_pickle=False) as arrays:
            return sharpened(tissues(dict(arrays)), 1.0 if head.sharp else 2.0)

    def residuals(self, head: Head, path: NodeSteps, series: int) -> Residuals:
        """Draw so many series of a head and hold them against the truth."""
        rng = np.random.default_rng((SEED, zlib.crc32(head.name.encode())))
        anatomy = self.anatomy(head)
        many = [draw_series(anatomy, rng) for _ in range(series)]
        return residuals_of(head.name, many, path, rng)


def calibrate(
    bundle: ModelBundle, people: SubjectSplit, out: Path, version: str, steps: Steps
) -> dict[str, Any]:
    """Calibrate a bundle on people it never saw, write a new one at `out`, return the report.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    """
    check_unused(out)
    model = opened(bundle)
    teaching = NodeSteps(model, bundle.recipe, TEACHING_SLICES)
    calibrating = NodeSteps(model, bundle.recipe, CALIBRATING_SLICES)
    taught_by = [
        people.residuals(head, teaching, TEACHING_SERIES)
        for head in steps.through("teaching heads", people.teaching)
    ]
    held_out = [
        people.residuals(head, calibrating, CALIBRATING_SERIES)
        for head in steps.through("held-out heads", people.calibrating)
    ]
    steps.started("residual-scale head", STEPS)
    head = rounded(teach(joined(taught_by), ScaleTraining(SEED, STEPS), lambda _: steps.advance()))
    judged = [SubjectResiduals(each, scales(head, each)) for each in held_out]
    calibration = calibration_of(judged)
    report = report_of(bundle, judged, calibration, [each.person for each in taught_by])
    abstain = limits_of(judged, calibration)
    added = CalibrationParts(
        head=head,
        calibration=calibration,
        abstain=abstain,
        scores=scores_of(report),
        choice=choice_of(report),
    )
    written = write_calibrated(bundle, added, out, version)
    steps.started("cost", RUNS)
    drawn = calibrating.draw(
        draw_series(people.anatomy(people.calibrating[0]), np.random.default_rng(SEED)),
        np.random.default_rng(SEED),
    )
    report["cost"] = cost_of(drawn, written, model.engine, steps.advance)
    report["abstain"] = abstain.model_dump()
    report["written"] = {"version": version, "digest": written.digest}
    return report


def opened(bundle: ModelBundle) -> LoadedModel:
    """Open a bundle as the node does, on one thread: figures and times do not hang on more."""
    engine = open_engine(ENGINE, bundle, 1)
    if not bundle.recipe.retrieves:
        return LoadedModel.of(bundle, engine)
    encoder = open_encoder(ENGINE, bundle, 1)
    exemplars = open_exemplars(bundle, encoder)
    return LoadedModel.of(bundle, engine, encoder=encoder, exemplars=exemplars)


def calibration_of(judged: Sequence[SubjectResiduals]) -> Calibration:
    """Set the widths of every kind of slice; a kind that was not met takes the widest other."""
    widths: dict[SliceKind, Width] = {}
    for kind in KINDS:
        met = [each.scores(kind) for each in judged if each.has(kind)]
        if met:
            widths[kind] = width(met, ALPHA)
    people = min(each.people for each in widths.values())
    widest = max(each.scales for each in widths.values())
    for kind in KINDS:
        widths.setdefault(kind, Width(scales=widest, people=0, conformal=False))
    digests = "".join(each.residuals.digest for each in judged)
    return Calibration(
        alpha=ALPHA,
        people=people,
        label=UncertaintyInterpretation(alpha=ALPHA, subjects=people).label,
        widths=widths,
        set_digest=hashlib.sha256(digests.encode()).hexdigest(),
        subjects=tuple(each.residuals.person for each in judged),
        files={},
    )
