"""A long audit log is listed at once and verified with progress."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.database import Database
from tests.support.long_log import write_long_log
from tests.support.store_cases import fast_folder


@pytest.fixture(scope="module", params=[12_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def long(request: pytest.FixtureRequest) -> Iterator[tuple[AuditCheck, AuditLog, int]]:
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        write_long_log(database, request.param)
        yield AuditCheck(database, folder, ()), AuditLog(database), request.param


@pytest.mark.parametrize(
    "options", [{}, {"before": 6000}, {"event": "step.completed"}, {"subject": "1.2.3.1"}]
)
def test_a_page_is_read_within_a_second(
    long: tuple[AuditCheck, AuditLog, int], options: dict[str, int | str]
) -> None:
    _, log, rows = long
    begun = time.perf_counter()
    events = log.events(20, **options)  # type: ignore[arg-type]
    assert time.perf_counter() - begun < 1.0
    assert len(events) == 20
    assert options or events[-1].sequence == rows


def test_the_whole_check_reports_its_progress(long: tuple[AuditCheck, AuditLog, int]) -> None:
    check, _, rows = long
    seen: list[tuple[int, int]] = []
    verdict = check.verify(lambda done, total: seen.append((done, total)))
    assert verdict.intact, verdict.differences
    assert verdict.rows == rows
    assert len(seen) == -(-rows // 5000)
    assert seen[-1] == (rows, rows)
