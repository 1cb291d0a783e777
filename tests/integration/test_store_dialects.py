"""The store on both databases: migrations up and down, the whole life of a series, the triggers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.stop_rules import ResultMeasures, StopLimits
from rebrain_node.errors import (
    InstanceConflictError,
    OutOfResourcesError,
    SettingsError,
    StateError,
    StoreUnavailableError,
)
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_queue import AuditQueue
from rebrain_node.store.backlog import Backlog
from rebrain_node.store.database import SCHEMA_REVISION, Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.migration import configuration, downgrade, upgrade
from rebrain_node.store.outbox import Outbox, ResultOptions
from rebrain_node.store.retention import RetentionRules
from rebrain_node.store.tables import Table
from tests.support.outbox_node import OutboxNode
from tests.support.store_cases import accept, answers, derived_set, received


def raw(url: str) -> Any:
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def test_a_receiver_of_audit_messages_reads_on_where_it_was(
    database_url: str, tmp_path: Path
) -> None:
    with Database.open(database_url) as database:
        queue, ledger = AuditQueue(database), Ledger(database)
        queue.begin([])
        queue.begin(["arr"])
        ledger.record_received(received(1))
        job = accept(ledger)
        set_id = Outbox(database, tmp_path / "outbox").put(derived_set(job), ["pacs"], job)
        events = queue.read("arr", 99)
        assert [one.event for one in events][::3] == ["instance.received", "series.synthesised"]
        facts = queue.facts(events)
        assert facts.studies == {"1.2.1.1": "1.2.1"}
        assert facts.sets[set_id].study == "1.2.1"
        assert sum(facts.sets[set_id].instances.values()) == len(derived_set(job).instances)
        queue.failed("arr", "no connection")
        queue.taken("arr", events[1].sequence)
        assert queue.read("arr", 99) == events[2:]
        (state,) = queue.states()
        assert (state.rows, state.failures, state.since) == (2, 0, events[2].recorded_at)


def test_a_series_lives_its_whole_life(database_url: str, tmp_path: Path) -> None:
    with Database.open(database_url) as database:
        ledger, outbox = Ledger(database), Outbox(database, tmp_path / "outbox")
        log, deliveries = AuditLog(database), Deliveries(database)
        assert [ledger.record_received(received(n)) for n in (1, 2, 2)] == ["new", "new", "same"]
        with pytest.raises(InstanceConflictError):
            ledger.record_received(received(2, content="other"))
        ledger.decide("1.2.1.1", "keep-first", operator="mtra", reason="checked")
        job = accept(ledger)
        set_id = outbox.put(derived_set(job), ["pacs"], job)
        deliveries.failed(set_id, "pacs", "no connection")
        due = outbox.outstanding(set_id, "pacs")
        assert due == derived_set(job).instances
        deliveries.record(set_id, "pacs", answers(due))
        assert ledger.counts().by_state["published"] == 1
        assert ledger.counts().conserved
        assert [one.event for one in log.events(99)] == [
            "instance.received", "instance.received", "instance.conflict", "series.disputed",
            "dispute.decided", "study.complete",
            "series.accepted", "series.synthesised", "delivery.failed", "delivery.taken",
            "series.published",
        ]  # fmt: skip
        assert log.verify().intact
        ledger.record_received(received(3))
    with Database.open(database_url) as again:  # what was written is there after a restart
        record = Ledger(again).series_one("1.2.1.1")
        assert record is not None
        assert (record.state, record.revision) == ("receiving", 2)
        assert record.changed_at.utcoffset() is not None


def test_what_is_open_confirmed_and_purgeable_is_found(database_url: str, tmp_path: Path) -> None:
    """The questions that are asked every few seconds, and by retention, on either database."""
    with Database.open(database_url) as database:
        node = OutboxNode(database, tmp_path)
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        set_id = node.outbox.put(derived_set(job), ["pacs", "web"], job, [("pacs", "ris")])
        now = datetime.now(UTC)
        counts = Backlog(database).counts(now + timedelta(days=1), now)
        assert counts.destinations == {"pacs": (1, 0), "web": (1, 0)}
        assert (counts.late, counts.refused) == (3, 0)
        assert [each.set_id for each in node.deliveries.waiting("pacs")] == [set_id]
        for name in ("pacs", "web"):
            node.deliveries.record(set_id, name, answers(derived_set(job).instances))
            found = [
                HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
                for one in derived_set(job).instances
            ]
            node.confirmations.verify(set_id, name, found)
        assert Backlog(database).counts(now + timedelta(days=1), now).destinations == {}
        (due,) = node.notifications.pending("ris")
        assert [len(each) for each in node.notifications.content(due)] == [len("1.2.1"), 3]
        node.notifications.sent(due, 0x0000, 3)
        assert node.notifications.open() == ()
        rules = RetentionRules(delivered_days=30, refused_days=30)
        assert node.retention.purgeable(rules, now + timedelta(days=29)) == ()
        (series,) = node.retention.purgeable(rules, now + timedelta(days=31))
        assert (series.state, series.received_bytes) == ("published", 100)


def test_a_rule_stops_delivery_and_a_person_releases_it(database_url: str, tmp_path: Path) -> None:
    measures = ResultMeasures(uncertainty=0.9, uncertainty_limit=0.3)
    options = ResultOptions(measures=measures, limits=StopLimits(results=2, least_results=2))
    with Database.open(database_url) as database:
        node = OutboxNode(database, tmp_path)
        for number in (1, 2):
            series, study = f"1.2.{number}.1", f"1.2.{number}"
            node.ledger.record_received(received(1, series, study))
            job = accept(node.ledger, series, study)
            assert node.stops.active() == ()
            node.outbox.put(derived_set(job), ["pacs"], job, options=options)
        assert [one.rule for one in node.stops.active()] == ["uncertainty"]
        assert node.deliveries.waiting("pacs") == ()
    with Database.open(database_url) as database:
        node = OutboxNode(database, tmp_path)
        node.stops.release("uncertainty", "looked at", "physicist")
        assert len(node.deliveries.waiting("pacs")) == 2
        assert node.stops.readings(options.limits)[2].results == 0


def test_the_migrations_make_exactly_the_tables(database_url: str) -> None:
    with Database.open(database_url):
        engine = raw(database_url)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Table.metadata) == []
        engine.dispose()


def test_the_migrations_go_down_and_up_again(database_url: str) -> None:
    Database.open(database_url).close()
    engine = raw(database_url)
    with engine.begin() as connection:
        downgrade(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        upgrade(connection)
    engine.dispose()
    with Database.open(database_url) as database:
        AuditLog(database).record("node.started", "node", {})
        assert AuditLog(database).verify().rows == 1


def test_what_an_earlier_version_quarantined_awaits_a_decision(database_url: str) -> None:
    with Database.open(database_url) as database:
        ledger = Ledger(database)
        ledger.record_received(received(1))
        with pytest.raises(InstanceConflictError):
            ledger.record_received(received(1, content="other"))
    engine = raw(database_url)
    with engine.begin() as connection:
        downgrade(connection, "0001")
    engine.dispose()
    with Database.open(database_url) as database:
        ledger = Ledger(database)
        assert accept(ledger).revision == 1
        assert ledger.counts().by_state["held"] == 1
        with pytest.raises(StateError, match="of series unknown"):
            ledger.decide("1.2.1.1", "take-second", operator="mtra", reason="checked")
        ledger.decide("1.2.1.1", "keep-first", operator="mtra", reason="checked")
        assert ledger.counts().by_state["complete"] == 1


def test_the_newest_migration_is_the_one_the_code_knows(tmp_path: Path) -> None:
    engine = raw(f"sqlite:///{tmp_path}/node.sqlite")
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(configuration(connection))
    engine.dispose()
    assert script.get_current_head() == SCHEMA_REVISION


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    Database.open(database_url).close()
    engine = raw(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StateError, match="9999"):
        Database.open(database_url)


@pytest.mark.parametrize(
    "verb", ["UPDATE audit_event SET subject = 'x'", "DELETE FROM audit_event"]
)
def test_the_database_itself_keeps_the_audit_log_append_only(database_url: str, verb: str) -> None:
    with Database.open(database_url) as database:
        AuditLog(database).record("node.started", "node", {})
        engine = raw(database_url)
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(verb))
        engine.dispose()
        assert AuditLog(database).verify().rows == 1


def test_a_row_changed_on_postgresql_is_found(postgres_url: str) -> None:
    with Database.open(postgres_url) as database:
        for n in range(5):
            AuditLog(database).record("node.started", "node", {"n": n})
        engine = raw(postgres_url)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER ALL"))
            connection.execute(text("UPDATE audit_event SET details = '{}' WHERE sequence = 3"))
        engine.dispose()
        assert AuditLog(database).verify().broken_sequence == 3


def test_a_server_that_goes_away_takes_nothing_and_comes_back_by_itself(postgres_cluster) -> None:
    with Database.open(postgres_cluster.new_database()) as database:
        ledger = Ledger(database)
        ledger.record_received(received(1))
        postgres_cluster.stop()
        try:
            with pytest.raises(OutOfResourcesError) as caught:
                ledger.record_received(received(2))
            assert caught.value.status == 0xA700
            with pytest.raises(StoreUnavailableError):
                ledger.counts()
        finally:
            postgres_cluster.start()
        assert ledger.record_received(received(2)) == "new"
        assert ledger.counts().instances == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nonsense", "no URL"),
        ("mysql://root@host/db", "sqlite or postgresql"),
        ("sqlite://", "not durable"),
        ("sqlite:////no/such/folder/node.sqlite", "/no/such/folder"),
    ],
)
def test_a_wrong_url_is_named_with_its_remedy(wrong: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Database.open(wrong)


def test_a_password_never_stands_in_a_message() -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        Database.open("postgresql://rebrain:secret@127.0.0.1:1/node")
    assert "secret" not in str(caught.value)


def test_the_clock_of_a_database_of_another_machine_is_compared(database_url: str) -> None:
    with Database.open(database_url) as database:
        offset_s = database.clock_offset_s()
    if database_url.startswith("sqlite"):
        assert offset_s is None  # a file has no clock
    else:
        assert abs(offset_s) < 2.0
