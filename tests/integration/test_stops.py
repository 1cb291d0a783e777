"""Delivery stops when a rule is beyond its limit, and goes on when a person releases the rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.stop_rules import ResultMeasures, StopLimits
from rebrain_node.errors import GateError, StateError
from rebrain_node.store.database import Database
from rebrain_node.store.outbox import ResultOptions
from rebrain_node.worker.work import Work
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import a_peer, instance
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

LIMITS = StopLimits(results=6, least_results=3, failed_share=0.4)
USUAL = ResultMeasures(
    uncertainty=0.2,
    uncertainty_limit=0.35,
    slices=30,
    ood_score=0.9,
    ood_threshold=2.2,
    brain_hu=35.0,
    expected_hu=34.0,
    deviations={"noise": 0.5, "fat": -0.7},
)


@dataclass
class Node(OutboxNode):
    """A node whose results have the measures that a test says."""

    count: int = 0

    def begin(self) -> tuple[str, str]:
        self.count += 1
        return f"1.2.{self.count}.1", f"1.2.{self.count}"

    def result(self, options: ResultOptions | None = None, **measures: object) -> int:
        series, study = self.begin()
        self.ledger.record_received(received(1, series, study))
        job = accept(self.ledger, series, study)
        made = replace(derived_set(job), instances=(instance(self.count),))
        options = options or ResultOptions(limits=LIMITS)
        options = replace(options, measures=replace(USUAL, **measures))  # type: ignore[arg-type] # fields
        due = [] if options.kept else ["pacs"]
        return self.outbox.put(made, due, job, options=options)

    def failure(self, error: Exception, series: str | None = None) -> None:
        """A series whose work fails at the last try, or at the gate, as a worker has it."""
        if series is None:
            series, study = self.begin()
            self.ledger.record_received(received(1, series, study))
        accept(self.ledger, series, series.rpartition(".")[0])

        def broken() -> object:
            raise error

        work = Work(
            ledger=self.ledger,
            outbox=self.outbox,
            ports=broken,  # type: ignore[arg-type] # it fails
            configuration=broken,  # type: ignore[arg-type] # it fails
            destinations=("pacs",),
            options=ResultOptions(limits=LIMITS),
            stops=self.stops,
        )
        assert work.synthesise(series, 1, attempt=3) == "done"

    def sent(self) -> int:
        """Sets that a delivery loop sends to a peer that takes all."""
        with a_peer() as (_, destination):
            loop = self.loop(destination)
            return sum(iter(loop.deliver_next, False))

    def rules(self) -> list[str]:
        return [one.rule for one in self.stops.active()]


@pytest.fixture
def node() -> Iterator[Node]:
    with outbox_node() as plain:
        yield Node(plain.database, plain.folder)


BEYOND = {
    "uncertainty": {"uncertainty": 0.9},
    "drift of a statistic to one side": {"deviations": {"noise": 4.1}},
    "drift of a statistic to the other side": {"deviations": {"noise": -4.1}},
    "drift of the level of brain tissue upwards": {"brain_hu": 47.0},
    "drift of the level of brain tissue downwards": {"brain_hu": 21.0},
    "drift of the OOD score": {"ood_score": 2.3},
}


@pytest.mark.parametrize("what", BEYOND)
@pytest.mark.hazard("H13")
def test_results_beyond_a_limit_stop_delivery_and_the_last_of_them_is_not_sent(
    node: Node, what: str
) -> None:
    for _ in range(2):
        node.result(**BEYOND[what])
    assert node.sent() == 2, "two results are too few to judge"
    node.result(**BEYOND[what])
    rule = what.split()[0]
    assert node.rules() == [rule]
    assert node.sent() == 0
    (stop,) = node.stops.active()
    assert f"stop.{rule}" in stop.sentence(1)
    assert f"`rebrain-node stop release {rule} --reason TEXT`" in stop.sentence(1)
    node.stops.release(rule, "looked at", "physicist")  # type: ignore[arg-type] # a rule
    assert node.sent() == 1


@pytest.mark.hazard("H13")
def test_usual_results_stop_nothing(node: Node) -> None:
    for _ in range(8):
        node.result()
    assert node.rules() == []
    assert node.sent() == 8


def test_one_unusual_head_is_no_drift(node: Node) -> None:
    for score in (0.9, 40.0, 0.9, 0.9):
        node.result(ood_score=score, brain_hu=90.0 if score > 1 else 34.0)
    assert node.rules() == []


def test_series_that_fail_or_that_the_gate_refuses_stop_delivery_at_their_share(
    node: Node,
) -> None:
    node.result()
    node.result()
    node.failure(ZeroDivisionError())
    assert node.rules() == [], "one of three is not more than 40 %"
    node.failure(GateError([Finding(code="GATE-PIXEL-RANGE", sentence="beyond the range")]))
    (stop,) = node.stops.active()
    assert "2 of the last 4 series failed" in stop.reason
    assert "at most 40 % may (stop.failed_share)" in stop.reason
    assert node.sent() == 0
    node.stops.release("failures", "the disk was full", "admin")
    assert node.sent() == 2


def test_a_series_that_is_retried_and_fails_again_counts_once(node: Node) -> None:
    node.result()
    node.result()
    node.failure(ZeroDivisionError())
    for _ in range(3):
        node.ledger.retry("1.2.3.1", operator="admin", reason="once more")
        node.failure(ZeroDivisionError(), series="1.2.3.1")
    (failures, *_) = node.stops.readings(LIMITS)
    assert failures.words.startswith("1 of the last 3 series failed")
    assert node.rules() == []


def test_a_destination_that_refuses_results_is_no_failure_of_the_work(node: Node) -> None:
    for _ in range(4):
        set_id = node.result()
        due = node.outbox.outstanding(set_id, "pacs")
        node.deliveries.record(set_id, "pacs", answers(due, "refused", 0xA900))
    assert [one.state for one in node.ledger.series()] == ["failed"] * 4
    node.result()
    assert node.rules() == []


def test_a_rule_that_is_not_applied_stops_nothing(node: Node) -> None:
    options = ResultOptions(limits=replace(LIMITS, rules=("failures",)))
    for _ in range(4):
        node.result(options, uncertainty=0.9)
    assert node.rules() == []


def test_after_a_release_only_new_results_can_stop_delivery_again(node: Node) -> None:
    for _ in range(3):
        node.result(uncertainty=0.9)
    node.stops.release("uncertainty", "looked at", "physicist")
    node.stops.judge(LIMITS)
    for _ in range(2):
        node.result(uncertainty=0.9)
    assert node.rules() == []
    node.result(uncertainty=0.9)
    assert node.rules() == ["uncertainty"]


def test_a_stop_is_kept_over_a_restart_and_stands_in_the_log() -> None:
    with fast_folder() as folder:
        with outbox_node(folder) as plain:
            node = Node(plain.database, folder)
            for _ in range(3):
                node.result(uncertainty=0.9)
            (before,) = node.stops.active()
        with outbox_node(folder) as plain:
            again = Node(plain.database, folder)
            assert again.stops.active() == (before,)
            assert again.sent() == 0
            (row,) = again.audit.events(9, event=Event.DELIVERY_STOPPED)
            assert row.subject == "uncertainty"
            assert row.details["value"] == pytest.approx(0.9)
            assert row.details["limit"] == 0.35
            again.stops.release("uncertainty", "looked at", "physicist")
            (row,) = again.audit.events(9, event=Event.DELIVERY_RELEASED)
            assert dict(row.details) == {"reason": "looked at", "operator": "physicist"}
            assert again.sent() == 3


def test_a_person_stops_delivery_by_hand_and_results_are_still_made(node: Node) -> None:
    node.stops.stop("wrong protocol at scanner 2", "admin")
    node.result()
    assert node.sent() == 0
    with pytest.raises(StateError, match="stopped by hand already"):
        node.stops.stop("again", "admin")
    with pytest.raises(StateError, match="the rule drift has not stopped delivery"):
        node.stops.release("drift", "?", "admin")
    node.stops.release("operator", "corrected", "admin")
    assert node.sent() == 1


@pytest.mark.hazard("H14")
def test_a_rejection_note_leaves_while_delivery_is_stopped(node: Node) -> None:
    set_id = node.result()
    assert node.sent() == 1
    kept = node.result()
    node.stops.stop("the wrong bundle", "admin")
    note = replace(instance(900), kind="KOS")
    node.outbox.add_note(set_id, note, "the wrong bundle", "admin")
    assert node.sent() == 1
    assert node.deliveries.of(set_id=set_id)[0].outstanding == 0
    assert node.deliveries.of(set_id=kept)[0].outstanding == 1


def test_a_stop_that_somebody_deletes_from_the_database_is_found_by_the_audit() -> None:
    from sqlalchemy import text

    from rebrain_node.store.audit_check import AuditCheck

    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        Node(database, folder).stops.stop("the wrong bundle", "admin")
        with database.writing() as session:
            session.execute(text("DELETE FROM delivery_stop"))
        (found,) = AuditCheck(database, folder, ()).verify().differences
    assert found.subject == "delivery_stop"


def test_what_shadow_mode_keeps_is_sent_by_a_command_alone(node: Node) -> None:
    options = ResultOptions(kept=("pacs",), shadow=True, limits=LIMITS)
    first, second = node.result(options), node.result(options)
    assert node.sent() == 0
    assert node.states() == ["synthesised", "synthesised"]
    assert [one.states for one in node.deliveries.of()] == [{"kept": 1}, {"kept": 1}]
    node.deliveries.retry(first, "pacs", "accepted by the readers", "admin")
    assert node.sent() == 1
    node.deliveries.cancel(second, "pacs", "not wanted", "admin")
    assert node.states() == ["published, not confirmed", "failed"]
