"""Numbers of the geometry as DS: 16 characters, shortest form nearest to the value."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.valuerep import format_number_as_ds

from rebrain_node.domain.volume import Grid


def decimal(value: float) -> str:
    """Write a number as VR DS (PS3.5 6.2) with all the precision 16 characters hold."""
    return format_number_as_ds(float(value) + 0.0)  # + 0.0 turns -0.0 into 0.0


def decimals(values: Iterable[float]) -> list[str]:
    """Write several numbers as VR DS."""
    return [decimal(value) for value in values]


def orientation(grid: Grid) -> list[str]:
    """Write ImageOrientationPatient: direction of a row, then of a column (PS3.3 C.7.6.2.1.1)."""
    return decimals((*grid.row_direction, *grid.column_direction))
