"""Training of the residual-scale network by the Laplace likelihood of the residuals."""

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

STEPS = 600
BATCH = 4
LEARNING_RATE = 5e-3  # cosine to zero
_CLIP = 1.0  # gradient norm
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
        head = ResidualScaleHead()
    optimiser = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
    weights = torch.ones(len(residuals.kinds))
    for step in range(training.steps):
        rows = rng.choice(weights, BATCH).numpy()
        x, s, error, inside = _batch(residuals, rows)
        if rng.chance(0.5):  # mirrored
            x, error, inside = x.flip(3), error.flip(3), inside.flip(3)
        loss = laplace(head(x, s), error, inside)
        update(head, optimiser, loss, _CLIP)
        schedule.step()
        if report is not None:
            report(step + 1)
    return head.eval()


def rounded(head: ResidualScaleHead) -> ResidualScaleHead:
    """Round the weights to half precision, as they are stored; widths are set on these."""
    network = ResidualScaleHead()
    network.load_state_dict({name: w.float() for name, w in halves_of(head.state_dict()).items()})
    return network.eval()


def scales(head: ResidualScaleHead, residuals: Residuals) -> FloatArray:
    """Return b of every slice, (k, rows, columns)."""
    scale = np.empty(residuals.error.shape, dtype=np.float32)
    with torch.inference_mode():
        for k in range(len(scale)):
            x, s, _, _ = _batch(residuals, np.array([k]))
            scale[k] = head(x, s)[0, 0].numpy()
    return scale


def _batch(residuals: Residuals, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(residuals.x[rows].astype(np.float32)),
        torch.from_numpy(residuals.s[rows]),
        torch.from_numpy(residuals.error[rows].astype(np.float32))[:, None],
        torch.from_numpy(residuals.inside[rows].astype(np.float32))[:, None],
    )
