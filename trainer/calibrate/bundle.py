"""From a bundle without a calibration to one with: the head, its golden output, limits, card."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rebrain_node.engine.open import GOLDEN_SCALE_INPUT
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.calibration import CALIBRATED_FILES, Calibration
from rebrain_node.model.card import Card, Score
from rebrain_node.model.recipe import Abstain
from rebrain_node.model.residual_scale import ResidualScaleHead
from trainer.calibrate.figures import SubjectResiduals
from trainer.release.bundle import derive
from trainer.release.card import card_files
from trainer.release.export import Names, export_onnx, halves_of

#: one voxel in ten of people like these is in the mask, one slice in twenty is marked
VOXEL_QUANTILE, SLICE_QUANTILE = 0.90, 0.95
#: five times as many marked slices as people like these have
SERIES_SHARE = 0.25


@dataclass(frozen=True)
class CalibrationParts:
    """What a calibration adds to a bundle; the digests of its files are filled in here."""

    head: ResidualScaleHead
    calibration: Calibration
    abstain: Abstain
    scores: tuple[Score, ...]
    choice: str


def rounded(head: ResidualScaleHead) -> ResidualScaleHead:
    """Round the weights to half precision, as they are stored: widths are set on these."""
    found = ResidualScaleHead()
    found.load_state_dict({name: w.float() for name, w in halves_of(head.state_dict()).items()})
    return found.eval()


def write_calibrated(
    bundle: ModelBundle, added: CalibrationParts, out: Path, version: str
) -> ModelBundle:
    """Write a new bundle with what a calibration adds; raises as `derive`."""
    golden = load_tensors(bundle.read("golden.safetensors"))
    x, told = golden["x"].float(), torch.tensor([GOLDEN_SCALE_INPUT])
    with torch.no_grad():
        golden["b"] = added.head(x, told)
    halves = halves_of(added.head.state_dict())
    recipe = bundle.recipe.model_copy(update={"abstain": added.abstain})
    changed = {
        "scale.onnx": export_onnx(added.head, (x, told), Names(("x", "s"), ("b",))),
        "scale.safetensors": save_tensors(halves),
        "golden.safetensors": save_tensors(golden),
        "recipe.json": recipe.to_json().encode(),
    }
    digests = {
        name: hashlib.sha256(changed[name] if name in changed else bundle.read(name)).hexdigest()
        for name in CALIBRATED_FILES
    }
    calibration = added.calibration.model_copy(update={"files": digests})
    changed["calibration.json"] = calibration.to_json().encode()
    changed |= card_files(_card(bundle.card, added, version))
    return derive(bundle, changed, out, version)


def _card(card: Card, added: CalibrationParts, version: str) -> Card:
    tests = {score.test for score in added.scores}
    return card.model_copy(
        update={
            "version": version,
            "scores": (*(s for s in card.scores if s.test not in tests), *added.scores),
            "choices": (*card.choices, added.choice),
        }
    )


def limits_of(judged: Sequence[SubjectResiduals], calibration: Calibration) -> Abstain:
    """Set the limits by the held-out people: what is rare among them is not to be trusted."""
    widths = []
    for each in judged:
        lambdas = [calibration.width_of(kind) for kind in each.residuals.kinds]
        widths.append(each.scale * np.array(lambdas, dtype=np.float32)[:, None, None])
    means = [
        float(wide[inside].mean())
        for each, many in zip(judged, widths, strict=True)
        for wide, inside in zip(many, each.residuals.inside, strict=True)
    ]
    voxels = np.concatenate([e.sampled(wide) for e, wide in zip(judged, widths, strict=True)])
    return Abstain(
        voxel_above=_limit(float(np.quantile(voxels, VOXEL_QUANTILE))),
        slice_above=_limit(float(np.quantile(means, SLICE_QUANTILE))),
        series_share=SERIES_SHARE,
    )


def _limit(value: float) -> float:
    return round(min(max(value, 0.001), 0.99), 4)
