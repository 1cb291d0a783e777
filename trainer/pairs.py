"""The external test: real CT beside real T1 of seven patients, never seen in training.

The CT is 8-bit and brain-windowed, every slice cropped to its own box and stretched to a square,
so no figure here is in HU or millimetres. Head-mask scores hardly separate a constant from a
network on these data; figures are given inside the brain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rebrain_node.model.card import Score
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.source import SourceSlice, at_measured
from trainer.metrics import Mask, correlation, local_correlation, slice_offsets
from trainer.score import Method
from trainer.windowed import head_in_window, inside_skull_in_window

FILE = "ct_t1_pairs_7patients.npz"
TEST = "real CT-T1 pairs, 7 patients, zero-shot"
_FRAME = (240, 196)  # of the model grid that a stretched head is given: a plausible aspect


@dataclass(frozen=True)
class Patient:
    """Slices of one patient in order, (n, rows, columns).

    Attributes
    ----------
    ct : Image
        Brain window, 0 to 1.
    t1 : Image
        0 to 1 by percentiles 0.5 and 99.5 in the head.
    brain : Mask
        Inside the skull.
    upper : NDArray of bool
        (n,) slices whose brain fills more than half of the head: supratentorial.
    """

    ct: Image
    t1: Image
    brain: Mask
    upper: NDArray[np.bool_]


def load_patients(data: Path) -> list[Patient]:
    """Load the seven patients from the folder of shared data."""
    with np.load(data / FILE) as arrays:
        ct_all, t1_all, owner = arrays["ct"], arrays["t1"], arrays["patient"]
    patients = []
    for name in np.unique(owner):
        ct = ct_all[owner == name].astype(np.float32) / 255
        t1 = t1_all[owner == name].astype(np.float32)
        head = np.stack([head_in_window(plane) for plane in ct])
        brain = np.stack([inside_skull_in_window(plane) for plane in ct])
        low, high = np.percentile(t1[head], [0.5, 99.5])
        upper = brain.sum((1, 2)) > 0.5 * head.sum((1, 2))
        patients.append(Patient(ct, np.clip((t1 - low) / (high - low), 0, 1), brain, upper))
    return patients


def _resized(image: Image, shape: tuple[int, int]) -> Image:
    plane = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    sized = functional.interpolate(plane, size=shape, mode="bilinear", antialias=True)
    return np.asarray(sized[0, 0].numpy(), dtype=np.float32)


def predict(ct: Image, method: Method, recipe: Recipe) -> Image:
    """Apply a method to one stretched slice: onto the model grid and back, (rows, columns)."""
    top = (recipe.grid.rows - _FRAME[0]) // 2
    left = (recipe.grid.columns - _FRAME[1]) // 2
    window = slice(top, top + _FRAME[0]), slice(left, left + _FRAME[1])
    brain = np.full(recipe.grid.shape, -1, np.float32)
    brain[window] = _resized(ct, _FRAME) * 2 - 1
    unknown = np.full(recipe.grid.shape, -1, np.float32)
    image = method(at_measured(SourceSlice(brain, unknown, 0.0)))
    return _resized(image[window], (ct.shape[0], ct.shape[1]))


def score_pairs(
    patients: list[Patient],
    methods: dict[str, Method],
    recipe: Recipe,
    progress: Callable[[], None],
) -> tuple[Score, ...]:
    """Score every method; correlations are means over patients, slice_id over all upper slices."""
    scores = []
    for name, method in methods.items():
        whole, local, offsets = [], [], []
        for patient in patients:
            images = []
            for plane in patient.ct:
                images.append(predict(plane, method, recipe))
                progress()
            prediction, upper = np.stack(images), patient.upper
            whole.append(correlation(prediction, patient.t1, patient.brain))
            local.append(_local(prediction, patient))
            rows = slice_offsets(prediction, patient.t1, patient.brain)
            offsets.extend(np.abs(rows[upper]).tolist())
        figures = {
            "slice_id_exact": float(np.mean(np.array(offsets) == 0)),
            "slice_id_within_1": float(np.mean(np.array(offsets) <= 1)),
            "brain_corr": float(np.mean(whole)),
            "lncc": float(np.mean(local)),
        }
        scores.append(
            Score(test=TEST, method=name, figures={k: round(v, 4) for k, v in figures.items()})
        )
    return tuple(scores)


def _local(prediction: Image, patient: Patient) -> float:
    slices = zip(prediction, patient.t1, patient.brain, strict=True)
    return float(np.mean([local_correlation(a, b, m) for a, b, m in slices if m.sum() > 500]))
