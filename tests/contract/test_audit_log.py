"""Every audit log (port ``AuditLog``) through the same test: the hash chain, and none at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.folder import NoAuditLog
from rebrain_node.ports import AuditLog
from rebrain_node.store import audit
from rebrain_node.store.database import Database
from tests.support.store_cases import fast_folder

DETAILS = {
    "step": "assemble",
    "seconds": 0.25,
    "revision": 1,
    "flagged": False,
    "reason": None,
    "codes": ["A", "B"],
    "parts": {"mean": 1.5},
}


@contextmanager
def _chain() -> Iterator[AuditLog]:
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        yield audit.AuditLog(database)


@contextmanager
def _none() -> Iterator[AuditLog]:
    yield NoAuditLog()


@pytest.fixture(params=[_chain, _none], ids=["chain", "none"])
def log(request: pytest.FixtureRequest) -> Iterator[AuditLog]:
    with request.param() as log:
        yield log


@pytest.mark.parametrize("event", Event)
def test_every_event_is_recorded(log: AuditLog, event: Event) -> None:
    log.record(event, "1.2.3", DETAILS)


def test_the_details_are_left_as_they_were(log: AuditLog) -> None:
    details = {**DETAILS, "codes": [*DETAILS["codes"]]}
    log.record(Event.STEP_COMPLETED, "1.2.3", details)
    assert details == DETAILS


def test_a_subject_that_a_peer_chose_is_recorded(log: AuditLog) -> None:
    for subject in ("", "Ünïcode\x00\n\x1b[31m", "x" * 64):
        log.record(Event.ASSOCIATION_REFUSED, subject, {})


def test_the_head_is_none_or_counts_every_row(log: AuditLog) -> None:
    """A report names the head as the newest row; a log without a chain has none to name."""
    heads = [log.head()]
    for row in range(3):
        log.record(Event.STEP_COMPLETED, "1.2.3", {"row": row})
        assert log.head() == log.head()
        heads.append(log.head())
    if heads[0] is None:
        assert heads == [None] * 4
        return
    assert [head[0] for head in heads] == [0, 1, 2, 3]
    assert len({head[1] for head in heads}) == 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", head[1]) for head in heads)


def test_a_log_without_a_key_signs_nothing(log: AuditLog) -> None:
    """A report then names the head alone, or nothing."""
    log.record(Event.STEP_COMPLETED, "1.2.3", {"step": "write"})
    assert log.checkpoint() is None
