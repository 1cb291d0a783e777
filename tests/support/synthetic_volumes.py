"""Synthetic volumes as the step before writing hands them over, small and of known content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain.job import Provenance
from rebrain_node.domain.uncertainty import RULE_OF_THUMB, UncertaintyInterpretation
from rebrain_node.domain.volume import (
    Grid,
    Guide,
    PlaneRegistration,
    PreparedVolume,
    SyntheticVolume,
    Target,
)


def provenance(**changes: object) -> Provenance:
    """A provenance of plausible digests."""
    values: dict[str, object] = {
        "source_series_uid": "1.2.3",
        "input_digest": "1" * 64,
        "bundle_name": "demo",
        "bundle_version": "0.1.0",
        "bundle_digest": "2" * 64,
        "engine_identity": "openvino 2026.4.1 bf16",
        "configuration_digest": "3" * 64,
        "software_version": "0.1.0",
        "revision": 1,
    }
    return Provenance(**{**values, **changes})


def synthetic_volume(
    instances: Sequence[Dataset],
    *,
    rows: int = 32,
    columns: int = 24,
    pixel_mm: float = 7.0,
    spacing_mm: float = 4.0,
    meaning: UncertaintyInterpretation = RULE_OF_THUMB,
) -> SyntheticVolume:
    """Make a volume over the source series: a ball, brighter towards its middle and one corner.

    The grid stands on the first source slice, its middle on the middle of that slice.
    """
    planes = sorted(_planes(instances), key=lambda plane: plane[0])
    distances = np.array([plane[0] for plane in planes]) - planes[0][0]
    first, row, column = planes[0][1], planes[0][2], planes[0][3]
    middle = first + row * planes[0][4][0] / 2 + column * planes[0][4][1] / 2
    grid = Grid(
        origin_mm=middle - row * pixel_mm * (columns - 1) / 2 - column * pixel_mm * (rows - 1) / 2,
        row_direction=row,
        column_direction=column,
        pixel_mm=pixel_mm,
        rows=rows,
        columns=columns,
    )
    targets = [_target(d, distances) for d in np.arange(0.0, distances[-1] + 1e-6, spacing_mm)]
    intensity, head = _ball((len(targets), rows, columns))
    uncertainty = np.where(head, 0.02 + 0.2 * (1.0 - intensity), 0.0).astype(np.float32)
    prepared = PreparedVolume(
        hu=np.full((len(planes), rows, columns), 40.0, dtype=np.float32),
        head=np.ones((len(planes), rows, columns), dtype=bool),
        grid=grid,
        distances_mm=distances,
        thickness_mm=(5.0,) * len(planes),
        targets=tuple(targets),
        spacing_mm=spacing_mm,
        sop_instance_uids=tuple(plane[5] for plane in planes),
        frame_numbers=tuple(plane[6] for plane in planes),
        frame_of_reference_uid=instances[0].FrameOfReferenceUID,
    )
    return SyntheticVolume(
        intensity=intensity,
        uncertainty=uncertainty,
        meaning=meaning,
        head=head,
        guides=tuple(_guide(target, k) for k, target in enumerate(targets)),
        prepared=prepared,
    )


def _planes(instances: Sequence[Dataset]) -> list[tuple]:
    """(distance, position, row, column, size (along row, along column) mm, uid, frame)."""
    planes = []
    for instance in instances:
        if "PerFrameFunctionalGroupsSequence" not in instance:
            planes.append(_plane(instance, instance, instance, instance, None))
            continue
        shared = instance.SharedFunctionalGroupsSequence[0]
        for number, group in enumerate(instance.PerFrameFunctionalGroupsSequence, start=1):
            planes.append(
                _plane(
                    instance,
                    group.PlanePositionSequence[0],
                    shared.PlaneOrientationSequence[0],
                    group.PixelMeasuresSequence[0],
                    number,
                )
            )
    return planes


def _plane(
    instance: Dataset, position: Dataset, orientation: Dataset, measures: Dataset, frame: int | None
) -> tuple:
    cosines = np.array(orientation.ImageOrientationPatient, dtype=float)
    row, column = cosines[:3], cosines[3:]
    corner = np.array(position.ImagePositionPatient, dtype=float)
    size = (
        float(measures.PixelSpacing[1]) * (instance.Columns - 1),
        float(measures.PixelSpacing[0]) * (instance.Rows - 1),
    )
    distance = float(corner @ np.cross(row, column))
    return distance, corner, row, column, size, instance.SOPInstanceUID, frame


def _target(distance: float, measured: np.ndarray) -> Target:
    below = int(np.searchsorted(measured, distance + 1e-6, side="right")) - 1
    gap = distance - measured[below]
    if gap < 1e-6 or below + 1 == len(measured):
        return Target(distance_mm=float(distance), below=below, above=below, alpha=0.0)
    alpha = float(gap / (measured[below + 1] - measured[below]))
    return Target(distance_mm=float(distance), below=below, above=below + 1, alpha=alpha)


def _guide(target: Target, index: int) -> Guide:
    if target.alpha == 0.0:
        return Guide(target=target, kind="measured", reason="a measured slice lies here")
    if index % 2:
        return Guide(target=target, kind="interpolated", reason="no exemplar above the threshold")
    return Guide(
        target=target,
        kind="retrieved",
        reason="an exemplar is similar enough",
        similarity=0.91,
        tau=0.8,
        exemplar="e" * 32,
        position_difference_mm=-1.25,
        registration=PlaneRegistration(
            rotation_deg=-3.21, scale=1.04, posterior_mm=2.5, left_mm=-1.5
        ),
    )


def _ball(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    axes = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    ramp = sum(weight * axis for weight, axis in zip((0.05, 0.03, 0.02), axes, strict=True))
    head = radius < 0.95
    return np.where(head, 0.9 - 0.7 * radius + ramp, 0.0).astype(np.float32), head
