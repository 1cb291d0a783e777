"""The random generator of a training sample, seeded by run, step and sample."""

import torch
from torch import Tensor


class SampleRng:
    """Random numbers of one step; a resumed run gets the same ones.

    Parameters
    ----------
    sample : int
        Number of the sample in the step; its numbers do not depend on the process.
    """

    def __init__(self, seed: int, step: int, sample: int = 0) -> None:
        # torch uses only the low 32 bits of a seed, so the three are mixed within them
        mixed = (seed * 1_000_003 + step + sample * 97_000_001) % 2**32
        self._generator = torch.Generator().manual_seed(mixed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw uniformly from [low, high), of `shape`."""
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def between(self, low: float, high: float) -> float:
        """Draw one number uniformly from [low, high)."""
        return float(self.uniform(low, high, 1))

    def chance(self, probability: float) -> bool:
        """Return True with `probability`."""
        return self.between(0, 1) < probability

    def integer(self, below: int) -> int:
        """Draw one of 0 .. below - 1."""
        return int(torch.randint(below, (1,), generator=self._generator))

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal values of `shape`."""
        return torch.randn(shape, generator=self._generator)

    def choice(self, weights: Tensor, count: int) -> Tensor:
        """Draw `count` indices with replacement, in proportion to `weights`."""
        return torch.multinomial(weights, count, replacement=True, generator=self._generator)

    def poisson(self, mean: float) -> int:
        """Draw a count."""
        return int(torch.poisson(torch.tensor(mean), generator=self._generator))
