"""The methods with a network: the whole recipe, and simpler ways to fill between its slices.

Every position is conditioned and walked by the node's own code (`model/source`, `model/walk`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rebrain_node.domain.volume import Guide
from rebrain_node.model.source import Conditioning, SourceSlice, at_measured, conditioning_at
from rebrain_node.model.walk import noise_field, walk
from rebrain_node.steps.synthesise import shown
from trainer.data.dataset import PreparedData
from trainer.evaluate.intensities import source_slices
from trainer.evaluate.networks import Network
from trainer.evaluate.placing import placements
from trainer.evaluate.protocols import Case

Volume = NDArray[np.float32]
OURS = "rebrain"


@dataclass(frozen=True)
class Bridge:
    """A network under the name it has in the tables.

    Attributes
    ----------
    seed : int
        Of the noise field that all slices of all subjects share.
    """

    name: str
    network: Network
    data: PreparedData
    seed: int

    def draw(self, case: Case, progress: Callable[[], None]) -> Iterator[tuple[str, Volume]]:
        """Draw a case by the whole recipe and, where positions are to be filled, more simply.

        `progress` is called after each position; there are `positions(case)`.
        """
        given = self._drawn_at(case, case.positions_mm, progress)
        missing = ~case.measured
        if not missing.any():
            yield self.name, given
            return
        linear = case.linear(given)
        whole = linear.copy()  # at measured positions the interpolation is the slice itself
        whole[missing] = self._drawn_at(case, case.targets_mm[missing], progress)
        full = whole
        if self._guided:
            full = linear.copy()
            full[missing] = self._drawn_at(
                case, case.targets_mm[missing], progress, self._guides(case)
            )
        yield self.name, full
        below, _ = case.bracket()
        average = linear.copy()
        average[missing] = (given[below[missing]] + given[below[missing] + 1]) / 2
        if self.name != OURS:
            yield f"{self.name}-average", average
            return
        yield "bridge-average", average
        yield "bridge-linear", linear
        yield "bridge-slerp", whole

    def positions(self, case: Case) -> int:
        """Return how many positions `draw` draws."""
        ways = placements(case.head, case.subject.pixel_mm, self.network.recipe)
        rounds = 2 if self._guided else 1
        return len(ways) * (len(case.source) + rounds * int((~case.measured).sum()))

    @property
    def _guided(self) -> bool:
        """Whether missing positions take exemplars: the bundle has them, and the data HU and mm."""
        ct = self.data.volumetric and self.data.source_kind == "ct"
        return ct and self.network.guiding is not None

    def _guides(self, case: Case) -> tuple[Guide, ...]:
        """Retrieve for every missing position; a volume in mm is placed in one way."""
        assert self.network.guiding is not None  # noqa: S101 - asked by the caller
        (placement,) = placements(case.head, case.subject.pixel_mm, self.network.recipe)
        every = self.network.guiding.guides(case, placement)
        return tuple(g for g, measured in zip(every, case.measured, strict=True) if not measured)

    def _drawn_at(
        self,
        case: Case,
        positions_mm: NDArray[np.float64],
        progress: Callable[[], None],
        guides: Sequence[Guide] = (),
    ) -> Volume:
        """Draw positions, (n, row, column) on the grid of the data set, averaged over placings.

        `guides` has one for each position, or is empty: then the bridge goes unguided.
        """
        recipe = self.network.recipe
        noise = noise_field(recipe.grid.shape, self.seed)
        ways = placements(case.head, case.subject.pixel_mm, recipe)
        drawn = np.zeros((len(positions_mm), *case.source.shape[1:]), np.float32)
        for placement in ways:
            slices = source_slices(case, self.data.source_kind, recipe, placement)
            for k, position in enumerate(positions_mm):
                conditioning = self._conditioning(slices, float(position))
                guide = shown(guides[k], conditioning, recipe) if guides else None
                image = walk(
                    partial(self.network.evaluate, guide=guide),
                    conditioning,
                    recipe.sampling,
                    eta=recipe.eta,
                    noise=noise,
                )
                drawn[k] += (placement.back(image, -1.0) + 1) / (2 * len(ways))
                progress()
        return drawn

    def _conditioning(self, slices: Sequence[SourceSlice], position_mm: float) -> Conditioning:
        """Condition as the node does; a slice without a known place in space stands alone."""
        if self.data.volumetric:
            return conditioning_at(slices, position_mm)
        return at_measured(next(piece for piece in slices if piece.position_mm == position_mm))
