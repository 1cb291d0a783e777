"""Processes of several machines in one database: tokens, takeover, duties."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from rebrain_node.app.membership import (
    TAKEN_OVER_EXIT_CODE,
    DutyLoop,
    ProcessMembership,
    joined,
)
from rebrain_node.domain.audit import Event
from rebrain_node.errors import SettingsError, StoreUnavailableError
from rebrain_node.settings import Settings, Storage
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.executors import Executors
from rebrain_node.store.fence import STANDSTILL_MS, FenceCheck
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.tables import ExecutorRow
from tests.support.quick_node import wait_for
from tests.support.store_cases import accept, derived_set, received

ROOT = Path(__file__).resolve().parents[2]


class TokenLostError(Exception):
    """Stands for the end of the process."""


def lost():
    raise TokenLostError


def taken_over(executors, token):
    (record,) = [each for each in executors.all() if each.token == token]
    assert executors.take_over(record, "other/worker-1")


def test_a_result_of_a_process_that_was_taken_over_is_refused(postgres_url, tmp_path):
    with Database.open(postgres_url) as frozen, Database.open(postgres_url) as other:
        token = Executors(frozen).join("a", "worker-1", "run", 1)
        frozen.fence = FenceCheck(token, lost)
        late_outbox, ledger = Outbox(frozen, tmp_path), Ledger(other)
        ledger.record_received(received())
        job = accept(ledger)
        taken_over(Executors(other), token)
        with pytest.raises(TokenLostError):
            late_outbox.put(derived_set(job), ["pacs"], job)
        with pytest.raises(TokenLostError):
            Ledger(frozen).record_received(received(2))
        assert Outbox(other, tmp_path).put(derived_set(job), ["pacs"], job) == 1
        log = AuditLog(other)
        assert len(log.events(9, event=Event.SERIES_SYNTHESISED)) == 1
        (event,) = log.events(9, event=Event.PROCESS_TAKEN_OVER)
        assert (event.subject, event.details["by"]) == ("a/worker-1", "other/worker-1")


def test_a_process_that_has_its_token_writes_as_ever(postgres_url, tmp_path):
    """The negative control of the test above."""
    with Database.open(postgres_url) as database:
        executors, ledger = Executors(database), Ledger(database)
        token = executors.join("a", "worker-1", "run", 1)
        database.fence = FenceCheck(token, lost)
        ledger.record_received(received())
        job = accept(ledger)
        assert Outbox(database, tmp_path).put(derived_set(job), ["pacs"], job) == 1


def test_a_sign_of_life_in_the_last_moment_prevents_the_takeover(postgres_url):
    with Database.open(postgres_url) as database:
        executors = Executors(database)
        token = executors.join("a", "worker-1", "run", 1)
        (seen,) = executors.all()
        assert executors.beat(token)
        assert not executors.take_over(seen, "other")
        assert executors.beat(token)
        taken_over(executors, token)
        assert not executors.beat(token)


def test_a_process_that_was_taken_over_is_listed_for_a_day(database_url):
    with Database.open(database_url) as database:
        executors = Executors(database)
        token = executors.join("a", "worker-1", "run", 1)
        taken_over(executors, token)
        (record,) = executors.all()
        assert record.state == "taken over"
        with database.writing() as session:
            session.get_one(ExecutorRow, token).beat_ms -= 25 * 3600 * 1000
        assert executors.all() == ()


def test_one_process_has_a_duty_until_it_leaves_or_is_taken_over(database_url):
    with Database.open(database_url) as database:
        executors = Executors(database)
        first = executors.join("a", "worker-1", "run", 1)
        second = executors.join("a", "worker-2", "run", 2)
        assert executors.take_duty("judging", first)
        assert executors.take_duty("judging", first)
        assert not executors.take_duty("judging", second)
        assert executors.take_duty("delivery", second)
        executors.leave(first)
        assert executors.take_duty("judging", second)
        (record,) = executors.all()
        assert record.duties == ("delivery", "judging")
        taken_over(executors, second)
        third = executors.join("a", "worker-3", "run", 3)
        assert executors.take_duty("judging", third)


def test_a_process_that_starts_again_replaces_itself(database_url):
    with Database.open(database_url) as database:
        executors = Executors(database)
        first = executors.join("a", "worker-1", "run", 1)
        executors.join("a", "worker-2", "run", 2)
        assert executors.take_duty("judging", first)
        second = executors.join("a", "worker-1", "run", 3)
        assert executors.take_duty("judging", second)
        assert [each.pid for each in executors.all()] == [3, 2]
        executors.join("a", "receiver", "next run", 4)  # the supervisor has started again
        assert [each.pid for each in executors.all()] == [4]


def test_a_duty_that_becomes_free_and_cannot_begin_ends_the_process(tmp_path):
    """Else it would be held by a process that does not do it."""

    def begin(_):
        raise SettingsError("a setting is wrong")

    stop = threading.Event()
    with Database.open(f"sqlite:///{tmp_path}/node.sqlite") as database:
        executors = Executors(database)
        first = executors.join("a", "worker-1", "run", 1)
        token = executors.join("a", "worker-2", "run", 2)
        assert executors.take_duty("judging", first)
        member = ProcessMembership(executors=executors, name="a/worker-2", token=token)
        duty = DutyLoop("judging", member, begin)
        duty.start(stop)
        assert duty.works
        executors.leave(first)
        wait_for(lambda: not duty.works, 20.0)
    stop.set()


def test_a_process_that_leaves_in_order_is_not_ended_by_its_last_sign_of_life(
    tmp_path, monkeypatch
):
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    with Database.open(f"sqlite:///{tmp_path}/node.sqlite") as database:
        executors = Executors(database)
        token = executors.join("a", "worker-1", "run", 1)
        member = ProcessMembership(executors=executors, name="a/worker-1", token=token)
        member.beat(0.0)
        executors.leave(token)
        member.has_left.set()
        member.beat(1.0)
        assert ended == []
        member.has_left.clear()  # it was taken over
        member.beat(2.0)
        assert ended == [TAKEN_OVER_EXIT_CODE]


def test_what_another_name_left_in_sqlite_is_removed_and_in_postgresql_stays(database_url):
    with Database.open(database_url) as database:
        executors = Executors(database)
        executors.join("former", "worker-1", "run", 1)
        executors.join("a", "worker-1", "next run", 2)
        names = [each.machine for each in executors.all()]
        assert names == (["a", "former"] if database.is_shared else ["a"])


FROZEN = """
import os, signal, sys
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
with Database.open(sys.argv[1]) as database, database.writing() as session:
    append(session, "step.completed", "frozen", {})
    session.flush()
    print("writes", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_frozen_inside_a_transaction_holds_up_the_others_for_ten_seconds(postgres_url):
    frozen = subprocess.Popen(
        [sys.executable, "-c", FROZEN, postgres_url],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert frozen.stdout.readline() == "writes\n"
        with Database.open(postgres_url) as database:
            executors = Executors(database)
            began = time.monotonic()
            AuditLog(database).record("step.completed", "other", {})
            waited = timedelta(seconds=time.monotonic() - began)
            token = executors.join("a", "worker-1", "run", 1)
            assert executors.beat(token)
        assert waited < timedelta(milliseconds=STANDSTILL_MS, seconds=5)
        frozen.send_signal(signal.SIGCONT)
        _, said = frozen.communicate(timeout=20)
        assert frozen.returncode != 0
        assert StoreUnavailableError.__name__ in said  # its own transaction is lost
        with Database.open(postgres_url) as database:
            log = AuditLog(database)
            assert [each.subject for each in log.events(9)] == ["other"]
            assert log.verify().intact
    finally:
        frozen.kill()
        frozen.wait()


def test_a_sign_of_life_waits_for_no_writer(postgres_url):
    with Database.open(postgres_url) as writer, Database.open(postgres_url) as database:
        executors = Executors(database)
        token = executors.join("a", "worker-1", "run", 1)
        with writer.writing():
            began = time.monotonic()
            assert executors.beat(token)
            assert time.monotonic() - began < 2.0


def test_two_machines_on_sqlite_are_refused_with_the_remedy(tmp_path):
    from rebrain_node.app.compose import lock_folders
    from rebrain_node.app.presence import one_node
    from rebrain_node.app.serve import serve

    with pytest.raises(ValueError, match=r"SQLite is for one: set storage\.database_url"):
        Storage(folder=tmp_path, machine_folder=tmp_path / "own")
    shared = f"sqlite:///{tmp_path}/shared/node.sqlite"
    (tmp_path / "shared").mkdir()
    settings = [
        Settings(storage=Storage(folder=tmp_path / name, database_url=shared)) for name in "ab"
    ]
    with pytest.raises(SettingsError, match=r"--role worker .*PostgreSQL"):
        serve(settings[0], None, "worker")
    assert lock_folders(settings[0])[1] == lock_folders(settings[1])[1] == tmp_path / "shared"
    with (
        one_node(tmp_path / "shared"),
        pytest.raises(SettingsError, match=r"several machines share one with PostgreSQL"),
    ):
        serve(settings[1], None)


def test_the_name_of_a_machine_that_lives_is_refused_to_another(postgres_url, tmp_path):
    from rebrain_node.app.compose import open_state

    storage = Storage(folder=tmp_path, database_url=postgres_url, machine_folder=tmp_path / "own")
    settings = Settings(machine="ct", storage=storage)
    stop = threading.Event()
    with (
        open_state(settings) as one,
        open_state(settings) as two,
        joined(settings, one, "receiver", "run", stop),
        pytest.raises(SettingsError, match=r"called 'ct', and its processes live"),
        joined(settings, two, "receiver", "other run", stop),
    ):
        pass
    stop.set()
