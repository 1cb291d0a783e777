"""A power cut loses nothing that was acknowledged."""

from pathlib import Path

import pytest

from tests.faults.power_cuts import WITHOUT_SYNC, can_cut, cut_under_traffic

pytestmark = pytest.mark.skipif(not can_cut(), reason="needs root, loop devices and mkfs.ext4")


def test_two_power_cuts_lose_nothing(tmp_path: Path) -> None:
    acknowledged, lost = cut_under_traffic(tmp_path / "disk", 2, seed=1)
    assert acknowledged >= 6
    assert lost == []


def test_without_fsync_a_power_cut_loses_some(tmp_path: Path) -> None:
    _, lost = cut_under_traffic(tmp_path / "disk", 1, seed=1, module=WITHOUT_SYNC)
    assert lost, "the test would notice a receiver that does not sync"


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ten_power_cuts_lose_nothing(tmp_path: Path) -> None:
    assert cut_under_traffic(tmp_path / "disk", 10, seed=2)[1] == []
