"""From instances as received to the measured slices in HU, each where it lies in the patient.

Order, spacing and tilt follow from Image Position and Orientation (Patient) alone
(PS3.3 C.7.6.2); Instance Number, Slice Location, Gantry/Detector Tilt and the order of arrival
say nothing here. Refused is only what cannot be put together; whether the result is fit for
synthesis is judged by the check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain.arrangement import arrange_frames, judge_duplicates, judge_planes
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import GeometryLimits
from rebrain_node.domain.passes import slices_to_use
from rebrain_node.domain.series import SourceFrame
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.header import axial_instances, frames
from rebrain_node.instance.pixels import hounsfield
from rebrain_node.steps.assemble.rotations import recentred


def assemble(instances: Sequence[Dataset], limits: GeometryLimits) -> SourceVolume:
    """Put the instances of one series together, in any order of arrival.

    Parameters
    ----------
    instances : sequence of Dataset
        Classic CT instances, one Enhanced CT instance, or several; scouts among them are left out.
        Of more than one pass over the head the same is used as in the selection (`domain.passes`).
    limits : GeometryLimits
        The clinical lead's tolerances, the same as in the selection.

    Returns
    -------
    SourceVolume
        Slices sorted along the normal of their planes, nothing resampled. Of a multi-slice scanner
        with tilt, where the outlines say that they lie (`rotations`).

    Raises
    ------
    SeriesRejectedError
        ``TOO-FEW`` no frame; ``ID-MIXED`` more than one study, series or frame of reference;
        ``GEOM-REFERENCE`` no frame of reference; ``GEOM-ORIENTATION`` position or orientation
        absent, not orthonormal or mixed; ``GEOM-SPACING`` pixel spacing or matrix absent or mixed;
        ``GEOM-DUPLICATE`` two slices at one position; ``GEOM-TWO-PASSES`` no pass can be used;
        ``PIXEL-DATA`` and ``HU`` from decoding.
    """
    instances = axial_instances(instances)
    used = slices_to_use(frames(instances), limits)
    listed = used.frames
    findings = (*_too_few(listed), *_identity(listed), *judge_planes(listed, limits))
    arrangement = arrange_frames(listed)
    if findings or used.refused or arrangement is None:
        raise SeriesRejectedError((*findings, *(used.findings if used.refused else ())))
    duplicates = judge_duplicates(arrangement, limits)
    if duplicates:
        raise SeriesRejectedError(duplicates)
    volume = _volume([listed[place] for place in arrangement.order], instances)
    return recentred(volume, arrangement.phases, limits)


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
    return [
        Finding(
            code="TOO-FEW", sentence="the series holds no image; send it whole", value=0, limit=1
        )
    ]


def _identity(listed: Sequence[SourceFrame]) -> list[Finding]:
    named = {
        "studies": {f.study_instance_uid for f in listed},
        "series": {f.series_instance_uid for f in listed},
        "frames of reference": {f.frame_of_reference_uid for f in listed},
    }
    found = [
        Finding(
            code="ID-MIXED",
            sentence=(
                f"the images belong to {len(uids)} {noun}, one is required: send each as a series "
                "of its own"
            ),
            value=len(uids),
            limit=1,
        )
        for noun, uids in named.items()
        if len(uids) > 1
    ]
    if listed and None in named["frames of reference"]:
        sentence = (
            "the images name no frame of reference (0020,0052): the result could not be laid over "
            "the CT; repair the sender"
        )
        found.append(Finding(code="GEOM-REFERENCE", sentence=sentence))
    return found
