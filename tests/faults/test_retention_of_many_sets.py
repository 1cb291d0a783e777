"""Of many sets in every state, those are deleted that are confirmed everywhere, and no other."""

from __future__ import annotations

import pytest

from tests.faults.retention import COURSES, purge


@pytest.mark.parametrize("sets", [40, pytest.param(1000, marks=pytest.mark.full)])
def test_no_object_is_deleted_before_every_destination_has_confirmed_it(sets: int) -> None:
    result = purge(sets, seed=3)
    assert result.deleted == result.confirmed > 0
    assert (result.unreadable, result.deleted_unconfirmed) == (0, 0)
    assert set(result.kept) <= set(COURSES) - {"confirmed", "cancelled"}
    assert len(result.kept) >= 4
