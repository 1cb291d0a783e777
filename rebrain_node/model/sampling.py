"""Sampling of the bridge: from a CT slice to its synthetic MR slice.

The network is a callable here, so every engine and the trainer share the sampler.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.bridge import Step, estimate
from rebrain_node.model.recipe import Image
from rebrain_node.model.source import Conditioning, stack_channels

Evaluate = Callable[[Image, NDArray[np.float32]], Image]


def uniform_time_steps(count: int) -> tuple[float, ...]:
    """Return `count` time steps from 1.0 downwards at equal distances; the paper takes 100."""
    return tuple((count - k) / count for k in range(count))


def noise_field(shape: tuple[int, int], seed: int) -> Image:
    """Return the standard normal noise that all slices of a volume share, (rows, columns)."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def sample_slice(
    evaluate: Evaluate,
    conditioning: Conditioning,
    time_steps: Sequence[float],
    *,
    eta: float,
    noise: Image,
) -> Image:
    """Sample one slice, (rows, columns) float32 in [-1, 1]; arguments as of `sample_slices`."""
    (slice_,) = sample_slices(evaluate, [conditioning], time_steps, eta=eta, noise=noise)
    return slice_


def sample_slices(
    evaluate: Evaluate,
    conditionings: Sequence[Conditioning],
    time_steps: Sequence[float],
    *,
    eta: float,
    noise: Image,
) -> list[Image]:
    """Step from m = 1 to m = 0 and return the synthetic slices.

    Parameters
    ----------
    evaluate : callable
        One evaluation: x (n, 5, rows, columns), s (n, 4) -> f (n, 1, rows, columns).
    conditionings : sequence of Conditioning
        Of n positions.
    time_steps : sequence of float
        At which the network is evaluated, falling from 1.0 (`Recipe.sampling`).
    eta : float
        Share of fresh noise per step, 0 to 1.
    noise : Image
        (rows, columns), standard normal, shared by all slices of the volume; the same field at
        every step keeps the result continuous from slice to slice.

    Returns
    -------
    list of Image
        (rows, columns) float32 in [-1, 1], one for each position.
    """
    sources = [conditioning.source for conditioning in conditionings]
    states, estimates = list(sources), list(sources)
    for m, m_next in zip(time_steps, (*time_steps[1:], 0.0), strict=True):
        stacked = [
            stack_channels(conditioning, state, m)
            for conditioning, state in zip(conditionings, states, strict=True)
        ]
        f = evaluate(
            np.concatenate([x for x, _ in stacked]), np.concatenate([s for _, s in stacked])
        )
        for k, (state, y) in enumerate(zip(states, sources, strict=True)):
            estimates[k] = np.clip(estimate(state, f[k, 0]), -1, 1)
            if m_next > 0:
                moved = Step(m, m_next, eta).back(state, estimates[k], y, noise)
                states[k] = moved.astype(np.float32)
    return [each.astype(np.float32, copy=False) for each in estimates]
