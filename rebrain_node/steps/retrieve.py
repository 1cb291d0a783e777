"""How each target slice is made, and why: measured, retrieved or interpolated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.volume import (
    FloatArray,
    Guide,
    PlaneRegistration,
    PreparedVolume,
    Target,
)
from rebrain_node.errors import BundleError
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.registration import moved, register
from rebrain_node.model.resample import doubled, halved
from rebrain_node.model.slerp import slerp, slerp_directions
from rebrain_node.ports import Encoder, Exemplar, Exemplars

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
    BundleError
        The recipe retrieves exemplars and no knowledge base was opened.
    """
    if not recipe.retrieves:
        return tuple(_unguided(target, prepared, recipe) for target in prepared.targets)
    if frame is None or embeddings is None or exemplars is None:
        raise BundleError(
            f"the recipe's retrieval method is {recipe.retrieval.method!r}, but no encoder and "
            "knowledge base were opened; use a bundle that has them, or one without retrieval"
        )
    series = _Series(
        prepared=prepared,
        frame=frame,
        embeddings=embeddings,
        exemplars=exemplars,
        recipe=recipe,
    )
    return tuple(series.guide(target) for target in prepared.targets)


@dataclass(frozen=True, kw_only=True)
class ExemplarQuery:
    """A position between two measured slices for which an exemplar is sought."""

    below: FloatArray  #: (d,) embedding of the measured slice below
    above: FloatArray  #: (d,) embedding of the measured slice above
    alpha: float  #: 0 at the slice below, 1 at the slice above
    gap_mm: float  #: distance between the two measured slices
    position_mm: float  #: head frame
    plausibility: float  #: of the head frame, 0 to 1; 1 where the positions are known
    excluded: str | None = None  #: keyed hash of the subject whose slices are not candidates


@dataclass(frozen=True, kw_only=True)
class ExemplarMatch:
    """The exemplar that a query found, or why it found none."""

    reason: str
    exemplar: Exemplar | None = None  #: None unless its similarity reaches tau
    similarity: float | None = None  #: of the best candidate, also below tau; None without one


def find_exemplar(query: ExemplarQuery, exemplars: Exemplars, window_mm: float) -> ExemplarMatch:
    """Find the exemplar that guides one position; the node and the trainer both call this.

    Candidates are the slices within max(GAPS x ``query.gap_mm``, ``window_mm``) of the position.
    The most similar one to the great-circle interpolation of the two embeddings is the exemplar
    if its similarity reaches tau.

    Parameters
    ----------
    query : ExemplarQuery
        The position, the embeddings beside it, and the subject to leave out.
    exemplars : Exemplars
        The knowledge base that is searched.
    window_mm : float
        Least half-width of the window of positions, mm; ``retrieval.window_mm`` of the recipe.

    Returns
    -------
    ExemplarMatch
        Without an exemplar where the head frame's plausibility is below `LEAST_PLAUSIBILITY`, the
        position is not finite, the embeddings give no direction between them, no slice lies in
        the window, or the best is below tau.
    """
    if not query.plausibility >= LEAST_PLAUSIBILITY:
        return ExemplarMatch(
            reason=f"the head frame is not sure, plausibility {query.plausibility:.2f} "
            f"below {LEAST_PLAUSIBILITY:.2f}"
        )
    if not np.isfinite(query.position_mm):
        return ExemplarMatch(reason="its position in the head frame is not a number")
    direction = slerp_directions(query.below, query.above, query.alpha)
    if direction is None:
        return ExemplarMatch(
            reason="the encoder gave no direction for the measured slices beside it"
        )
    window = max(GAPS * query.gap_mm, window_mm)
    best = exemplars.nearest(direction, query.position_mm, window, excluded=query.excluded)
    if best is None:
        return ExemplarMatch(
            reason=f"no exemplar lies within {window:.1f} mm of {query.position_mm:.1f} mm "
            "in the head frame"
        )
    tau = exemplars.tau
    if not best.similarity >= tau:
        return ExemplarMatch(
            reason=f"the best exemplar within {window:.1f} mm has the similarity "
            f"{best.similarity:.3f}, below {tau:.3f}",
            similarity=best.similarity,
        )
    return ExemplarMatch(
        reason=f"an exemplar {best.position_mm - query.position_mm:+.1f} mm from here is similar "
        f"enough: {best.similarity:.3f}, at least {tau:.3f}",
        exemplar=best,
        similarity=best.similarity,
    )


@dataclass(frozen=True)
class PlacedExemplar:
    """An exemplar on the model grid."""

    hu: FloatArray  #: (rows, columns)
    registration: PlaneRegistration | None  #: by which it was moved; None where none was found


def place_exemplar(hu: FloatArray, source: FloatArray, recipe: Recipe) -> PlacedExemplar:
    """Register an exemplar onto what lies between the measured slices.

    Parameters
    ----------
    hu : FloatArray
        (rows / 2, columns / 2), as of `Exemplar`.
    source : FloatArray
        (rows, columns): SLERP of the measured slices, brain window in [-1, 1].
    """
    window, pixel_mm = recipe.brain_window, recipe.grid.pixel_mm
    by = register(window.apply(hu), halved(source), 2.0 * pixel_mm)
    if by is None:
        return PlacedExemplar(doubled(hu), None)
    return PlacedExemplar(moved(hu, by, pixel_mm, window.low_hu), by)


@dataclass(frozen=True, kw_only=True)
class _Series:
    """A prepared series beside the knowledge base that may guide it."""

    prepared: PreparedVolume
    frame: HeadFrame
    embeddings: FloatArray  #: (n, d), of each measured slice
    exemplars: Exemplars
    recipe: Recipe

    def guide(self, target: Target) -> Guide:
        """Guide a target."""
        if target.above == target.below:
            return _measured(target)
        below_mm, above_mm = (
            float(self.prepared.distances_mm[k]) for k in (target.below, target.above)
        )
        query = ExemplarQuery(
            below=self.embeddings[target.below],
            above=self.embeddings[target.above],
            alpha=target.alpha,
            gap_mm=above_mm - below_mm,
            position_mm=self.frame.position_at_mm(target.alpha, target.below, target.above),
            plausibility=self.frame.plausibility,
        )
        match = find_exemplar(query, self.exemplars, self.recipe.retrieval.window_mm)
        if match.exemplar is None:
            return self._interpolated(target, match)
        placed = self._placed(match.exemplar, target)
        return Guide(
            target=target,
            kind="retrieved",
            reason=match.reason,
            similarity=match.similarity,
            tau=self.exemplars.tau,
            exemplar=match.exemplar.key,
            position_difference_mm=match.exemplar.position_mm - query.position_mm,
            exemplar_hu=placed.hu,
            registration=placed.registration,
        )

    def _placed(self, exemplar: Exemplar, target: Target) -> PlacedExemplar:
        if self.recipe.retrieval.registration == "none":
            return PlacedExemplar(doubled(exemplar.hu), None)
        below, above = (
            self.recipe.brain_window.apply(self.prepared.hu[k])
            for k in (target.below, target.above)
        )
        return place_exemplar(exemplar.hu, slerp(below, above, target.alpha), self.recipe)

    def _interpolated(self, target: Target, match: ExemplarMatch) -> Guide:
        reason = match.reason
        if match.similarity is None:
            reason = f"no slice was measured here and {reason}"
        return Guide(
            target=target,
            kind="interpolated",
            reason=f"{reason}: {_neighbours(target, self.prepared)}",
            similarity=match.similarity,
            tau=self.exemplars.tau,
        )


def _measured(target: Target) -> Guide:
    return Guide(target=target, kind="measured", reason="a slice was measured here")


def _unguided(target: Target, prepared: PreparedVolume, recipe: Recipe) -> Guide:
    """Say how a target is filled where the recipe retrieves no exemplar."""
    if target.above == target.below:
        return _measured(target)
    if recipe.retrieval.method == "linear":
        how = "no slice was measured here and the recipe draws none: the synthetic slices are"
    else:
        how = "no slice was measured here and the recipe retrieves no exemplar:"
    return Guide(
        target=target, kind="interpolated", reason=f"{how} {_neighbours(target, prepared)}"
    )


def _neighbours(target: Target, prepared: PreparedVolume) -> str:
    below, above = prepared.distances_mm[target.below], prepared.distances_mm[target.above]
    return (
        "interpolated between the measured slices "
        f"{target.distance_mm - below:.1f} mm below and {above - target.distance_mm:.1f} mm above"
    )
