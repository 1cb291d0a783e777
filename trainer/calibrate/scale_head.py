"""Training of the residual-scale network by the Laplace likelihood of the residuals.

Where the residuals have the spread of drawings at shifted input, the network learns to predict it,
and the factor with which it enters the scale is the one of the greatest likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.residual_scale import ResidualScaleHead
from trainer.calibrate.residuals import Residuals
from trainer.release.export import halves_of
from trainer.sample_rng import SampleRng
from trainer.train.loop import update

STEPS = 3000
BATCH = 4
LEARNING_RATE = 3e-3  # cosine to zero
_CLIP = 1.0  # gradient norm
#: of the predicted spread in the scale; with less than the first, dark white matter that is drawn
#: as fluid leaves the top of the map, though healthy heads are likelier without any
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
Report = Callable[[int], None]


@dataclass(frozen=True)
class ScaleTraining:
    """Number of steps and random seed."""

    seed: int
    steps: int = STEPS


def laplace(scale: Tensor, error: Tensor, inside: Tensor) -> Tensor:
    """Return the mean of |e| / b + log b where `inside`, all (batch, 1, rows, columns)."""
    terms = (error / scale + scale.log()) * inside
    return terms.sum() / inside.sum().clamp(min=1.0)


def train_scale_head(
    residuals: Residuals, training: ScaleTraining, report: Report | None = None
) -> ResidualScaleHead:
    """Train a network; the same residuals and seed give the same weights.

    Parameters
    ----------
    residuals : Residuals
        Of the training subjects, none of whom sets a width.
    report : callable, optional
        Receives the number of steps done.
    """
    rng = SampleRng(training.seed, 0)
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        head = ResidualScaleHead(spreads=residuals.shift_spread is not None)
    optimiser = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
    weights = torch.ones(len(residuals.kinds))
    for step in range(training.steps):
        rows = rng.choice(weights, BATCH).numpy()
        x, s, error, inside = _batch(residuals, rows)
        spread = _spread(residuals, rows)
        if rng.chance(0.5):  # mirrored
            x, error, inside, spread = (v.flip(3) for v in (x, error, inside, spread))
        scale, predicted = head.parts(x, s)
        loss = laplace(scale, error, inside)
        if predicted is not None:
            loss = loss + spread_loss(predicted, spread, inside)
        update(head, optimiser, loss, _CLIP)
        schedule.step()
        if report is not None:
            report(step + 1)
    if head.spreads:
        head.factor.data.fill_(likeliest_factor(head, residuals))
    return head.eval()


def spread_loss(predicted: Tensor, spread: Tensor, inside: Tensor) -> Tensor:
    """Return the squared error of a spread over its mean square, all (batch, 1, rows, columns).

    The mean is learned rather than the median, for the few voxels that have a large spread.
    """
    error = ((predicted - spread) ** 2 * inside).sum()
    return error / ((spread**2 * inside).sum() + 1e-4 * inside.sum()).clamp(min=1e-6)


def likeliest_factor(head: ResidualScaleHead, residuals: Residuals) -> float:
    """Return the factor of the predicted spread with the greatest likelihood of the residuals."""
    totals = np.zeros(len(FACTORS))
    with torch.inference_mode():
        for k in range(len(residuals.kinds)):
            rows = np.array([k])
            x, s, error, inside = _batch(residuals, rows)
            scale, spread = head.parts(x, s)
            for j, factor in enumerate(FACTORS):
                combined = head.combined(scale, spread, factor)
                totals[j] += float(laplace(combined, error, inside))
    return FACTORS[int(np.argmin(totals))]


def rounded(head: ResidualScaleHead) -> ResidualScaleHead:
    """Round the weights to half precision, as they are stored; widths are set on these."""
    return ResidualScaleHead.of(halves_of(head.state_dict()))


def scales(head: ResidualScaleHead, residuals: Residuals) -> FloatArray:
    """Return b of every slice, (k, rows, columns)."""
    scale = np.empty(residuals.error.shape, dtype=np.float32)
    with torch.inference_mode():
        for k in range(len(scale)):
            x, s, _, _ = _batch(residuals, np.array([k]))
            scale[k] = head(x, s)[0, 0].numpy()
    return scale


def _spread(residuals: Residuals, rows: np.ndarray) -> Tensor:
    """Return the spread of drawings at shifted input; zeros where there is none."""
    if residuals.shift_spread is None:
        return torch.zeros(1, 1, 1, 1)
    return torch.from_numpy(residuals.shift_spread[rows].astype(np.float32))[:, None]


def _batch(residuals: Residuals, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(residuals.x[rows].astype(np.float32)),
        torch.from_numpy(residuals.s[rows]),
        torch.from_numpy(residuals.error[rows].astype(np.float32))[:, None],
        torch.from_numpy(residuals.inside[rows].astype(np.float32))[:, None],
    )
