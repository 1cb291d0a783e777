"""Training the encoder of retrieval (equations 7 to 11 of the paper).

Slices of one series follow each other in runs; a slice is to lie near the next K of its run and
far from the others. The loss looks one way, from inferior to superior. Slices of other series at
nearly the same position show the same anatomy and are not pushed away: finding them is the aim.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional

from rebrain_node.model.encoder import COLUMNS, ROWS, SliceEncoder
from trainer.config import EncoderTraining
from trainer.sample_rng import SampleRng
from trainer.simulate.stacks import Stacks
from trainer.train.loop import CHECKPOINT, Progress, RunOutput, Schedule, State, checkpoint, fit
from trainer.train.workers import reduced

REPORT_EVERY = 10
_AT_ONCE = 64  # slices embedded together


@dataclass(frozen=True)
class SliceBatch:
    """Runs of slices, augmented one by one."""

    images: Tensor  #: (n, 1, ROWS, COLUMNS) in [-1, 1]
    #: positives, negatives: (n, n) bool: what each row is to lie near to, and far from; many pairs
    #: are neither
    positives: Tensor
    negatives: Tensor
    #: across, apart: (n, n) bool: the same between slices of different series alone
    across: Tensor
    apart: Tensor


def pairs(
    stack: NDArray[np.int32],
    rank: NDArray[np.int32],
    position_mm: NDArray[np.float64],
    reach: int,
    near_mm: float,
) -> tuple[Tensor, Tensor]:
    """Decide which pairs of slices attract and which repel.

    Parameters
    ----------
    stack, rank, position_mm : ndarray
        (n,) series of each slice, its number in the series, its place in the head.
    reach : int
        K: the next K slices of the series are positives; the K before are neither, because the
        pair counts when the lower one is the anchor.
    near_mm : float
        Slices of other series nearer than this are not negatives.

    Returns
    -------
    positives, negatives : Tensor
        (n, n) bool, row: anchor.
    """
    ahead = rank[None, :] - rank[:, None]
    together = stack[None, :] == stack[:, None]
    far = np.abs(position_mm[None, :] - position_mm[:, None]) >= near_mm
    positives = together & (ahead >= 1) & (ahead <= reach)
    negatives = np.where(together, np.abs(ahead) > reach, far)
    return torch.from_numpy(positives), torch.from_numpy(negatives)


def pairs_across(
    stack: NDArray[np.int32],
    position_mm: NDArray[np.float64],
    across_mm: float,
    near_mm: float,
) -> tuple[Tensor, Tensor]:
    """Decide which slices of *different* series attract and which repel, by position alone.

    Not in the paper: its positives are slices of one series, so what two subjects have in common
    is learned by chance only. Here it is the aim.

    Parameters
    ----------
    across_mm, near_mm : float
        Nearer than the first they attract, from the second on they repel.

    Returns
    -------
    positives, negatives : Tensor
        (n, n) bool, row: anchor.
    """
    other = stack[None, :] != stack[:, None]
    apart_mm = np.abs(position_mm[None, :] - position_mm[:, None])
    return (
        torch.from_numpy(other & (apart_mm < across_mm)),
        torch.from_numpy(other & (apart_mm >= near_mm)),
    )


def log_ratio(scores: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return equations 8 and 10: the mean of -log(positives / (positives + negatives)).

    Parameters
    ----------
    scores : Tensor
        (n, n) logarithms of sim or d; rows without a positive do not count.
    """
    nothing = torch.finfo(scores.dtype).min
    attracted = scores.masked_fill(~positives, nothing).logsumexp(dim=1)
    either = scores.masked_fill(~(positives | negatives), nothing).logsumexp(dim=1)
    counted = positives.any(dim=1)
    return (either - attracted)[counted].mean()


def contrast(embedding: Tensor, batch: SliceBatch, alpha: float) -> Tensor:
    """Return equation 8 with the similarity of equation 7, exp(cosine / alpha)."""
    return log_ratio(embedding @ embedding.T / alpha, batch.positives, batch.negatives)


def percept(middle: Tensor, batch: SliceBatch, beta: float) -> Tensor:
    """Return equation 10 with the distance of equation 9 on channel-normalised tokens.

    The squared distance is the mean over tokens and channels, of tokens whose channels have mean
    0 and variance 1: it lies between 0 and 4, whatever the size of the network.
    """
    flat = functional.layer_norm(middle.float(), middle.shape[-1:]).flatten(1)
    size = flat.square().mean(dim=1)
    squared = size[:, None] + size[None, :] - 2 * (flat @ flat.T) / flat.shape[1]
    return log_ratio(-squared.clamp(min=0) / beta, batch.positives, batch.negatives)


def loss_of(network: SliceEncoder, batch: SliceBatch, training: EncoderTraining) -> Tensor:
    """Return equation 11, contrast + lambda percept, and the term across series if there is one."""
    with reduced("cpu"):
        encoded = network.encode(batch.images)
    embedding = encoded.embedding.float()
    loss = contrast(embedding, batch, training.alpha)
    if training.across_mm > 0 and batch.across.any():
        scores = embedding @ embedding.T / training.alpha
        loss = loss + log_ratio(scores, batch.across, batch.apart)
    if training.percept_weight > 0:
        loss = loss + training.percept_weight * percept(encoded.middle, batch, training.beta)
    return loss


def draw_batch(stacks: Stacks, training: EncoderTraining, rng: SampleRng) -> SliceBatch:
    """Draw runs of successive slices, each from a series at random; the same rng, the same batch.

    Subjects come up equally often; one run in `dense_share` is of a series in steps of 1 mm.
    """
    rows: list[int] = []
    for _ in range(training.runs):
        subject = rng.integer(len(stacks.names))
        own = np.unique(stacks.stack[stacks.subject == subject])
        dense = rng.chance(training.dense_share)
        chosen = own[-1] if dense else own[rng.integer(max(1, len(own) - 1))]
        series = np.flatnonzero(stacks.stack == chosen)
        first = rng.integer(max(1, len(series) - training.run_length + 1))
        rows.extend(series[first : first + training.run_length].tolist())
    taken = np.array(rows)
    positives, negatives = pairs(
        stacks.stack[taken], stacks.rank[taken], stacks.position_mm[taken],
        training.reach, training.near_mm,
    )  # fmt: skip
    across, apart = pairs_across(
        stacks.stack[taken], stacks.position_mm[taken], training.across_mm, training.near_mm
    )
    images = torch.from_numpy(stacks.slices[taken]).float()[:, None] / 127.5 - 1
    return SliceBatch(augmented(images, rng), positives, negatives, across, apart)


def augmented(images: Tensor, rng: SampleRng) -> Tensor:
    """Turn, shift, stretch, mirror, brighten and roughen every slice by itself.

    Neighbours then share their anatomy and nothing else: neither the pose of the head nor the
    grain of the scanner distinguishes them from the rest.
    """
    count = len(images)
    angle = rng.uniform(-0.2, 0.2, count)
    wide = rng.uniform(0.88, 1.12, count)
    tall = wide * rng.uniform(0.93, 1.07, count)
    flip = torch.where(rng.uniform(0, 1, count) < 0.5, -1.0, 1.0)
    aspect = ROWS / COLUMNS
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack(
                [flip * cosine * wide, -sine * tall * aspect, rng.uniform(-0.12, 0.12, count)], 1
            ),
            torch.stack(
                [flip * sine * wide / aspect, cosine * tall, rng.uniform(-0.1, 0.1, count)], 1
            ),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    bright = functional.grid_sample(images + 1, grid, align_corners=False)
    gain = rng.uniform(0.85, 1.15, count, 1, 1, 1)
    shift = rng.uniform(-0.15, 0.15, count, 1, 1, 1)
    grain = rng.uniform(0, 0.15, count, 1, 1, 1) * rng.normal(*images.shape)
    return (bright * gain + (shift + grain) * (bright > 0.001) - 1).clamp(-1, 1)


def fresh_state(
    training: EncoderTraining, stacks: Stacks, start: Path | None = None
) -> State[SliceEncoder]:
    """Return a seeded untrained state, or one that starts from pretrained weights.

    Parameters
    ----------
    start : Path or None
        A safetensors file with all parameters of `SliceEncoder`.
    """
    torch.manual_seed(training.seed)
    network = SliceEncoder()
    given = b"" if start is None else start.read_bytes()
    if given:
        network.load_state_dict(load(given))
    digest = training.digest(stacks.digest, hashlib.sha256(given).hexdigest())
    return State.fresh(network, training, digest)


def train(
    training: EncoderTraining,
    stacks: Stacks,
    state: State[SliceEncoder],
    out: Path,
    report: Progress,
) -> None:
    """Train the encoder to `training.steps`, from the step of `state` on; writes as `fit` does."""
    schedule = Schedule(training, training.warm_up, REPORT_EVERY)
    fit(
        state,
        lambda step: draw_batch(stacks, training, SampleRng(training.seed, step)),
        lambda batch: loss_of(state.network, batch, training),
        schedule,
        RunOutput(out, report),
    )


def untrained(seed: int = 0) -> SliceEncoder:
    """Return an encoder of random weights: what the architecture sees by itself."""
    torch.manual_seed(seed)
    return SliceEncoder().eval()


def trained(run: Path) -> SliceEncoder:
    """Return the encoder of a run: the running mean of its weights, rounded to half precision."""
    content = checkpoint(run / CHECKPOINT)
    network = SliceEncoder()
    network.load_state_dict({name: value.half() for name, value in content["mean"].items()})
    return network.eval()


def embedded(network: SliceEncoder, slices: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed slices, (n, ROWS, COLUMNS) in the brain window 0 to 255, to (n, EMBEDDING)."""
    found = []
    with torch.no_grad():
        for first in range(0, len(slices), _AT_ONCE):
            some = torch.from_numpy(slices[first : first + _AT_ONCE])
            found.append(network(some.float()[:, None] / 127.5 - 1).numpy())
    return np.concatenate(found)
