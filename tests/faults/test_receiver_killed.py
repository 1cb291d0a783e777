"""kill -9 under traffic loses nothing that was acknowledged, and leaves nothing half done."""

from pathlib import Path

import pytest

from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.faults.kills import kill_under_traffic
from tests.faults.receiving import lost, receiving


def assert_nothing_lost(folder: Path, acknowledged: list[int]) -> None:
    assert lost(folder, acknowledged) == []
    assert sorted(set(acknowledged)) == acknowledged
    with receiving(folder):
        pass
    assert not list(folder.rglob("*.writing")), "the next receiver removes what was half written"
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        held = len(Ledger(database).instances(study="1.2.3"))
    assert held - len(acknowledged) in {0, 1}, "at most the one that was not yet answered"


def test_two_kills_under_traffic_lose_nothing(tmp_path: Path) -> None:
    assert_nothing_lost(tmp_path, kill_under_traffic(tmp_path, 2, seed=1))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_fifty_kills_under_traffic_lose_nothing(tmp_path: Path) -> None:
    assert_nothing_lost(tmp_path, kill_under_traffic(tmp_path, 50, seed=2))
