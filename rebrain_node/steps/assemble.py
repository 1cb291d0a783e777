"""From instances as received to the measured slices in HU, each where it lies in the patient.

Order, spacing and tilt follow from Image Position and Orientation (Patient) alone
(PS3.3 C.7.6.2); Instance Number, Slice Location, Gantry/Detector Tilt and the order of arrival
say nothing here. Refused is only what cannot be put together; whether the result is fit for
synthesis is judged by the check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.series import SourceFrame
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import SeriesRejected
from rebrain_node.instance.header import frames
from rebrain_node.instance.pixels import hounsfield

#: two planes nearer to each other than this are one position; scanners write 0.01 mm or better
SAME_POSITION_MM = 0.05
#: direction cosines equal within this, about 0.06 degrees; scanners write 5 or more digits
SAME_COSINE = 1e-3


def assemble(instances: Sequence[Dataset]) -> SourceVolume:
    """Put the instances of one series together, in any order of arrival.

    Parameters
    ----------
    instances : sequence of Dataset
        Classic CT instances, one Enhanced CT instance, or several.

    Returns
    -------
    SourceVolume
        Slices sorted along the normal of their planes, nothing resampled.

    Raises
    ------
    SeriesRejected
        ``TOO-FEW`` no frame; ``ID-MIXED`` more than one study, series or frame of reference;
        ``GEOM-REFERENCE`` no frame of reference; ``GEOM-ORIENTATION`` orientation absent, not
        orthonormal or mixed; ``GEOM-SPACING`` pixel spacing, matrix or position absent or mixed;
        ``GEOM-DUPLICATE`` two slices at one position; ``PIXEL-DATA`` and ``HU`` from decoding.
    """
    listed = frames(instances)
    findings = [finding for rule in _RULES for finding in rule(listed)]
    if findings:
        raise SeriesRejected(findings)
    ordered = sorted(listed, key=lambda frame: _along(frame, listed[0]))
    duplicates = _duplicates(ordered)
    if duplicates:
        raise SeriesRejected(duplicates)
    return _volume(ordered, instances)


def _along(frame: SourceFrame, first: SourceFrame) -> float:
    """Distance of a frame along the series' one normal, mm."""
    return float(np.asarray(frame.image_position_patient) @ np.asarray(first.normal))


def _volume(ordered: Sequence[SourceFrame], instances: Sequence[Dataset]) -> SourceVolume:
    first = ordered[0]
    cosines = np.asarray(first.image_orientation_patient, dtype=np.float64)
    row = cosines[:3] / np.linalg.norm(cosines[:3])
    column = cosines[3:] - (cosines[3:] @ row) * row
    decoded = [hounsfield(instances[f.instance_index], f.frame_number) for f in ordered]
    return SourceVolume(
        hu=np.stack([hu for hu, _ in decoded]),
        padding=np.stack([padding for _, padding in decoded]),
        positions_mm=np.asarray([f.image_position_patient for f in ordered], dtype=np.float64),
        row_direction=row,
        column_direction=column / np.linalg.norm(column),
        pixel_spacing_mm=first.pixel_spacing_mm or (0.0, 0.0),
        thickness_mm=tuple(f.slice_thickness_mm or 0.0 for f in ordered),
        sop_instance_uids=tuple(f.sop_instance_uid or "" for f in ordered),
        frame_numbers=tuple(f.frame_number for f in ordered),
        frame_of_reference_uid=first.frame_of_reference_uid or "",
    )


def _too_few(listed: Sequence[SourceFrame]) -> list[Finding]:
    if listed:
        return []
    return [Finding(code="TOO-FEW", sentence="the series holds no image", value=0, limit=1)]


def _identity(listed: Sequence[SourceFrame]) -> list[Finding]:
    named = {
        "studies": {f.study_instance_uid for f in listed},
        "series": {f.series_instance_uid for f in listed},
        "frames of reference": {f.frame_of_reference_uid for f in listed},
    }
    found = [
        Finding(
            code="ID-MIXED",
            sentence=f"the images belong to {len(uids)} {noun}, one is required",
            value=len(uids),
            limit=1,
        )
        for noun, uids in named.items()
        if len(uids) > 1
    ]
    if listed and None in named["frames of reference"]:
        sentence = "the images name no frame of reference, where they lie is unknown"
        found.append(Finding(code="GEOM-REFERENCE", sentence=sentence))
    return found


def _orientation(listed: Sequence[SourceFrame]) -> list[Finding]:
    known = [f.image_orientation_patient for f in listed if f.image_orientation_patient is not None]
    if len(known) < len(listed):
        missing = len(listed) - len(known)
        sentence = f"{missing} of {len(listed)} images say nothing usable of their orientation"
        return [Finding(code="GEOM-ORIENTATION", sentence=sentence, value=missing, limit=0)]
    if not known:
        return []
    cosines = np.asarray(known)
    lengths = np.linalg.norm(cosines.reshape(-1, 2, 3), axis=2)
    skew = np.abs(np.einsum("ni,ni->n", cosines[:, :3], cosines[:, 3:]))
    worst = float(max(np.abs(lengths - 1.0).max(), skew.max()))
    if worst > SAME_COSINE:
        sentence = "the direction cosines of an image are not two perpendicular unit vectors"
        return [_geometry("GEOM-ORIENTATION", sentence, worst, SAME_COSINE)]
    spread = float(np.abs(cosines - cosines[0]).max())
    if spread > SAME_COSINE:
        sentence = "the images of the series are not parallel"
        return [_geometry("GEOM-ORIENTATION", sentence, spread, SAME_COSINE)]
    return []


def _matrix(listed: Sequence[SourceFrame]) -> list[Finding]:
    found = []
    if any(f.image_position_patient is None for f in listed):
        sentence = "at least one image does not say where it lies in the patient"
        found.append(Finding(code="GEOM-SPACING", sentence=sentence))
    spacings = {f.pixel_spacing_mm for f in listed}
    if any(s is None or min(s) <= 0.0 for s in spacings):
        sentence = "at least one image has no usable pixel spacing"
        found.append(Finding(code="GEOM-SPACING", sentence=sentence))
    elif (
        np.ptp(np.asarray(sorted(s for s in spacings if s)), axis=0).max(initial=0.0) > SAME_COSINE
    ):
        sentence = "the pixel spacing differs between the images of the series"
        found.append(
            Finding(
                code="GEOM-SPACING", sentence=sentence, value=str(sorted(s for s in spacings if s))
            )
        )
    matrices = {(f.rows, f.columns) for f in listed}
    if len(matrices) > 1:
        sentence = "the number of rows and columns differs between the images of the series"
        found.append(
            Finding(code="GEOM-SPACING", sentence=sentence, value=str(sorted(matrices, key=str)))
        )
    return found


def _duplicates(ordered: Sequence[SourceFrame]) -> list[Finding]:
    distances = np.asarray([_along(frame, ordered[0]) for frame in ordered])
    gaps = np.diff(distances)
    together = int((gaps < SAME_POSITION_MM).sum())
    if not together:
        return []
    sentence = f"{together} images lie where another image of the series lies"
    return [_geometry("GEOM-DUPLICATE", sentence, float(gaps.min()), SAME_POSITION_MM)]


def _geometry(code: str, sentence: str, value: float, limit: float) -> Finding:
    return Finding(code=code, sentence=sentence, value=round(value, 4), limit=limit)


_RULES: tuple[Callable[[Sequence[SourceFrame]], list[Finding]], ...] = (
    _too_few,
    _identity,
    _orientation,
    _matrix,
)
