"""A series that arrives again with other content waits for the site, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import DisputeDecision, Judgement, SeriesRecord
from rebrain_node.errors import (
    InstanceConflictError,
    StateError,
    StoreUnavailableError,
    SupersededError,
)
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.tables import QuarantineRow
from tests.support.store_cases import accept, answers, complete_all, derived_set, received

SERIES, STUDY = "1.2.1.1", "1.2.1"
WHO = {"operator": "mtra", "reason": "the name was corrected at the scanner"}
pytestmark = pytest.mark.hazard("H2")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database.open(database_url) as database:
        yield database


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


def send_again(
    ledger: Ledger, *numbers: int, series: str = SERIES, content: str = "corrected"
) -> None:
    for number in numbers:
        with pytest.raises(InstanceConflictError, match="queue dispute") as caught:
            ledger.record_received(received(number, series=series, content=content))
        assert caught.value.status == 0x0117


def series(ledger: Ledger, uid: str = SERIES) -> SeriesRecord:
    record = ledger.series_one(uid)
    assert record is not None
    return record


def decide(ledger: Ledger, decision: DisputeDecision, uid: str = SERIES) -> SeriesRecord:
    (record,) = ledger.decide(uid, decision, **WHO)
    return record


def held(ledger: Ledger) -> None:
    """Two instances, both sent again, and the study judged."""
    for number in (1, 2):
        ledger.record_received(received(number))
    send_again(ledger, 1, 2)
    accept(ledger)
    assert series(ledger).state == "held"


def shas(ledger: Ledger) -> list[str]:
    return [one.sha256 for one in ledger.instances(series=SERIES)]


def test_a_disputed_series_is_held_instead_of_accepted(database: Database, ledger: Ledger) -> None:
    held(ledger)
    record = series(ledger)
    assert (record.findings[0].code, record.findings[0].value) == ("ID-DISPUTED", 2.0)
    assert f"queue dispute {SERIES}" in record.findings[0].sentence
    assert (ledger.counts().disputed, ledger.counts().by_state["held"]) == (1, 1)
    assert ledger.counts().conserved
    events = [one.event for one in AuditLog(database).events(99, subject=SERIES)]
    assert events == [Event.SERIES_DISPUTED, Event.SERIES_HELD]


def test_a_dispute_is_seen_before_its_study_is_complete(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    send_again(ledger, 1)
    record = series(ledger)
    assert (record.state, record.findings[0].code) == ("receiving", "ID-DISPUTED")


def test_a_series_that_is_refused_anyway_waits_for_nobody(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    ledger.record_received(received(1, series="1.2.1.2"))
    send_again(ledger, 1, series="1.2.1.2")
    accept(ledger)
    assert series(ledger).state == "accepted"
    refused = series(ledger, "1.2.1.2")
    assert refused.state == "refused"
    assert refused.findings[-1].code == "ID-DISPUTED"


def test_the_first_set_goes_on_where_the_site_keeps_it(ledger: Ledger) -> None:
    held(ledger)
    before = shas(ledger)
    record = decide(ledger, "keep-first")
    assert (record.state, record.revision, record.findings) == ("complete", 1, ())
    assert ledger.studies_to_judge() == (STUDY,)
    accept(ledger)
    assert (series(ledger).state, shas(ledger)) == ("accepted", before)
    send_again(ledger, 1)  # what was decided is not disputed again
    assert (series(ledger).state, ledger.counts().disputed) == ("accepted", 0)


def test_the_second_set_takes_the_place_of_the_first(database: Database, ledger: Ledger) -> None:
    held(ledger)
    first = shas(ledger)
    record = decide(ledger, "take-second")
    assert (record.state, record.revision) == ("complete", 2)
    second = [received(n, content="corrected").sha256 for n in (1, 2)]
    assert shas(ledger) == second
    assert ledger.counts().quarantined == 2  # the first set
    accept(ledger)
    assert series(ledger).state == "accepted"
    send_again(ledger, 1, content="as sent")  # the first set comes once more: nothing new
    assert series(ledger).state == "accepted"
    (row,) = AuditLog(database).events(9, event=Event.DISPUTE_DECIDED)
    assert row.details["decision"] == "take-second"
    assert (row.details["operator"], row.details["reason"]) == (WHO["operator"], WHO["reason"])
    assert sorted(row.details["taken"].values()) == sorted(second)
    assert not set(first) & set(second)


def test_bytes_whose_place_was_taken_are_marked_as_replaced(
    database: Database, ledger: Ledger
) -> None:
    """SQLite gives the number of a deleted row to the next one."""
    ledger.record_received(received(1))
    send_again(ledger, 1)
    decide(ledger, "take-second")
    with database.reading() as session:
        (row,) = session.scalars(select(QuarantineRow)).all()
        assert (row.sha256, row.decision) == (received(1).sha256, "replaced")


def test_a_set_of_which_a_part_was_sent_again_is_replaced_in_that_part(ledger: Ledger) -> None:
    for number in (1, 2):
        ledger.record_received(received(number))
    send_again(ledger, 2)
    decide(ledger, "take-second")
    assert shas(ledger) == [received(1).sha256, received(2, content="corrected").sha256]


def test_of_several_sets_the_newest_is_taken(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    send_again(ledger, 1)
    send_again(ledger, 1, content="corrected twice")
    decide(ledger, "take-second")
    assert shas(ledger) == [received(1, content="corrected twice").sha256]
    assert ledger.rivals(SERIES) == ()


def test_a_judgement_over_the_first_set_is_superseded_by_the_second(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    send_again(ledger, 1)
    complete_all(ledger)
    decide(ledger, "take-second")
    with pytest.raises(SupersededError, match="revision 2"):
        ledger.judge(
            STUDY, [Judgement(series_instance_uid=SERIES, revision=1, decision="accepted")]
        )


def test_nothing_is_made_of_a_series_that_the_site_refuses(ledger: Ledger) -> None:
    held(ledger)
    record = decide(ledger, "refuse")
    assert (record.state, record.findings[0].code) == ("refused", "ID-DISPUTED")
    ledger.record_received(received(3))  # a late instance does not change the decision
    accept(ledger)
    assert series(ledger).state == "refused"
    assert "the site decided" in series(ledger).findings[0].sentence


def test_the_site_may_change_its_refusal(ledger: Ledger) -> None:
    held(ledger)
    decide(ledger, "refuse")
    assert decide(ledger, "keep-first").state == "complete"
    accept(ledger)
    assert series(ledger).state == "accepted"


def test_work_that_has_begun_is_discarded_when_a_dispute_begins(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.record_received(received(1))
    job = accept(ledger)
    send_again(ledger, 1)
    assert (series(ledger).state, series(ledger).revision) == ("held", 2)
    with pytest.raises(SupersededError):
        Outbox(database, tmp_path / "outbox").put(derived_set(job), ["pacs"], job)
    decide(ledger, "keep-first")
    assert accept(ledger).revision == 2


def test_what_is_published_stays_and_shows_the_dispute(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    outbox = Outbox(database, tmp_path / "outbox")
    ledger.record_received(received(1))
    job = accept(ledger)
    set_id = outbox.put(derived_set(job), ["pacs"], job)
    due = outbox.outstanding(set_id, "pacs")
    Deliveries(database).record(set_id, "pacs", answers(due))
    send_again(ledger, 1)
    record = series(ledger)
    assert (record.state, record.revision) == ("published", 1)
    assert (record.findings[0].code, record.findings[0].severity) == ("ID-DISPUTED", "flag")
    assert ledger.counts().disputed == 1
    for decision in ("take-second", "refuse"):
        with pytest.raises(StateError, match="keep-first"):
            decide(ledger, decision)  # type: ignore[arg-type]
    assert decide(ledger, "keep-first").findings == ()
    assert (series(ledger).state, ledger.counts().disputed) == ("published", 0)


def test_a_second_set_is_not_taken_where_a_result_of_the_first_was_sent(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    outbox = Outbox(database, tmp_path / "outbox")
    ledger.record_received(received(1))
    job = accept(ledger)
    set_id = outbox.put(derived_set(job), ["pacs"], job)
    due = outbox.outstanding(set_id, "pacs")[:1]
    Deliveries(database).record(set_id, "pacs", answers(due))
    ledger.record_received(received(2))  # a late instance: the series is open again
    send_again(ledger, 1)
    with pytest.raises(StateError, match="was sent already"):
        decide(ledger, "take-second")
    assert ledger.rivals(SERIES)[0].decision is None
    assert len(Deliveries(database).pending()) == 1  # what was begun is sent as a whole


def test_a_result_that_nobody_took_is_withdrawn_when_a_dispute_begins(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    outbox = Outbox(database, tmp_path / "outbox")
    ledger.record_received(received(1))
    job = accept(ledger)
    set_id = outbox.put(derived_set(job), ["pacs"], job)
    Deliveries(database).failed(set_id, "pacs", "no connection")
    send_again(ledger, 1)
    assert (series(ledger).state, series(ledger).revision) == ("held", 2)
    assert Deliveries(database).pending() == outbox.outstanding(set_id, "pacs") == ()
    decide(ledger, "take-second")
    again = accept(ledger)
    assert again.revision == 3
    assert outbox.predecessor(SERIES, 3) is None  # nobody has what it would replace
    outbox.put(derived_set(again), ["pacs"], again)
    assert [one.revision for one in Deliveries(database).pending()] == [3]


def test_what_was_on_its_way_when_it_was_withdrawn_counts_as_sent(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    outbox = Outbox(database, tmp_path / "outbox")
    ledger.record_received(received(1))
    job = accept(ledger)
    set_id = outbox.put(derived_set(job), ["pacs"], job)
    due = outbox.outstanding(set_id, "pacs")
    send_again(ledger, 1)
    Deliveries(database).record(set_id, "pacs", answers(due))
    assert series(ledger).state == "held"
    with pytest.raises(StateError, match="was sent already"):
        decide(ledger, "take-second")
    assert outbox.predecessor(SERIES, 2) is not None


def test_what_was_withdrawn_is_not_sent_again_by_a_late_failure_or_a_retry(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    outbox, deliveries = Outbox(database, tmp_path / "outbox"), Deliveries(database)
    ledger.record_received(received(1))
    job = accept(ledger)
    set_id = outbox.put(derived_set(job), ["pacs"], job)
    due = outbox.outstanding(set_id, "pacs")
    send_again(ledger, 1)
    deliveries.record(set_id, "pacs", answers(due, "retry", 0xA700))
    with pytest.raises(StateError, match="withdrawn"):
        deliveries.retry(set_id, "pacs", "a test", "operator")
    assert deliveries.pending() == outbox.outstanding(set_id, "pacs") == ()


def test_an_instance_of_another_study_cannot_take_the_place_of_the_first(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    with pytest.raises(InstanceConflictError):
        ledger.record_received(received(2, study="1.2.99"))
    accept(ledger)
    assert series(ledger).state == "held"
    with pytest.raises(StateError, match=r"1\.2\.99"):
        decide(ledger, "take-second")
    assert decide(ledger, "keep-first").state == "complete"


def test_all_disputed_series_of_a_study_are_decided_together_or_not_at_all(
    ledger: Ledger,
) -> None:
    for uid in (SERIES, "1.2.1.2", "1.2.1.3"):
        ledger.record_received(received(1, series=uid))
    send_again(ledger, 1)
    send_again(ledger, 1, series="1.2.1.2")
    accept(ledger)
    decided = ledger.decide(STUDY, "take-second", **WHO)
    assert [one.series_instance_uid for one in decided] == [SERIES, "1.2.1.2"]
    assert {one.state for one in decided} == {"complete"}
    assert series(ledger, "1.2.1.3").state == "refused"
    with pytest.raises(StateError, match="no series of study"):
        ledger.decide(STUDY, "take-second", **WHO)


def test_only_a_dispute_is_decided_and_only_once(ledger: Ledger) -> None:
    with pytest.raises(StateError, match="no series and no study"):
        decide(ledger, "keep-first", "9.9")
    ledger.record_received(received(1))
    with pytest.raises(StateError, match="not in dispute"):
        decide(ledger, "keep-first")
    send_again(ledger, 1)
    decide(ledger, "keep-first")
    with pytest.raises(StateError, match="not in dispute"):
        decide(ledger, "keep-first")


def test_the_same_content_in_another_encoding_is_the_same_instance(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    asked: list[str] = []

    def same(sha256: str) -> bool:
        asked.append(sha256)
        return True

    assert ledger.record_received(received(1, content="as J2K"), same) == "same"
    assert asked == [received(1).sha256]
    assert (ledger.counts().quarantined, ledger.counts().disputed) == (0, 0)
    assert ledger.record_received(received(1), same) == "same"
    assert ledger.record_received(received(2), same) == "new"
    assert len(asked) == 1  # the common path compares nothing


def test_a_decision_survives_a_restart(database_url: str) -> None:
    with Database.open(database_url) as database:
        held(Ledger(database))
    with Database.open(database_url) as database:
        assert series(Ledger(database)).state == "held"
        decide(Ledger(database), "take-second")
    with Database.open(database_url) as database:
        assert shas(Ledger(database))[0] == received(1, content="corrected").sha256
        assert AuditLog(database).verify().intact


@pytest.mark.parametrize("decision", ["keep-first", "take-second", "refuse"])
def test_a_decision_that_cannot_be_recorded_changes_nothing(
    database_url: str, database: Database, ledger: Ledger, decision: DisputeDecision
) -> None:
    """A process killed before the commit leaves what a failing audit log leaves: all as it was."""
    held(ledger)
    before = series(ledger), shas(ledger), ledger.rivals(SERIES)
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event RENAME TO hidden"))
    with pytest.raises(StoreUnavailableError):
        decide(ledger, decision)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO audit_event"))
    engine.dispose()
    assert (series(ledger), shas(ledger), ledger.rivals(SERIES)) == before
    decide(ledger, decision)
