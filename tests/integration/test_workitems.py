"""Workitems of a workflow manager (UPS-RS) from claim to end, against a manager with states."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rebrain_node.app.tasks import check_manager
from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import Judgement
from rebrain_node.domain.workitem import Workitem
from rebrain_node.errors import DeliveryError
from rebrain_node.network.workitems import WorkflowManager
from rebrain_node.settings import Settings, WorkflowManagerSettings
from rebrain_node.worker.breaker import OPENS_AFTER
from rebrain_node.worker.workitem import SEARCH_S, WorkitemLoop
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_manager import CODE, Manager, a_manager, a_workitem
from tests.support.store_cases import (
    accept,
    answers,
    complete_all,
    derived_set,
    fast_folder,
    received,
)

ITEM = "1.9.1"
STUDY = "1.2.1"


def settings(url: str, **changes: Any) -> WorkflowManagerSettings:
    return WorkflowManagerSettings(
        name="ris", url=url, timeout_s=2.0, workitem_code=CODE, **changes
    )


def loop(node: OutboxNode, url: str, **changes: Any) -> WorkitemLoop:
    places = {"pacs": "PACS", "web": "https://archive/dicom-web"}
    return WorkitemLoop(
        workitems=node.workitems,
        deliveries=node.deliveries,
        manager=WorkflowManager(settings(url, **changes), "REBRAIN", places),
        clock=lambda: node.now_s,
    )


def run(performing: WorkitemLoop) -> None:
    """Let the loop do what is due now."""
    while performing.perform_next():
        pass


def publish(node: OutboxNode, study: str = STUDY) -> int:
    series = f"{study}.1"
    node.ledger.record_received(received(1, series, study))
    job = accept(node.ledger, series, study)
    set_id = node.outbox.put(derived_set(job), ["pacs", "web"], job)
    for name in ("pacs", "web"):
        node.deliveries.record(set_id, name, answers(node.outbox.instances_of(set_id)))
    return set_id


def refuse(node: OutboxNode) -> None:
    node.ledger.record_received(received(1, f"{STUDY}.1", STUDY))
    complete_all(node.ledger)
    finding = Finding(code="GEOM-GAP", sentence="A slice is missing at 12 mm.")
    judgement = Judgement(
        series_instance_uid=f"{STUDY}.1", revision=1, decision="refused", findings=(finding,)
    )
    node.ledger.judge(STUDY, [judgement])


def workitem(node: OutboxNode, study: str = STUDY) -> Workitem:
    (one,) = node.workitems.of(study)
    return one


def events(node: OutboxNode, event: Event) -> list[dict[str, Any]]:
    return [dict(row.details) for row in node.audit.events(20, event=event)]


@pytest.fixture
def node() -> Iterator[OutboxNode]:
    with outbox_node() as node:
        yield node


@pytest.fixture
def served() -> Iterator[tuple[Manager, str]]:
    with a_manager() as (manager, url):
        manager.add(a_workitem(ITEM, STUDY))
        yield manager, url


@pytest.mark.parametrize("form", ["Transaction-uid", "transaction-uid", "body"])
def test_a_workitem_of_a_published_study_is_completed_with_references(node, form):
    set_id = publish(node)
    with a_manager(form) as (manager, url):
        manager.add(a_workitem(ITEM, STUDY))
        run(loop(node, url, transaction=form))
    assert manager.state(ITEM) == "COMPLETED"
    (performed,) = manager.items[ITEM].UnifiedProcedureStepPerformedProcedureSequence
    assert performed.PerformedWorkitemCodeSequence[0].CodeValue == CODE
    (output,) = performed.OutputInformationSequence
    sent = node.outbox.instances_of(set_id)
    assert (output.TypeOfInstances, output.StudyInstanceUID) == ("DICOM", STUDY)
    assert output.SeriesInstanceUID == sent[0].series_instance_uid
    assert [
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID)
        for one in output.ReferencedSOPSequence
    ] == [(one.sop_class_uid, one.sop_instance_uid) for one in sent]
    assert [one.RetrieveAETitle for one in output.DICOMRetrievalSequence] == ["PACS"]
    (place,) = output.WADORSRetrievalSequence
    assert place.RetrieveURL == (
        f"https://archive/dicom-web/studies/{STUDY}/series/{output.SeriesInstanceUID}"
    )
    assert workitem(node).state == "completed"
    assert [one["objects"] for one in events(node, Event.WORKITEM_ENDED)] == [len(sent)]


def test_a_workitem_of_a_refused_study_is_cancelled_with_the_reason_in_words(node, served):
    manager, url = served
    refuse(node)
    run(loop(node, url))
    assert manager.state(ITEM) == "CANCELED"
    (progress,) = manager.items[ITEM].ProcedureStepProgressInformationSequence
    reason = f"Series {STUDY}.1 was refused: A slice is missing at 12 mm."
    assert progress.ReasonForCancellation == reason
    assert (workitem(node).state, workitem(node).reason) == ("cancelled", reason)


def test_nothing_is_claimed_before_the_study_has_ended(node, served):
    manager, url = served
    node.ledger.record_received(received(1, f"{STUDY}.1", STUDY))
    performing = loop(node, url)
    run(performing)
    assert manager.state(ITEM) == "SCHEDULED"
    accept(node.ledger, f"{STUDY}.1", STUDY)
    node.now_s += SEARCH_S
    run(performing)
    assert manager.state(ITEM) == "SCHEDULED"
    assert node.workitems.of(STUDY) == ()


@pytest.mark.parametrize("ignores_keys", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        a_workitem(ITEM, STUDY, code_value="OTHER"),
        a_workitem(ITEM, STUDY, station="CT2"),
        a_workitem(ITEM, "1.2.77"),
        a_workitem(ITEM, STUDY, "1.2.77"),
        a_workitem("../../secret", STUDY),
    ],
)
def test_a_workitem_that_is_not_surely_for_this_node_is_left_alone(
    node, served, other, ignores_keys
):
    manager, url = served
    manager.ignores_keys = ignores_keys
    manager.items.clear()
    manager.add(other)
    publish(node)
    run(loop(node, url, station="NODE"))
    assert {method for method, _ in manager.requests} == {"GET"}
    assert other.ProcedureStepState == "SCHEDULED"


def test_the_transaction_uid_is_durable_before_the_claim_is_sent(node, served):
    manager, url = served
    publish(node)
    known: list[str] = []

    def look(_: int, method: str, path: str) -> None:
        if method == "PUT" and not known:
            known.append(workitem(node).transaction_uid)

    manager.fault = look
    run(loop(node, url))
    assert known == [manager.holders[ITEM]]


@pytest.mark.parametrize("lost", ["claim", "update", "finish"])
def test_a_node_that_stops_before_it_reads_an_answer_ends_the_workitem_later(
    lost,
):
    number = {"claim": 1, "update": 2, "finish": 3}[lost]
    written = 0

    def kill(_: int, method: str, path: str) -> int | None:
        nonlocal written
        written += method in ("PUT", "POST")
        if method != "GET" and written == number:
            return 0  # the manager has done it, and the node never reads the answer
        return None

    with fast_folder() as folder, a_manager() as (manager, url):
        manager.add(a_workitem(ITEM, STUDY))
        first = _stop_in_the_middle(folder, manager, url, kill)
        manager.fault = lambda *_: None
        with outbox_node(folder) as node:
            run(loop(node, url))
            assert manager.state(ITEM) == "COMPLETED"
            assert workitem(node).state == "completed"
            assert workitem(node).transaction_uid == first == manager.holders[ITEM]
            assert len(events(node, Event.WORKITEM_CHOSEN)) == 1
            assert len(events(node, Event.WORKITEM_CLAIMED)) == 1


_NODE = """
import sys
from pathlib import Path
from tests.integration.test_workitems import loop, outbox_node, publish, run
with outbox_node(Path(sys.argv[1])) as node:
    publish(node)
    run(loop(node, sys.argv[2]))
"""


def test_a_node_killed_between_claim_and_end_ends_it_with_the_same_transaction_uid():
    with fast_folder() as folder, a_manager() as (manager, url):
        manager.add(a_workitem(ITEM, STUDY))
        begun = threading.Event()

        def kill(_: int, method: str, __: str) -> int | None:
            if method != "POST":
                return None
            begun.wait(10)
            child.kill()
            child.wait()
            return 503

        manager.fault = kill
        child = subprocess.Popen([sys.executable, "-c", _NODE, str(folder), url])
        begun.set()
        assert child.wait(60) == -signal.SIGKILL
        assert manager.state(ITEM) == "IN PROGRESS"
        holder = manager.holders[ITEM]
        manager.fault = lambda *_: None
        with outbox_node(folder) as node:
            assert workitem(node).transaction_uid == holder
            run(loop(node, url))
            assert (workitem(node).state, manager.state(ITEM)) == ("completed", "COMPLETED")
        assert manager.holders[ITEM] == holder


def _stop_in_the_middle(folder: Path, manager: Manager, url: str, fault: Any) -> str:
    with outbox_node(folder) as node:
        publish(node)
        manager.fault = fault
        performing = loop(node, url)
        performing.perform_next()
        performing.perform_next()
        return workitem(node).transaction_uid


@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_workitem_that_another_performer_claimed_first_is_left_to_it(node, served, moment):
    manager, url = served
    publish(node)

    def claim(_: int, method: str, path: str) -> None:
        if method == "PUT" if moment == "between" else path == f"/workitems/{ITEM}":
            manager.items[ITEM].ProcedureStepState = "IN PROGRESS"
            manager.holders[ITEM] = "2.25.1"

    manager.fault = claim
    run(loop(node, url))
    assert (workitem(node).state, manager.state(ITEM)) == ("lost", "IN PROGRESS")
    assert "another system performs it" in str(workitem(node).reason)
    assert manager.holders[ITEM] == "2.25.1"
    assert not any(method == "POST" for method, _ in manager.requests)
    assert len(events(node, Event.WORKITEM_LOST)) == 1


def test_after_a_lost_answer_the_transaction_uid_tells_whose_workitem_it_is(served):
    manager, url = served
    with fast_folder() as folder:
        _stop_in_the_middle(
            folder, manager, url, lambda _, method, __: 503 if method == "PUT" else None
        )
        manager.items[ITEM].ProcedureStepState = "IN PROGRESS"
        manager.holders[ITEM] = "2.25.1"
        manager.fault = lambda *_: None
        with outbox_node(folder) as node:
            run(loop(node, url))
            assert (workitem(node).state, manager.state(ITEM)) == ("lost", "IN PROGRESS")


@pytest.mark.parametrize(("method", "status"), [("GET", 401), ("PUT", 503), ("POST", 429)])
def test_what_is_not_taken_this_time_is_sent_again_and_holds_up_no_other(
    node, served, method, status
):
    manager, url = served
    manager.add(a_workitem("1.9.2", "1.2.2"))
    publish(node)
    publish(node, "1.2.2")
    manager.fault = lambda _, used, path: (
        status if (used, path.split("?")[0][:16]) == (method, f"/workitems/{ITEM}") else None
    )
    performing = loop(node, url)
    run(performing)
    assert workitem(node).state == "open"
    assert (workitem(node).status, workitem(node).attempts) == (status, 1)
    assert workitem(node, "1.2.2").state == "completed"
    manager.fault = lambda *_: None
    node.now_s += SEARCH_S
    run(performing)
    assert workitem(node).state == "completed"


@pytest.mark.parametrize("status", [404, 410])
def test_a_workitem_that_is_gone_is_lost(node, served, status):
    manager, url = served
    publish(node)
    manager.fault = lambda _, __, path: status if path == f"/workitems/{ITEM}" else None
    run(loop(node, url))
    assert (workitem(node).state, workitem(node).status) == ("lost", status)


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELED"])
def test_a_workitem_that_somebody_ended_is_lost(node, served, state):
    manager, url = served
    publish(node)
    performing = loop(node, url)
    performing.perform_next()  # the search
    manager.items[ITEM].ProcedureStepState = state
    run(performing)
    assert workitem(node).state == "lost"


@pytest.mark.parametrize(
    ("known", "used"), [("body", "Transaction-uid"), ("transaction-uid", "Transaction-uid")]
)
def test_another_form_of_the_transaction_is_refused_and_works_after_a_change(known, used):
    with fast_folder() as folder, a_manager(known) as (manager, url):
        manager.add(a_workitem(ITEM, STUDY))
        with outbox_node(folder) as node:
            publish(node)
            performing = loop(node, url, transaction=used)
            run(performing)
            assert workitem(node).state == "refused"
            assert "check that workflow_managers.transaction" in str(workitem(node).reason)
            node.now_s += 86400
            run(performing)
            assert workitem(node).state == "refused"
        with outbox_node(folder) as node:
            run(loop(node, url, transaction=known))
            assert workitem(node).state == "completed"


def test_a_bad_request_is_refused_for_good(node, served):
    manager, url = served
    publish(node)
    manager.fault = lambda _, method, __: 400 if method == "PUT" else None
    run(loop(node, url))
    assert (workitem(node).state, workitem(node).status) == ("refused", 400)
    assert len(events(node, Event.WORKITEM_REFUSED)) == 1


def test_a_manager_that_is_down_is_asked_again_after_pauses(node):
    with a_manager() as (_, url):
        pass  # the port is free now
    performing = loop(node, url)
    for _ in range(OPENS_AFTER + 2):
        assert not performing.perform_next()
        node.now_s += 300
    assert len(events(node, Event.DESTINATION_UNREACHABLE)) == 1


def test_a_manager_can_be_paused_and_gets_the_bearer_token(node, served, tmp_path):
    manager, url = served
    publish(node)
    (tmp_path / "token").write_text("secret\n")
    performing = loop(node, url, token_file=tmp_path / "token")
    node.deliveries.pause("ris", "maintenance", "someone")
    run(performing)
    assert manager.requests == []
    node.deliveries.resume("ris", "done", "someone")
    run(performing)
    assert set(manager.tokens) == {"Bearer secret"}


def test_every_page_of_a_long_worklist_is_read(node, served):
    manager, url = served
    manager.items.clear()
    manager.add(*(a_workitem(f"1.8.{n}", "1.2.77", "1.2.78") for n in range(120)))
    manager.add(a_workitem(ITEM, STUDY))
    publish(node)
    run(loop(node, url))
    assert manager.state(ITEM) == "COMPLETED"


def test_a_recalled_result_cancels_the_workitem(node, served):
    manager, url = served
    set_id = publish(node)
    note = {"set": set_id, "note": "2.25.1"}
    node.audit.record(Event.SERIES_RECALLED, f"{STUDY}.1", note)
    run(loop(node, url))
    assert manager.state(ITEM) == "CANCELED"
    assert workitem(node).reason == f"The result of Series {STUDY}.1 was recalled."


def test_doctor_says_whether_a_manager_answers_a_search(served):
    manager, url = served
    assert check_manager(Settings(), settings(url)) == 1
    manager.fault = lambda *_: 404
    with pytest.raises(DeliveryError, match="HTTP 404 to a search for workitems; check url"):
        check_manager(Settings(), settings(url))
    assert manager.state(ITEM) == "SCHEDULED"


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[1]", b'[{"00404021": {"vr": "LO", "Value": ["x"]}}]']
)
def test_an_answer_that_is_no_dicom_json_is_named(served, monkeypatch, answer):
    manager, url = served
    monkeypatch.setattr(manager, "answer", lambda *_: (200, answer))
    with pytest.raises(DeliveryError):
        check_manager(Settings(), settings(url))
