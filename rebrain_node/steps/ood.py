"""Out-of-distribution (OOD) score of a series, and the policy on it (hazard H13).

The score compares three parts with the in-distribution series of the bundle (`model.ood`):
the fit to the head template; image statistics of each slice, by its position in the head; and,
where the bundle has an encoder, its embedding. The part with the largest distance is the score.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.volume import FloatArray, MaskArray, PreparedVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.model.ood import OodFeatures, OodModel, Vectors
from rebrain_node.model.resample import halved

FRAME: Final = ("likeness", "symmetry", "size")
PICTURE: Final = (
    "section",
    "width",
    "air",
    "fat",
    "bright",
    "bone",
    "middle",
    "spread",
    "noise",
    "asymmetry",
)
#: positions in the head frame between which slices are scored: from the base to the vertex
RANGE_MM: Final = (-60.0, 80.0)
#: a slice with less head has too few pixels for shares
LEAST_SECTION_MM2: Final = 1000.0
_SOFT_HU = (-10.0, 100.0)
_LEAST_PIXELS = 100


def recognise(
    prepared: PreparedVolume,
    frame: HeadFrame,
    embeddings: FloatArray | None,
    known: OodModel,
) -> OodScore:
    """Compute the OOD score of a series.

    Parameters
    ----------
    prepared : PreparedVolume
        On the grid whose pixel size the OOD model states.
    frame : HeadFrame
        Where it lies in the head.
    embeddings : FloatArray or None
        (n, d) of its slices; None where the OOD model has no embeddings.
    known : OodModel
        The OOD model of the bundle.
    """
    chosen = looked_at(prepared, frame)
    return known.score_of(
        OodFeatures(
            position_mm=frame.position_mm[chosen],
            frame=frame_vector(frame),
            picture=statistics(prepared)[chosen],
            embeddings=None if embeddings is None else embeddings[chosen],
        )
    )


def without_domain(bundle: str) -> Finding:
    """Flag ``NO-DOMAIN``: the bundle of this name and version has no OOD model."""
    return Finding(
        code="NO-DOMAIN",
        sentence=f"the bundle {bundle} has no out-of-distribution model: nothing says whether the "
        "series is of the kind that it was made for",
        severity="flag",
    )


def admit(ood: OodScore, limits: Limits) -> tuple[Finding, ...]:
    """Compare the OOD score with its threshold.

    Returns
    -------
    tuple of Finding
        The flag with which the result is published; empty in distribution.

    Raises
    ------
    SeriesRejectedError
        The series is OOD and the policy of the site refuses such series.
    """
    if ood.score <= ood.threshold:
        return ()
    finding = Finding(
        code="OOD",
        sentence=(
            f"the series looks unlike those that the model was made for: {ood.score:.1f} "
            f"times the usual distance, at most {ood.threshold:.1f} is known to the "
            f"model; most unusual are {', '.join(ood.farthest)}"
        ),
        severity=limits.severity("OOD"),
        value=round(ood.score, 2),
        limit=round(ood.threshold, 2),
    )
    if finding.severity == "refuse":
        raise SeriesRejectedError((finding,))
    return (finding,)


def looked_at(prepared: PreparedVolume, frame: HeadFrame) -> MaskArray:
    """Return the slices to score, (n,) bool: with head, inside the range; else all with head.

    If all slices lie outside the range, their position and content both raise the score.
    """
    section = prepared.head.sum(axis=(1, 2)) * prepared.grid.pixel_mm**2
    shown = section >= min(LEAST_SECTION_MM2, float(section.max()))
    low, high = RANGE_MM
    inside = shown & (frame.position_mm >= low) & (frame.position_mm <= high)
    return np.asarray(inside if inside.any() else shown)


def frame_vector(frame: HeadFrame) -> Vectors:
    """Return (1, 3): likeness to the template, symmetry, and the logarithm of the size."""
    return np.array([[frame.likeness, frame.symmetry, np.log(max(frame.size, 1e-3))]])


def statistics(prepared: PreparedVolume) -> Vectors:
    """Return (n, 10) numbers of each slice in the order of `PICTURE`; nan where not known.

    Square root of the head's section (mm), its width by its depth, shares of air, fat, blood-like
    HU, and bone, median and spread of the soft tissue (HU), logarithm of the noise
    (HU), and of the mean difference between left and right (HU).
    """
    hu, head = halved(prepared.hu), halved(prepared.head.astype(np.float32)) > 0.5
    noise = _noise_hu(prepared)
    found = np.full((len(hu), len(PICTURE)), np.nan)
    for k, (plane, mask) in enumerate(zip(hu, head, strict=True)):
        if mask.sum() >= _LEAST_PIXELS:
            found[k, :-2] = _of_slice(plane, mask, 2 * prepared.grid.pixel_mm)
            found[k, -2:] = np.log(noise[k]), np.log(_asymmetry_hu(plane, mask) + 0.5)
    return found


def _of_slice(plane: FloatArray, mask: MaskArray, pixel_mm: float) -> tuple[float, ...]:
    rows, columns = np.nonzero(mask)
    inside = plane[mask]
    soft = inside[(inside > _SOFT_HU[0]) & (inside < _SOFT_HU[1])]
    if len(soft) < _LEAST_PIXELS:
        soft = np.array(_SOFT_HU, dtype=np.float32)
    low, middle, high = np.percentile(soft, [10.0, 50.0, 90.0])
    return (
        float(np.sqrt(len(inside))) * pixel_mm,
        (np.ptp(columns) + 1) / (np.ptp(rows) + 1),
        float(np.mean(inside < -300.0)),
        float(np.mean((inside > -150.0) & (inside < -30.0))),
        float(np.mean((inside > 50.0) & (inside < 100.0))),
        float(np.mean(inside > 300.0)),
        float(middle),
        float(high - low),
    )


def _noise_hu(prepared: PreparedVolume) -> Vectors:
    """Return (n,) the standard deviation of the finest detail of soft tissue; nan without any."""
    hu = prepared.hu
    fine = hu - ndimage.gaussian_filter(hu, (0, 1.5, 1.5))
    soft = prepared.head & (ndimage.minimum_filter(hu, (1, 5, 5)) > -20.0)
    soft &= ndimage.maximum_filter(hu, (1, 5, 5)) < 120.0
    levels = [
        1.4826 * float(np.median(np.abs(detail[mask]))) if mask.sum() >= _LEAST_PIXELS else np.nan
        for detail, mask in zip(fine, soft, strict=True)
    ]
    return np.maximum(levels, 0.3)


def _asymmetry_hu(plane: FloatArray, mask: MaskArray) -> float:
    """Return the mean difference of the brain window from its mirror image about the middle."""
    columns = np.nonzero(mask)[1]
    smooth = ndimage.gaussian_filter(np.clip(plane, 0.0, 80.0), 2.0)
    off = float(columns.min() + columns.max()) - (plane.shape[1] - 1)
    mirror = ndimage.shift(smooth[:, ::-1], (0.0, off), order=1)
    return float(np.mean(np.abs(smooth - mirror)[mask]))
