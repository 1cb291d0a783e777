"""System calls that fail cost no acknowledged instance."""

from pathlib import Path

import pytest

from tests.faults.failing_calls import CALLS, can_trace, fail_calls
from tests.faults.mutations import DOCUMENTED

pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace and the right to trace")


def check(folder: Path, calls: tuple[tuple[str, str], ...], instances: int) -> None:
    outcomes, lost = fail_calls(folder, calls, instances, seed=1)
    assert lost == []
    assert sum(each.failures for each in outcomes) > 0
    assert sum(each.acknowledged for each in outcomes) > 0
    statuses = {int(status, 16) for each in outcomes for status in each.statuses}
    assert statuses <= DOCUMENTED


def test_failing_writes_and_syncs_lose_nothing(tmp_path: Path) -> None:
    check(tmp_path, (("write", "ENOSPC"), ("fsync", "EIO")), instances=12)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_call_that_fails_loses_nothing(tmp_path: Path) -> None:
    check(tmp_path, CALLS, instances=40)
