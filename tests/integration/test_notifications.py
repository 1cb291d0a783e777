"""Instance Availability Notification (PS3.4 annex R) to a real SCP, over the outbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from pydicom.uid import UID

from rebrain_node.app.tasks import check_receiver
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import HeldObject
from rebrain_node.errors import DeliveryError
from rebrain_node.network.notification import AvailabilityReceiver
from rebrain_node.settings import NotificationSettings, Settings
from rebrain_node.worker.breaker import OPENS_AFTER
from rebrain_node.worker.notification import NotificationLoop
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_ris import a_ris
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

RIS = "ris"


def loop(node: OutboxNode, port: int) -> NotificationLoop:
    settings = NotificationSettings(
        name=RIS, ae_title="RIS", host="127.0.0.1", port=port, timeout_s=2.0
    )
    return NotificationLoop(
        notifications=node.notifications,
        deliveries=node.deliveries,
        receiver=AvailabilityReceiver(settings, "REBRAIN"),
        retrieve_ae_titles={"pacs": "PACS"},
        clock=lambda: node.now_s,
    )


def put(node: OutboxNode, number: int = 1) -> int:
    """Put a set into the outbox of which the RIS is notified."""
    series, study = f"1.2.{number}.1", f"1.2.{number}"
    node.ledger.record_received(received(1, series, study))
    job = accept(node.ledger, series, study)
    return node.outbox.put(derived_set(job), ["pacs"], job, [("pacs", RIS)])


def deliver(node: OutboxNode, set_id: int) -> None:
    node.deliveries.record(set_id, "pacs", answers(node.outbox.instances_of(set_id)))


def confirm(node: OutboxNode, set_id: int) -> None:
    deliver(node, set_id)
    found = [
        HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
        for one in node.outbox.instances_of(set_id)
    ]
    node.confirmations.verify(set_id, "pacs", found)


def state(node: OutboxNode, set_id: int) -> tuple[str, int | None]:
    (one,) = node.notifications.of(set_id)
    return one.state, one.status


def details_of(node: OutboxNode, event: Event) -> list[dict[str, Any]]:
    return [dict(row.details) for row in node.audit.events(9, event=event)]


@pytest.fixture
def node() -> Iterator[OutboxNode]:
    with outbox_node() as node:
        yield node


def test_a_receiver_is_told_which_objects_a_destination_has_confirmed(node):
    set_id = put(node)
    confirm(node, set_id)
    with a_ris() as (ris, port):
        assert loop(node, port).notify_next()
    ((uid, told),) = ris.got
    assert {element.keyword for element in told} == {
        "ReferencedPerformedProcedureStepSequence", "StudyInstanceUID", "ReferencedSeriesSequence",
    }  # fmt: skip
    assert list(told.ReferencedPerformedProcedureStepSequence) == []
    assert told.StudyInstanceUID == "1.2.1"
    (series,) = told.ReferencedSeriesSequence
    sent = node.outbox.instances_of(set_id)
    assert series.SeriesInstanceUID == sent[0].series_instance_uid
    assert [
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID, len(one))
        for one in series.ReferencedSOPSequence
    ] == [(one.sop_class_uid, one.sop_instance_uid, 4) for one in sent]
    assert {
        (one.InstanceAvailability, one.RetrieveAETitle) for one in series.ReferencedSOPSequence
    } == {("ONLINE", "PACS")}
    assert state(node, set_id) == ("sent", 0x0000)
    assert details_of(node, Event.NOTIFICATION_SENT) == [
        {"set": set_id, "destination": "pacs", "notification": uid, "objects": 3, "status": 0}
    ]


def test_nobody_is_told_of_what_is_accepted_and_not_confirmed(node):
    set_id = put(node)
    with a_ris() as (ris, port):
        sending = loop(node, port)
        assert not sending.notify_next()
        deliver(node, set_id)
        assert not sending.notify_next()
    assert ris.got == []
    (one,) = node.notifications.of(set_id)
    assert one.text == "waits until pacs has confirmed every object of the set"


def test_a_set_that_is_sent_again_is_told_of_once_it_is_confirmed_again(node):
    set_id = put(node)
    confirm(node, set_id)
    node.deliveries.retry(set_id, "pacs", "deleted there", "someone", resend=True)
    assert state(node, set_id) == ("waiting", None)
    confirm(node, set_id)
    assert state(node, set_id) == ("pending", None)


def test_a_receiver_that_is_down_is_told_after_a_restart_of_the_node():
    with a_ris() as (_, port):
        pass  # the port is free now
    with fast_folder() as folder:
        with outbox_node(folder) as node:
            set_id = put(node)
            confirm(node, set_id)
            sending = loop(node, port)
            for _ in range(OPENS_AFTER + 2):
                assert sending.notify_next()
                assert not sending.notify_next()  # a pause
                node.now_s += 300
            (due,) = node.notifications.of(set_id)
            assert due.state == "pending"
            assert due.attempts == OPENS_AFTER + 2
            assert "Connection refused" in str(due.reason)
            assert len(details_of(node, Event.NOTIFICATION_FAILED)) == OPENS_AFTER
            assert len(details_of(node, Event.DESTINATION_UNREACHABLE)) == 1
        with outbox_node(folder) as node, a_ris(port=port) as (ris, _):
            assert loop(node, port).notify_next()
            assert state(node, set_id) == ("sent", 0)
    assert [uid for uid, _ in ris.got] == [due.sop_instance_uid]


@pytest.mark.parametrize("status", [0x0107, 0x0111, 0x0116])
def test_a_notification_that_the_receiver_has_is_sent(node, status):
    set_id = put(node)
    confirm(node, set_id)
    with a_ris() as (ris, port):
        ris.status = lambda _: status
        loop(node, port).notify_next()
    assert state(node, set_id) == ("sent", status)


def test_a_lost_answer_ends_as_a_duplicate_under_the_same_uid(node):
    set_id = put(node)
    confirm(node, set_id)
    with a_ris() as (ris, port):
        ris.status = lambda n: None if n == 1 else 0x0111
        sending = loop(node, port)
        assert sending.notify_next()
        assert state(node, set_id)[0] == "pending"
        node.now_s += 300
        assert sending.notify_next()
    assert len({uid for uid, _ in ris.got}) == 1
    assert state(node, set_id) == ("sent", 0x0111)


@pytest.mark.parametrize("status", [0x0110, 0x0210, 0x0213, 0x4567])
def test_a_notification_that_is_not_taken_this_time_does_not_hold_up_the_next(node, status):
    first, second = put(node, 1), put(node, 2)
    confirm(node, first)
    confirm(node, second)
    with a_ris() as (ris, port):
        ris.status = lambda n: status if n == 1 else 0x0000
        sending = loop(node, port)
        assert sending.notify_next()
        assert sending.notify_next()
        assert [state(node, first), state(node, second)] == [("pending", status), ("sent", 0)]
        assert not sending.notify_next()  # the pause of the first
        node.now_s += 60
        assert sending.notify_next()
    assert state(node, first) == ("sent", 0)


@pytest.mark.parametrize("status", [0x0105, 0x0106, 0x0117, 0x0118, 0x0120, 0x0121, 0x0122, 0x0124])
def test_a_notification_that_is_refused_waits_for_an_operator(node, status):
    set_id = put(node)
    confirm(node, set_id)
    with a_ris() as (ris, port):
        ris.status = lambda n: status if n == 1 else 0x0000
        sending = loop(node, port)
        sending.notify_next()
        assert state(node, set_id) == ("refused", status)
        node.now_s += 86400
        assert not sending.notify_next()
        assert len(details_of(node, Event.NOTIFICATION_REFUSED)) == 1
        assert node.notifications.retry(set_id, RIS, "repaired there", "someone") == 1
        assert sending.notify_next()
    assert state(node, set_id) == ("sent", 0)


def test_a_receiver_that_takes_no_notifications_is_named_with_the_remedy(node):
    set_id = put(node)
    confirm(node, set_id)
    with a_ris(UID("1.2.840.10008.1.1")) as (_, port):
        loop(node, port).notify_next()
    (due,) = node.notifications.of(set_id)
    assert due.state == "pending"
    assert "accepts none of Instance Availability Notification" in str(due.reason)


@pytest.mark.parametrize("takes", [True, False])
def test_doctor_says_whether_a_receiver_takes_notifications(tmp_path, takes):
    with a_ris(*(() if takes else (UID("1.2.840.10008.1.1"),))) as (ris, port):
        each = NotificationSettings(name=RIS, ae_title="RIS", host="127.0.0.1", port=port)
        with nullcontext() if takes else pytest.raises(DeliveryError, match="accepts none of"):
            check_receiver(Settings(), each)
    assert ris.got == []


def test_a_receiver_can_be_paused(node):
    confirm(node, put(node))
    node.deliveries.pause(RIS, "maintenance", "someone")
    with a_ris() as (ris, port):
        assert not loop(node, port).notify_next()
        node.deliveries.resume(RIS, "done", "someone")
        assert loop(node, port).notify_next()
    assert len(ris.got) == 1


def test_nobody_is_told_of_a_set_that_was_recalled(node):
    set_id = put(node)
    confirm(node, set_id)
    node.deliveries.cancel_recalled(set_id, "recalled: wrong bundle", "someone")
    with a_ris() as (ris, port):
        assert not loop(node, port).notify_next()
    assert ris.got == []
    assert state(node, set_id) == ("cancelled", None)


def test_a_destination_that_left_the_settings_makes_it_refused_with_the_remedy(node):
    set_id = put(node)
    confirm(node, set_id)
    sending = loop(node, 1)
    sending.retrieve_ae_titles = {}
    assert sending.notify_next()
    (one,) = node.notifications.of(set_id)
    assert one.state == "refused"
    assert "destination pacs is not in the settings" in str(one.reason)
