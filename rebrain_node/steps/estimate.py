"""How far each voxel may be from the truth, and whether too much of a series is uncertain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.domain.volume import FloatArray, SyntheticVolume
from rebrain_node.errors import EngineError, SeriesRejectedError
from rebrain_node.model.calibration import Calibration
from rebrain_node.model.recipe import Abstain, Recipe
from rebrain_node.model.source import conditioning_at, stack_channels, windowed
from rebrain_node.model.z_filter import along_normal
from rebrain_node.ports import ResidualScale

#: how many times as wide the map is filtered as the image, which would lose detail
MAP_FILTER: Final = 1.25
#: place of the distance to the nearest measured slice among the scalars of the network
_NEAREST: Final = 3


def estimate(
    synthetic: SyntheticVolume, recipe: Recipe, scale: ResidualScale, calibration: Calibration
) -> SyntheticVolume:
    """Replace the rule of thumb by calibrated intervals.

    Parameters
    ----------
    synthetic : SyntheticVolume
        As drawn.
    recipe : Recipe
        Windows, and the limit on a slice.
    scale : ResidualScale
        One evaluation of the residual-scale head.
    calibration : Calibration
        How many scales wide an interval is, for each kind of slice.

    Returns
    -------
    SyntheticVolume
        The uncertainty is the half-width of the interval that misses the truth in the share
        alpha of the voxels of a head, at most 1, filtered along the normal `MAP_FILTER` times
        as widely as the image; 0 outside the head.

    Raises
    ------
    EngineError
        The head returned another shape than asked for, or values that are no scales.
    """
    head, widths = synthetic.head, np.empty_like(synthetic.intensity)
    for k, (x, s) in enumerate(scale_inputs(synthetic, recipe)):
        b, kind = _checked(scale, x, s), synthetic.guides[k].kind
        widths[k] = calibration.half_width(b, kind)
    sigma_mm = MAP_FILTER * recipe.z_filter_mm
    widths = along_normal(widths, head, synthetic.prepared, synthetic.guides, sigma_mm)
    np.minimum(widths, np.float32(1.0), out=widths)
    widths[~head] = 0.0
    limit = None if recipe.abstain is None else recipe.abstain.slice_above
    return replace(
        synthetic,
        uncertainty=widths,
        meaning=UncertaintyInterpretation(
            alpha=calibration.alpha,
            subjects=calibration.people,
            source=calibration.source,
            untrusted_above=limit,
        ),
    )


def abstain(
    synthetic: SyntheticVolume, abstain_above: Abstain | None, limits: Limits
) -> tuple[Finding, ...]:
    """Judge the uncertainty of the whole series.

    Parameters
    ----------
    synthetic : SyntheticVolume
        Each of its slices is marked by the recipe's limit on a slice.
    abstain_above : Abstain or None
        The recipe's limits; None judges nothing.
    limits : Limits
        Its policy says whether an uncertain series is refused.

    Returns
    -------
    tuple of Finding
        The flag ``UNCERTAIN``, or nothing.

    Raises
    ------
    SeriesRejectedError
        ``UNCERTAIN``, where the site's policy refuses such a series.
    """
    if abstain_above is None:
        return ()
    marked = sum(trusted is False for trusted in synthetic.trusted)
    share = marked / len(synthetic.trusted)
    if share <= abstain_above.series_share:
        return ()
    finding = Finding(
        code="UNCERTAIN",
        sentence=f"the network is not sure of {marked} of {len(synthetic.trusted)} slices: their "
        f"mean uncertainty is above {abstain_above.slice_above:g} of the display range",
        severity=limits.severity("UNCERTAIN"),
        value=round(share, 3),
        limit=abstain_above.series_share,
    )
    if finding.severity == "refuse":
        raise SeriesRejectedError([finding])
    return (finding,)


def scale_inputs(
    synthetic: SyntheticVolume, recipe: Recipe
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """What the residual-scale head is given of each slice; the trainer teaches it with the same.

    Yields
    ------
    x : FloatArray
        (1, 5, rows, columns), channels as in `recipe.CHANNELS` with the drawn slice, black
        outside the head, in the place of the bridge's state.
    s : FloatArray
        (1, 2): mm to the nearest measured slice; similarity of the exemplar that guided, else 0.
    """
    prepared = synthetic.prepared
    slices = [
        windowed(hu, float(distance), recipe)
        for hu, distance in zip(prepared.hu, prepared.distances_mm, strict=True)
    ]
    for guide, intensity in zip(synthetic.guides, synthetic.intensity, strict=True):
        conditioning = conditioning_at(slices, guide.target.distance_mm)
        drawn = intensity * np.float32(2.0) - np.float32(1.0)
        x, scalars = stack_channels(conditioning, drawn, 0.0)
        similarity = guide.similarity if guide.kind == "retrieved" else None
        yield x, np.array([[scalars[0, _NEAREST], similarity or 0.0]], dtype=np.float32)


def _checked(scale: ResidualScale, x: FloatArray, s: FloatArray) -> FloatArray:
    answer = scale.estimate(x, s)
    expected = (1, 1, *x.shape[2:])
    if answer.shape != expected:
        raise EngineError(
            f"{scale.identity} returned scales of shape {answer.shape}, expected {expected}; "
            "run `rebrain-node doctor` to test the engine"
        )
    if not (np.isfinite(answer).all() and (answer > 0.0).all()):
        raise EngineError(
            f"{scale.identity} returned scales that are not finite or not positive; "
            "run `rebrain-node doctor` to test the engine"
        )
    return np.asarray(answer[0, 0])
