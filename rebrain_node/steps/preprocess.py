"""From the measured slices to the recipe's grid: the tilt undone, the table gone, targets set.

Every measured slice is its own plane with its own position, so one resampling within the plane
puts it on a grid whose origins lie on one normal; through the plane nothing is resampled and
nothing is sheared. The grid follows the axes of the slices, turned and mirrored as a whole so
that rows run from anterior to posterior, columns from the patient's right to left and slices
towards the head; a head lying obliquely within the plane stays oblique.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.volume import (
    AIR_HU,
    Grid,
    MaskArray,
    PreparedVolume,
    SourceVolume,
    TissueLevel,
)
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.model.head_mask import dilated_in_plane, head_mask, with_whole_face
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.resample import resampled, wide_grid
from rebrain_node.model.source import targets_of
from rebrain_node.model.tissue_level import LARGEST_SHIFT_HU, measured_level, shift_to, shifted

#: share of the head that may fall outside the grid: the rims of the ears, never more
CUT_LIMIT = 0.005
#: CT kept around the head mask so that its skin keeps its edge, mm
MARGIN_MM = 2.0
#: a level is reached where it is missed by no more
_LEVEL_REACHED_HU = 0.01
#: the normal leans at most this much from the head-foot axis; the recipe's plane is axial
AXIAL_LIMIT_DEG = 45.0


def preprocess(volume: SourceVolume, recipe: Recipe) -> PreparedVolume:
    """Put a series on the recipe's grid and decide which slices are to be made.

    Parameters
    ----------
    volume : SourceVolume
        Any roughly axial series, whatever its order, tilt, patient position and spacing.
    recipe : Recipe
        Grid (rows, columns, pixel size), spacing of the targets, and the level of brain tissue to
        which soft tissue is shifted.

    Returns
    -------
    PreparedVolume
        The same number of slices as measured, on the grid; centred on the head.

    Raises
    ------
    SeriesRejectedError
        ``TOO-FEW`` fewer than two slices; ``GEOM-ORIENTATION`` not axial; ``NOT-HEAD`` nothing
        but air; ``GEOM-SIZE`` the head does not fit the grid.
    """
    if len(volume.thickness_mm) < 2:
        sentence = "one slice alone has no spacing to fill"
        raise SeriesRejectedError(
            [Finding(code="TOO-FEW", sentence=sentence, value=len(volume.thickness_mm), limit=2)]
        )
    upright = towards_the_head(volume)
    wide = wide_grid(upright, recipe.grid.pixel_mm)
    hu = resampled(upright, wide)
    core = head_mask(hu, wide.pixel_mm)
    if not core.any():
        sentence = "no slice shows anything but air"
        raise SeriesRejectedError([Finding(code="NOT-HEAD", sentence=sentence)])
    head = with_whole_face(core, hu, wide.pixel_mm) if recipe.whole_face else core
    first_row, first_column = _corner(core, recipe)
    grid = replace(
        wide,
        origin_mm=wide.origin_mm
        + wide.column_direction * first_row * wide.pixel_mm
        + wide.row_direction * first_column * wide.pixel_mm,
        rows=recipe.grid.rows,
        columns=recipe.grid.columns,
    )
    distances = upright.distances_mm - upright.distances_mm[0]
    tissue = None
    if recipe.tissue_level_hu is not None:
        measured_hu = measured_level(hu, head, wide.pixel_mm, float(distances[-1]) / len(distances))
        tissue = shift_to(measured_hu, recipe.tissue_level_hu)
        hu = shifted(hu, tissue.shift_hu)
    kept = dilated_in_plane(head, round(MARGIN_MM / wide.pixel_mm))
    hu[~kept] = AIR_HU
    targets = targets_of(distances, recipe.spacing_mm)
    return PreparedVolume(
        hu=_window(hu, (first_row, first_column), grid, np.float32(AIR_HU)),
        head=_window(head, (first_row, first_column), grid, np.False_),
        grid=grid,
        distances_mm=distances,
        thickness_mm=upright.thickness_mm,
        targets=targets,
        spacing_mm=targets[1].distance_mm - targets[0].distance_mm,
        sop_instance_uids=upright.sop_instance_uids,
        frame_numbers=upright.frame_numbers,
        frame_of_reference_uid=upright.frame_of_reference_uid,
        tissue=tissue,
    )


def judge_tissue(tissue: TissueLevel) -> tuple[Finding, ...]:
    """Flag ``TISSUE-LEVEL``: no level was found, or the recipe's is farther than is corrected."""
    if tissue.measured_hu is None:
        sentence = (
            "too little brain inside the skull is seen to measure the level of its tissue, the "
            f"model expects {tissue.expected_hu:g} HU: the series is synthesised as measured; "
            "check that the whole head was sent"
        )
    elif abs(tissue.missing_hu) > _LEVEL_REACHED_HU:
        sentence = (
            f"brain tissue lies at {tissue.measured_hu:.0f} HU, the model expects "
            f"{tissue.expected_hu:g} HU and at most {LARGEST_SHIFT_HU:g} HU are corrected: grey "
            "and white matter may be drawn as fluid, or fluid as tissue; have the calibration of "
            "the scanner checked"
        )
    else:
        return ()
    return (
        Finding(
            code="TISSUE-LEVEL",
            sentence=sentence,
            severity="flag",
            value=None if tissue.measured_hu is None else round(tissue.measured_hu, 1),
            limit=LARGEST_SHIFT_HU,
        ),
    )


def towards_the_head(volume: SourceVolume) -> SourceVolume:
    """Turn and mirror the arrays, never the anatomy, so that all series have one orientation.

    Rows then run from anterior to posterior (LPS +y), columns from the patient's right to left
    (+x), slices from the feet to the head (+z): of the eight ways to name the axes of a plane
    the one nearest to these. It is right-handed by construction.

    Raises
    ------
    SeriesRejectedError
        ``GEOM-ORIENTATION``: the planes lean more than 45 degrees from axial.
    """
    row, column = volume.row_direction, volume.column_direction
    hu, padding, spacing = volume.hu, volume.padding, volume.pixel_spacing_mm
    positions = volume.positions_mm.copy()
    if abs(column[0]) + abs(row[1]) > abs(row[0]) + abs(column[1]):
        row, column = column, row
        hu, padding = hu.transpose(0, 2, 1), padding.transpose(0, 2, 1)
        spacing = (spacing[1], spacing[0])
    if row[0] < 0.0:
        positions = positions + row * spacing[1] * (hu.shape[2] - 1)
        row, hu, padding = -row, hu[:, :, ::-1], padding[:, :, ::-1]
    if column[1] < 0.0:
        positions = positions + column * spacing[0] * (hu.shape[1] - 1)
        column, hu, padding = -column, hu[:, ::-1], padding[:, ::-1]
    normal = np.cross(row, column)
    lean_deg = float(np.degrees(np.arccos(np.clip(normal[2], -1.0, 1.0))))
    if lean_deg > AXIAL_LIMIT_DEG:
        sentence = f"the planes lean {lean_deg:.0f} degrees from axial"
        raise SeriesRejectedError(
            [
                Finding(
                    code="GEOM-ORIENTATION",
                    sentence=sentence,
                    value=round(lean_deg, 1),
                    limit=AXIAL_LIMIT_DEG,
                )
            ]
        )
    order = np.argsort(positions @ normal)
    return SourceVolume(
        hu=hu[order],
        padding=padding[order],
        positions_mm=positions[order],
        row_direction=row,
        column_direction=column,
        pixel_spacing_mm=spacing,
        thickness_mm=tuple(volume.thickness_mm[k] for k in order),
        sop_instance_uids=tuple(volume.sop_instance_uids[k] for k in order),
        frame_numbers=tuple(volume.frame_numbers[k] for k in order),
        frame_of_reference_uid=volume.frame_of_reference_uid,
    )


def _corner(head: MaskArray, recipe: Recipe) -> tuple[int, int]:
    """First row and column of the recipe's window on the wide grid, centred on the head.

    Raises
    ------
    SeriesRejectedError
        ``GEOM-SIZE``: more of the head than the rims of the ears would be cut off.
    """
    down, across = np.nonzero(head.any(axis=(0, 2)))[0], np.nonzero(head.any(axis=(0, 1)))[0]
    row = int(down[0] + down[-1] + 1 - recipe.grid.rows) // 2
    column = int(across[0] + across[-1] + 1 - recipe.grid.columns) // 2
    inside = head[
        :,
        max(row, 0) : max(row + recipe.grid.rows, 0),
        max(column, 0) : max(column + recipe.grid.columns, 0),
    ]
    cut = 1.0 - float(inside.sum()) / float(head.sum())
    if cut > CUT_LIMIT:
        height, width = (len_mm * recipe.grid.pixel_mm for len_mm in (np.ptp(down), np.ptp(across)))
        sentence = (
            f"the head measures {height:.0f} x {width:.0f} mm in the plane, "
            f"{cut:.1%} of it would be cut off"
        )
        raise SeriesRejectedError(
            [Finding(code="GEOM-SIZE", sentence=sentence, value=round(cut, 4), limit=CUT_LIMIT)]
        )
    return row, column


def _window(
    stack: npt.NDArray[Any], corner: tuple[int, int], grid: Grid, outside: np.generic
) -> npt.NDArray[Any]:
    """Cut rows and columns out of a stack, filling what lies beyond it."""
    out = np.full((len(stack), grid.rows, grid.columns), outside, dtype=stack.dtype)
    source, place = zip(
        *(
            _overlap(first, length, extent)
            for first, length, extent in zip(
                corner, (grid.rows, grid.columns), stack.shape[1:], strict=True
            )
        ),
        strict=True,
    )
    out[(slice(None), *place)] = stack[(slice(None), *source)]
    return out


def _overlap(first: int, length: int, extent: int) -> tuple[slice, slice]:
    """Slices of the source axis and of the window where the two meet."""
    low, high = max(first, 0), min(first + length, extent)
    return slice(low, high), slice(low - first, high - first)
