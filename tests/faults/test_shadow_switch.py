"""Kills and switches of shadow mode: nothing is sent in it, nothing is lost by it."""

import pytest

from tests.faults.shadow_switch import switch


@pytest.mark.slow
def test_nothing_is_sent_in_shadow_mode_whatever_was_on_its_way(tmp_path):
    result = switch(tmp_path, 3, 1)
    assert result.in_other_rounds > 0
    assert result.cut_off > 0
    assert result.in_shadow_mode == 0
    assert result.arrived == result.put > 0
