"""How each target slice is made, and why: measured, retrieved or interpolated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.volume import FloatArray, Guide, PreparedVolume, Target
from rebrain_node.errors import BundleRefused
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.resample import doubled, halved
from rebrain_node.model.slerp import slerp_directions
from rebrain_node.ports import Encoder, Exemplars

#: below this the head frame says nothing about where a slice lies
LEAST_PLAUSIBILITY: Final = 0.5
#: an exemplar may lie this many gaps between measured slices from the target
GAPS: Final = 1.5


def embed(prepared: PreparedVolume, encoder: Encoder, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Embed every measured slice at half the grid in the brain window, (n, d)."""
    images = halved(recipe.brain_window.apply(prepared.hu))
    return np.stack([encoder.embed(image[None, None]) for image in images])


def retrieve(
    prepared: PreparedVolume,
    recipe: Recipe,
    frame: HeadFrame | None = None,
    embeddings: FloatArray | None = None,
    exemplars: Exemplars | None = None,
) -> tuple[Guide, ...]:
    """Give every target its guide.

    Parameters
    ----------
    prepared : PreparedVolume
        Its targets are guided, in their order.
    recipe : Recipe
        Says whether exemplars are used at all, and how near they must lie.
    frame : HeadFrame, optional
        Where its measured slices lie; not needed where the recipe retrieves none.
    embeddings : FloatArray, optional
        (n, d) of its measured slices; as `frame`.
    exemplars : Exemplars, optional
        The bundle's knowledge base; as `frame`.

    Returns
    -------
    tuple of Guide
        One for each target. Between measured slices it is ``retrieved`` where the best exemplar
        near its position reaches the threshold, else ``interpolated`` with the reason.

    Raises
    ------
    BundleRefused
        The recipe retrieves exemplars and no knowledge base was opened.
    """
    if not recipe.retrieves:
        return tuple(_guide(target, None, prepared) for target in prepared.targets)
    if frame is None or embeddings is None or exemplars is None:
        raise BundleRefused(
            f"the recipe's retrieval method is {recipe.retrieval.method!r}, but no encoder and "
            "knowledge base were opened; use a bundle that has them, or one without retrieval"
        )
    query = _Query(
        prepared=prepared,
        frame=frame,
        embeddings=embeddings,
        exemplars=exemplars,
        window_mm=recipe.retrieval.window_mm,
    )
    return tuple(_guide(target, query, prepared) for target in prepared.targets)


@dataclass(frozen=True, kw_only=True)
class _Query:
    """A series that asks the knowledge base."""

    prepared: PreparedVolume
    frame: HeadFrame
    embeddings: FloatArray  #: (n, d), of each measured slice
    exemplars: Exemplars
    window_mm: float

    def guide(self, target: Target) -> Guide | str:
        """Retrieve an exemplar for a target between measured slices, or say why there is none."""
        if not self.frame.plausibility >= LEAST_PLAUSIBILITY:
            return (
                f"the head frame is not sure, plausibility {self.frame.plausibility:.2f} "
                f"below {LEAST_PLAUSIBILITY:.2f}"
            )
        position = self.frame.position_at_mm(target.alpha, target.below, target.above)
        if not np.isfinite(position):
            return "its position in the head frame is not a number"
        direction = slerp_directions(
            self.embeddings[target.below], self.embeddings[target.above], target.alpha
        )
        if direction is None:
            return "the encoder gave no direction for the measured slices beside it"
        window = self._window_mm(target)
        found = self.exemplars.nearest(direction, position, window)
        if found is None:
            return f"no exemplar lies within {window:.1f} mm of {position:.1f} mm in the head frame"
        tau = self.exemplars.tau
        difference = found.position_mm - position
        if not found.similarity >= tau:
            return Guide(
                target=target,
                kind="interpolated",
                reason=f"the best exemplar within {window:.1f} mm has the similarity "
                f"{found.similarity:.3f}, below {tau:.3f}: {_as_between(target, self.prepared)}",
                similarity=found.similarity,
                tau=tau,
            )
        return Guide(
            target=target,
            kind="retrieved",
            reason=f"an exemplar {difference:+.1f} mm from here is similar enough: "
            f"{found.similarity:.3f}, at least {tau:.3f}",
            similarity=found.similarity,
            tau=tau,
            exemplar=found.key,
            position_difference_mm=difference,
            exemplar_hu=doubled(found.hu),
        )

    def _window_mm(self, target: Target) -> float:
        low, high = (self.prepared.distances_mm[k] for k in (target.below, target.above))
        return max(GAPS * float(high - low), self.window_mm)


def _guide(target: Target, query: _Query | None, prepared: PreparedVolume) -> Guide:
    if target.above == target.below:
        return Guide(target=target, kind="measured", reason="a slice was measured here")
    answer = "the recipe retrieves no exemplar" if query is None else query.guide(target)
    if isinstance(answer, Guide):
        return answer
    reason = f"no slice was measured here and {answer}: {_as_between(target, prepared)}"
    tau = None if query is None else query.exemplars.tau
    return Guide(target=target, kind="interpolated", reason=reason, tau=tau)


def _as_between(target: Target, prepared: PreparedVolume) -> str:
    below, above = prepared.distances_mm[target.below], prepared.distances_mm[target.above]
    return (
        "interpolated between the measured slices "
        f"{target.distance_mm - below:.1f} mm below and {above - target.distance_mm:.1f} mm above"
    )
