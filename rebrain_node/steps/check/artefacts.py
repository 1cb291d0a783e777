"""CONTRAST, METAL, NOISE and MOTION, as seen in the pixels (hazards H8, H9, H11)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rebrain_node.domain.contrast import strongest
from rebrain_node.domain.findings import Finding, unlike
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import FloatArray, MillimetreArray
from rebrain_node.instance.header import frames
from rebrain_node.steps.check.survey import Survey

_NOISE_SLICES = 6
#: half side of the square in the middle of the head where noise is measured
_NOISE_SQUARE_MM = 35.0
_SMOOTH_MM = 2.5
#: section of all vessels away from the skull that a slice may count for
_VESSELS_MM2 = 25.0
#: fillings of teeth lie deeper below the top of the head
_TEETH_MM = 125.0
#: from where the outline is wide enough down to the floor of the skull
_JUMP_DEPTHS_MM = (15.0, 112.0)
#: above it a thick slice cuts the scalp at a slant and blurs the edge by itself
_EDGE_DEPTH_MM = 35.0
#: from the outer table outwards the scalp ends within so many steps of a ray, 1 mm each
_EDGE_STEPS = 30
_EDGE_WIDTH_STEPS = 5
_EDGE_HU = (-1000.0, 50.0)


def check_contrast(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find vessels filled with contrast agent inside the vault."""
    volume, most = contrast_ml(survey, limits), limits.artefacts.contrast_ml
    if volume > most:
        low, high = limits.artefacts.contrast_hu
        yield Finding(
            code="CONTRAST",
            sentence=(
                f"{unlike(volume, most)} ml inside the skull are as bright as vessels with "
                f"contrast ({low:g} to {high:g} HU); at most {most:g} ml (artefacts.contrast_ml) "
                f"are accepted; {_header(survey)}: send the series without contrast, or let "
                "policy.CONTRAST flag such series"
            ),
            severity=limits.severity("CONTRAST"),
            value=round(volume, 2),
            limit=most,
        )


def _header(survey: Survey) -> str:
    """What the header says of contrast, as the selection reads it."""
    reading = strongest([frame.contrast for frame in frames(survey.instances)])
    return reading.words or "the header says nothing of contrast"


def contrast_ml(survey: Survey, limits: Limits) -> float:
    """Return the volume as bright as contrast, away from the skull.

    Vessels run through all slices, a calcification or a clot fills a few: no slice counts for more
    than a share of it.
    """
    low, high = limits.artefacts.contrast_hu
    bright = survey.brain & (survey.hu >= low) & (survey.hu <= high)
    areas = np.minimum(bright.sum(axis=(1, 2)) * survey.pixel_area_mm2, _VESSELS_MM2)
    return float(areas @ survey.heights_mm) / 1000.0


def check_metal(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find metal in the head above the teeth."""
    found, most = metal_mm3(survey, limits.artefacts.metal_hu), limits.artefacts.metal_mm3
    if found > most:
        yield Finding(
            code="METAL",
            sentence=(
                f"{unlike(found, most, 0)} mm3 of the head are denser than "
                f"{limits.artefacts.metal_hu:g} HU, at most {most:g} mm3 (artefacts.metal_mm3) are "
                "accepted: metal disturbs the image around it"
            ),
            severity=limits.severity("METAL"),
            value=round(found),
            limit=most,
        )


def metal_mm3(survey: Survey, metal_hu: float) -> float:
    """Return the volume denser than ``metal_hu`` down to the floor of the skull."""
    volume, upper = survey.volume, survey.depths_mm <= _TEETH_MM
    areas = (volume.hu[upper] > metal_hu).sum(axis=(1, 2)) * np.prod(volume.pixel_spacing_mm)
    return float(areas @ survey.heights_mm[upper])


def check_noise(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find noise in which grey and white matter drown; a sharp kernel shows here too."""
    noise, most = noise_hu(survey), limits.artefacts.noise_hu
    if noise > most:
        yield Finding(
            code="NOISE",
            sentence=(
                f"the noise in the brain is {unlike(noise, most)} HU, at most {most:g} HU "
                "(artefacts.noise_hu) are accepted: too little dose or a sharp kernel; send a "
                "smoother reconstruction"
            ),
            severity=limits.severity("NOISE"),
            value=round(noise, 1),
            limit=most,
        )


def noise_hu(survey: Survey) -> float:
    """Return the standard deviation of what is left of the brain after smoothing, median."""
    volume = survey.volume
    scale = np.array(survey.pixel_mm) / volume.pixel_spacing_mm
    half = np.rint(_NOISE_SQUARE_MM / np.array(volume.pixel_spacing_mm)).astype(int)
    sigma = _SMOOTH_MM / np.array(volume.pixel_spacing_mm)
    levels = []
    for k in survey.vault[:: max(1, len(survey.vault) // _NOISE_SLICES)]:
        row, column = np.rint(survey.centres[k] * scale).astype(int)
        patch = volume.hu[
            k,
            max(0, row - half[0]) : row + half[0],
            max(0, column - half[1]) : column + half[1],
        ]
        if patch.size:
            rest = patch - ndimage.gaussian_filter(patch, sigma)
            levels.append(1.4826 * float(np.median(np.abs(rest - np.median(rest)))))
    return float(np.median(levels)) if levels else 0.0


def check_motion(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find a head that moved between slices (the skull jumps) or within them (it is doubled)."""
    jumps, most = jumps_mm(survey), limits.artefacts.jump_mm
    jump = max(jumps, default=0.0)
    if jump > most and survey.volume.rotations and np.median(jumps) > most:
        yield Finding(
            code="GEOM-PAIRS",
            sentence=(
                "the scanner measured several slices in each rotation, and rotations lie up to "
                f"{unlike(jump, most)} mm beside each other, at most {most:g} mm "
                "(artefacts.jump_mm) are accepted: the tilt of the gantry is not undone in this "
                "series; send it reconstructed without tilt"
            ),
            value=round(jump, 2),
            limit=most,
        )
    elif jump > most:
        yield Finding(
            code="MOTION",
            sentence=(
                f"the skull jumps by {unlike(jump, most)} mm between neighbouring slices, at most "
                f"{most:g} mm (artefacts.jump_mm) are accepted: the patient moved; send a repeated "
                "scan if there is one"
            ),
            severity=limits.severity("MOTION"),
            value=round(jump, 2),
            limit=most,
        )
    edge, least = edge_hu(survey), limits.artefacts.edge_hu
    if edge < least:
        yield Finding(
            code="MOTION",
            sentence=(
                f"the edge of the head falls by {unlike(edge, least, 0)} HU within 5 mm, a sharp "
                f"one by at least {least:g} HU (artefacts.edge_hu): the patient moved during a "
                "slice; send a repeated scan if there is one"
            ),
            severity=limits.severity("MOTION"),
            value=round(edge),
            limit=least,
        )


def jumps_mm(survey: Survey) -> tuple[float, ...]:
    """Return how far each slice lies from the line through its neighbours, in plane.

    The median over the directions in which bone is met: nose, ears and holders do not matter.
    A lasting shift shows with half its length on either side of it.
    """
    inside = (survey.depths_mm >= _JUMP_DEPTHS_MM[0]) & (survey.depths_mm <= _JUMP_DEPTHS_MM[1])
    order = np.flatnonzero(inside)
    outlines = _outlines_mm(survey)
    found = []
    for below, k, above in zip(order, order[1:], order[2:], strict=False):
        span = survey.distances_mm[above] - survey.distances_mm[below]
        if span <= 0.0:
            continue
        weight = (survey.distances_mm[k] - survey.distances_mm[below]) / span
        off = outlines[k] - (1.0 - weight) * outlines[below] - weight * outlines[above]
        known = off[np.isfinite(off).all(axis=1)]
        if len(known):
            found.append(float(np.linalg.norm(np.median(known, axis=0))))
    return tuple(found)


def _outlines_mm(survey: Survey) -> MillimetreArray:
    """Return the outer table in the plane's coordinates, (n, rays, 2) rows and columns."""
    rays = survey.outer_mm.shape[1]
    angles = np.arange(rays) * 2 * np.pi / rays
    directions = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    centres = survey.positions_mm + survey.centres * survey.pixel_mm
    return np.asarray(centres[:, None] + survey.outer_mm[:, :, None] * directions)


def edge_hu(survey: Survey) -> float:
    """Return how steeply the head ends in air: the fall within 5 mm, second flattest slice.

    A head that moved during a slice ends twice, each time half as steeply. The blurred quarter of
    the directions counts, because those across the motion stay sharp; hair and pillow do not
    matter.
    """
    slices = [k for k in survey.vault if survey.depths_mm[k] >= _EDGE_DEPTH_MM]
    falls = sorted(_fall_hu(survey.rays[k], survey.outer_mm[k]) for k in slices)
    return falls[1] if len(falls) > 1 else np.inf


def _fall_hu(rays: FloatArray, outer_mm: MillimetreArray) -> float:
    """Return the lower quartile over rays of the steepest fall outside the outer table."""
    known = np.flatnonzero(np.isfinite(outer_mm))
    if len(known) == 0:
        return np.inf
    places = outer_mm[known].astype(int)[:, None] + np.arange(_EDGE_STEPS)
    places = np.minimum(places, rays.shape[1] - 1)
    values = np.clip(rays[known[:, None], places], *_EDGE_HU)
    falls = values[:, :-_EDGE_WIDTH_STEPS] - values[:, _EDGE_WIDTH_STEPS:]
    return float(np.percentile(falls.max(axis=1), 25.0))
