"""Every random draw of a training step comes from one generator, seeded by run and step."""

import torch
from torch import Tensor


class SampleRng:
    """Random draws of one step; the same seed and step give the same draws on every resume.

    Parameters
    ----------
    sample : int
        Number of a sample within the step: whoever draws it, the draws are the same.
    """

    def __init__(self, seed: int, step: int, sample: int = 0) -> None:
        # torch seeds its generator with the low 32 bits alone: the three are mixed within them
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
