"""Synthesise the T1-like volume from the prepared CT: one bridge trajectory per target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import (
    FloatArray,
    Guide,
    MaskArray,
    PreparedVolume,
    SyntheticVolume,
    Target,
)
from rebrain_node.errors import EngineError
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.sampling import noise_field, sample_slices
from rebrain_node.model.source import Conditioning, conditioning_at, windowed
from rebrain_node.model.z_filter import along_normal
from rebrain_node.ports import Engine

#: the skin's edge is kept this far outside the head mask, mm
MARGIN_MM = 2.0

# The uncalibrated map, in units of intensity: a constant, a term for the local deviation of the
# image, and a term for each millimetre to the nearest measured slice. Set from the mean absolute
# error on simulated heads, not conformal.
_FLOOR = 0.05
_PER_LOCAL_DEVIATION = 0.5
_PER_MM = 0.01
#: voxels across which the local deviation is taken: slices, rows, columns
_NEIGHBOURHOOD = 5


def synthesise(
    prepared: PreparedVolume,
    guides: Sequence[Guide],
    engine: Engine,
    recipe: Recipe,
    seed: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticVolume:
    """Synthesise one MR slice per target position.

    Parameters
    ----------
    prepared : PreparedVolume
        The measured slices on the recipe's grid.
    guides : sequence of Guide
        One for each target, in their order.
    engine : Engine
        One evaluation of the network.
    recipe : Recipe
        Windows, time steps of the bridge, eta, and the filter along the normal.
    seed : int
        Of the one noise field that all slices share, so that the result is reproducible and
        continuous from slice to slice.
    progress : callable, optional
        Called with (slices done, slices in all) after each evaluation.

    Returns
    -------
    SyntheticVolume
        Intensity in [0, 1], black outside the head; the uncertainty is a rule of thumb, 0 there.
        Its guides are without the pixels of their exemplars.

    Raises
    ------
    ValueError
        The recipe filters along the normal and there is not one guide for each target.
    EngineError
        The engine returned another shape than asked for, or values that are not finite.
    """
    slices = [
        windowed(hu, float(distance), recipe)
        for hu, distance in zip(prepared.hu, prepared.distances_mm, strict=True)
    ]
    noise = noise_field(recipe.grid.shape, seed)
    evaluate = _checked(engine)

    def drawn(places: Sequence[tuple[float, Guide | None]]) -> list[FloatArray]:
        conditionings = [conditioning_at(slices, distance_mm) for distance_mm, _ in places]
        given = [
            None if guide is None else shown(guide, conditioning, recipe)
            for (_, guide), conditioning in zip(places, conditionings, strict=True)
        ]
        shown_slices = [each for each in given if each is not None]
        guided = partial(evaluate, guide=np.concatenate(shown_slices) if shown_slices else None)
        return sample_slices(guided, conditionings, recipe.sampling, eta=recipe.eta, noise=noise)

    @cache
    def at_measured_slice(k: int) -> FloatArray:
        return drawn([(float(prepared.distances_mm[k]), None)])[0]

    def filled(some: Sequence[Guide]) -> list[FloatArray]:
        if recipe.retrieval.method != "linear":
            return drawn([(guide.target.distance_mm, guide) for guide in some])
        return [interpolated(guide.target) for guide in some]

    def interpolated(target: Target) -> FloatArray:
        below, above = at_measured_slice(target.below), at_measured_slice(target.above)
        return below + np.float32(target.alpha) * (above - below)

    synthesised = np.empty((len(guides), *recipe.grid.shape), dtype=np.float32)
    done = 0
    for rows in _batches(guides, engine.batch):
        for k, image in zip(rows, filled([guides[k] for k in rows]), strict=True):
            synthesised[k] = image
        done += len(rows)
        if progress is not None:
            progress(done, len(guides))
    support, head = _support(prepared, guides)
    synthesised += 1.0
    synthesised /= 2.0
    synthesised[~support] = 0.0
    intensity = along_normal(synthesised, support, prepared, guides, recipe.z_filter_mm)
    del synthesised, support  # a volume of many slices is a large part of the memory
    uncertainty = _uncertainty(intensity, prepared, guides)
    uncertainty[~head] = 0.0
    return SyntheticVolume(
        intensity=intensity,
        uncertainty=uncertainty,
        head=head,
        guides=tuple(replace(guide, exemplar_hu=None) for guide in guides),
        prepared=prepared,
        stored_range=recipe.output.stored_range,
    )


def _batches(guides: Sequence[Guide], batch: int) -> Iterator[list[int]]:
    """Yield the rows of each evaluation; measured slices have no guide and go by themselves."""
    if batch == 1:
        yield from ([k] for k in range(len(guides)))
        return
    measured = [k for k, guide in enumerate(guides) if guide.kind == "measured"]
    between = [k for k, guide in enumerate(guides) if guide.kind != "measured"]
    for rows in (measured, between):
        yield from (rows[k : k + batch] for k in range(0, len(rows), batch))


def shown(guide: Guide, conditioning: Conditioning, recipe: Recipe) -> FloatArray | None:
    """Return the input of the control branch at a position, as in its training.

    Returns
    -------
    FloatArray or None
        (1, 1, rows, columns), brain window, [-1, 1]: the exemplar, or the SLERP of the slices
        beside the position where none was similar enough. None where a slice was measured, and
        with a recipe that retrieves none: there the network has no guide.
    """
    if not recipe.retrieves or guide.kind == "measured":
        return None
    if guide.exemplar_hu is None:
        return conditioning.source[None, None]
    return recipe.brain_window.apply(guide.exemplar_hu)[None, None]


def _checked(engine: Engine) -> Callable[..., FloatArray]:
    """Check shape and values of every output of the engine."""

    def evaluate(x: FloatArray, s: FloatArray, guide: FloatArray | None) -> FloatArray:
        answer = engine.evaluate(x, s) if guide is None else engine.evaluate(x, s, guide)
        expected = (len(x), 1, *x.shape[2:])
        if answer.shape != expected:
            raise EngineError(
                f"{engine.identity} returned shape {answer.shape}, expected {expected}; "
                "run the self-test of the engine"
            )
        if not np.isfinite(answer).all():
            raise EngineError(
                f"{engine.identity} returned {int((~np.isfinite(answer)).sum())} values that are "
                "not finite, 0 are allowed; run the self-test of the engine"
            )
        return answer

    return evaluate


def _support(prepared: PreparedVolume, guides: Sequence[Guide]) -> tuple[MaskArray, MaskArray]:
    """Return where is synthesised and where the head is, each (k, rows, columns).

    Between measured slices the signed depth within the head is interpolated, which moves the
    outline smoothly.
    """
    pixel_mm = prepared.grid.pixel_mm
    measured = np.stack([_signed_depth(mask) for mask in prepared.head]) * np.float32(pixel_mm)
    support = np.empty((len(guides), *measured.shape[1:]), dtype=np.bool_)
    head = np.empty_like(support)
    for k, target in enumerate(guide.target for guide in guides):
        below, above = measured[target.below], measured[target.above]
        depth_mm = ((1.0 - target.alpha) * below + target.alpha * above).astype(np.float32)
        support[k], head[k] = depth_mm >= -MARGIN_MM, depth_mm >= 0.0
    return support, head


def _signed_depth(mask: MaskArray) -> FloatArray:
    """Signed depth of one slice in pixels: +0.5 at the innermost rim, -0.5 just outside."""
    if not mask.any():
        return np.full(mask.shape, -float(max(mask.shape)), dtype=np.float32)
    inside = np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1]
    outside = np.asarray(ndimage.distance_transform_edt(~mask))
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def _uncertainty(
    intensity: FloatArray, prepared: PreparedVolume, guides: Sequence[Guide]
) -> FloatArray:
    """Expected absolute error by rule of thumb, in units of intensity, (k, rows, columns).

    It rises with the local deviation of the image and with the distance to the nearest
    measured slice. It is an ordering, not a coverage, so every object labels it
    uncalibrated. A bundle with a calibration replaces it (`steps.estimate`).
    """
    targets = np.asarray([g.target.distance_mm for g in guides])
    nearest_mm = np.abs(targets[:, None] - prepared.distances_mm[None, :]).min(axis=1)
    spread = np.empty_like(intensity)
    for k, image in enumerate(intensity):
        mean = ndimage.uniform_filter(image, _NEIGHBOURHOOD, mode="nearest")
        square = ndimage.uniform_filter(image * image, _NEIGHBOURHOOD, mode="nearest")
        deviation = np.sqrt(np.maximum(square - mean * mean, 0.0))
        spread[k] = _FLOOR + _PER_LOCAL_DEVIATION * deviation + _PER_MM * nearest_mm[k]
    return np.minimum(spread, np.float32(1.0), out=spread)
