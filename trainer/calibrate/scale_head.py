"""Teaching the residual-scale head: the Laplace likelihood of residuals it has not drawn itself."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.residual_scale import ResidualScaleHead
from trainer.calibrate.residuals import Residuals
from trainer.sample_rng import SampleRng
from trainer.train.loop import update

STEPS = 600
BATCH = 4
LEARNING_RATE = 5e-3  # cosine to zero
_CLIP = 1.0  # gradient norm
Report = Callable[[int], None]


@dataclass(frozen=True)
class ScaleTraining:
    """How long the head is taught, and by which draws."""

    seed: int
    steps: int = STEPS


def laplace(scale: Tensor, error: Tensor, inside: Tensor) -> Tensor:
    """Return the mean of |e| / b + log b where `inside`, all (batch, 1, rows, columns)."""
    terms = (error / scale + scale.log()) * inside
    return terms.sum() / inside.sum().clamp(min=1.0)


def teach(
    taught_by: Residuals, teaching: ScaleTraining, report: Report | None = None
) -> ResidualScaleHead:
    """Teach a new head; the same residuals and seed give the same weights.

    Parameters
    ----------
    taught_by : Residuals
        Of people none of whom sets a width.
    report : callable, optional
        Told how many steps are done.
    """
    rng = SampleRng(teaching.seed, 0)
    with torch.random.fork_rng():
        torch.manual_seed(teaching.seed)
        head = ResidualScaleHead()
    optimiser = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, teaching.steps)
    evenly = torch.ones(len(taught_by.kinds))
    for step in range(teaching.steps):
        rows = rng.choice(evenly, BATCH).numpy()
        x, s, error, inside = _batch(taught_by, rows)
        if rng.chance(0.5):  # a head is as likely the other way round
            x, error, inside = x.flip(3), error.flip(3), inside.flip(3)
        loss = laplace(head(x, s), error, inside)
        update(head, optimiser, loss, _CLIP)
        schedule.step()
        if report is not None:
            report(step + 1)
    return head.eval()


def scales(head: ResidualScaleHead, residuals: Residuals) -> FloatArray:
    """Return b of every slice, (k, rows, columns)."""
    found = np.empty(residuals.error.shape, dtype=np.float32)
    with torch.inference_mode():
        for k in range(len(found)):
            x, s, _, _ = _batch(residuals, np.array([k]))
            found[k] = head(x, s)[0, 0].numpy()
    return found


def _batch(residuals: Residuals, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(residuals.x[rows].astype(np.float32)),
        torch.from_numpy(residuals.s[rows]),
        torch.from_numpy(residuals.error[rows].astype(np.float32))[:, None],
        torch.from_numpy(residuals.inside[rows].astype(np.float32))[:, None],
    )
