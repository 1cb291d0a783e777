"""The walk down the bridge: from a CT slice to its synthetic MR slice.

It knows an evaluation only as a callable, so every engine and the trainer share it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.bridge import Step, estimate
from rebrain_node.model.recipe import Image
from rebrain_node.model.source import Conditioning, stack_channels

Evaluate = Callable[[Image, NDArray[np.float32]], Image]


def uniform_places(count: int) -> tuple[float, ...]:
    """Return `count` places from 1.0 downwards in equal steps; the paper walks 100."""
    return tuple((count - k) / count for k in range(count))


def noise_field(shape: tuple[int, int], seed: int) -> Image:
    """Draw the one noise field that all slices of a volume share, (rows, columns)."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def walk(
    evaluate: Evaluate,
    conditioning: Conditioning,
    places: Sequence[float],
    *,
    eta: float,
    noise: Image,
) -> Image:
    """Walk from m = 1 to m = 0 and return the synthetic slice.

    Parameters
    ----------
    evaluate : callable
        One evaluation: x (1, 5, rows, columns), s (1, 4) -> f (1, 1, rows, columns).
    conditioning : Conditioning
        Of this position.
    places : sequence of float
        Where the network is evaluated, falling from 1.0 (`Recipe.sampling`).
    eta : float
        Share of fresh noise per step, 0 to 1.
    noise : Image
        (rows, columns), standard normal, shared by all slices of the volume; the same field at
        every step keeps the result continuous from slice to slice.

    Returns
    -------
    Image
        (rows, columns) float32 in [-1, 1].
    """
    y = conditioning.source
    state = y
    x0_hat = y
    for place, following in zip(places, (*places[1:], 0.0), strict=True):
        x, s = stack_channels(conditioning, state, place)
        x0_hat = np.clip(estimate(state, evaluate(x, s)[0, 0]), -1, 1)
        if following > 0:
            state = Step(place, following, eta).back(state, x0_hat, y, noise).astype(np.float32)
    return x0_hat.astype(np.float32, copy=False)
