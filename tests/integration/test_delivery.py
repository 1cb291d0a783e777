"""The delivery loop between a real outbox and real peers that answer as a test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BytesIO
from unittest.mock import patch

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, ParametricMapStorage
from pynetdicom import evt
from pynetdicom.events import Event

from rebrain_node.domain.job import DerivedSet
from rebrain_node.worker.confirmation import TRIES, WAIT_S
from rebrain_node.worker.delivery import DeliveryLoop
from rebrain_node.worker.workflow import LONGEST_PAUSE_S
from tests.faults.outage import CLOCKS, WallClock
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    Peer,
    a_peer,
    commit_all,
    encoded,
    instance,
)
from tests.support.store_cases import accept, derived_set, received

BOTH = (MRImageStorage, ParametricMapStorage)


@dataclass
class Node(OutboxNode):
    """A node with sets of small objects."""

    def put(
        self, series: int, study: int = 1, *, slices: int = 2, companions: bool = False
    ) -> DerivedSet:
        """Put a set of MR slices of a series, and a parametric map, into the outbox."""
        uid, study_uid = f"1.2.{study}.{series}", f"1.2.{study}"
        self.ledger.record_received(received(1, uid, study_uid))
        job = accept(self.ledger, uid, study_uid)
        numbers = range(20 * series, 20 * series + slices)
        instances = [instance(n) for n in numbers]
        if companions:
            instances.append(instance(20 * series + slices, ParametricMapStorage, "PM"))
        derived = replace(derived_set(job), instances=tuple(instances))
        self.outbox.put(derived, ["pacs"], job)
        return derived


@pytest.fixture
def node() -> Iterator[Node]:
    with outbox_node() as node:
        yield Node(node.database, node.folder)


def drain(loop: DeliveryLoop, most: int = 20) -> int:
    """Deliver until nothing is due; the number of attempts."""
    for count in range(most):
        if not loop.deliver_next():
            return count
    raise AssertionError(f"still due after {most} attempts")


def uids(peer: Peer) -> list[str]:
    return [uid for uid, _, _ in peer.received]


def names(*sets: DerivedSet) -> list[str]:
    return [one.sop_instance_uid for each in sets for one in each.instances]


def test_every_set_is_delivered_once_and_oldest_first(node: Node) -> None:
    sets = [node.put(series) for series in (3, 1, 2)]
    with a_peer() as (peer, destination):
        assert drain(node.loop(destination)) == 3
    assert uids(peer) == names(*sets)
    assert set(node.states()) == {"published, not confirmed"}


def test_a_set_that_is_not_accepted_does_not_hold_up_other_studies(node: Node) -> None:
    first, second = node.put(1, study=1), node.put(2, study=2)
    bad = first.instances[0].sop_instance_uid
    with a_peer(by_uid={bad: 0xA700}) as (peer, destination):
        loop = node.loop(destination)
        assert drain(loop) == 2
        assert set(names(second)) <= set(uids(peer))
        (waiting,) = node.deliveries.pending()
        assert (waiting.outstanding, waiting.attempts) == (1, 1)
        assert "0xA700" in str(waiting.reason)
        peer.by_uid.clear()
        node.now_s += LONGEST_PAUSE_S
        assert drain(loop) == 1
    assert node.deliveries.pending() == ()
    assert sorted(uids(peer)) == sorted([*names(first, second), bad])


def test_a_later_set_of_the_same_study_waits_for_the_earlier_one(node: Node) -> None:
    first, second = node.put(1), node.put(2)
    bad = first.instances[1].sop_instance_uid
    with a_peer(by_uid={bad: 0x0110}) as (peer, destination):
        loop = node.loop(destination)
        assert drain(loop) == 1
        assert uids(peer) == names(first)
        peer.by_uid.clear()
        node.now_s += LONGEST_PAUSE_S
        assert drain(loop) == 2
    assert uids(peer)[2:] == [bad, *names(second)]


def test_a_refused_slice_ends_the_delivery_visibly_and_a_retry_repairs_it(node: Node) -> None:
    derived = node.put(1, companions=True)
    bad = derived.instances[0].sop_instance_uid
    with a_peer(by_uid={bad: 0xC000}, sop_classes=BOTH) as (peer, destination):
        loop = node.loop(destination)
        assert drain(loop) == 1
        (delivery,) = node.deliveries.of()
        assert delivery.states == {"refused": 1, "taken": 1, "left-out": 1}
        assert node.states() == ["failed"]
        peer.by_uid.clear()
        assert node.deliveries.retry(delivery.set_id, "pacs", "repaired", "someone") == 2
        assert drain(loop) == 1
    assert node.states() == ["published, not confirmed"]
    assert uids(peer)[2:] == [bad, derived.instances[2].sop_instance_uid]


def test_a_destination_without_parametric_map_gets_the_images(node: Node) -> None:
    derived = node.put(1, companions=True)
    with a_peer() as (peer, destination):
        drain(node.loop(destination))
    assert uids(peer) == names(derived)[:2]
    assert node.states() == ["published, not confirmed"]
    assert node.deliveries.of()[0].states == {"taken": 2, "left-out": 1}


def test_a_lost_response_ends_as_a_duplicate_at_the_next_try(node: Node) -> None:
    """The PACS stored the instance, the answer was lost: the second try is a duplicate."""
    derived = node.put(1)
    with a_peer(lambda n: None if n == 2 else 0x0000) as (_, destination):
        loop = node.loop(destination)
        assert drain(loop) == 1
    with a_peer(lambda _: 0x0111) as (_, again):
        node.now_s += LONGEST_PAUSE_S
        assert drain(node.loop(again)) == 1
    assert node.deliveries.of()[0].states == {"taken": 1, "unverified": 1}
    assert node.states() == ["published, not confirmed"]
    assert derived.instances


def test_one_attempt_follows_each_pause_while_the_destination_is_down(node: Node) -> None:
    for series in range(1, 6):
        node.put(series, study=series)
    with a_peer() as (_, destination):
        pass  # the port is free again
    loop = node.loop(destination)
    for _ in range(4):
        assert drain(loop) <= 1
        node.now_s += 0.2
    assert [one.attempts for one in node.deliveries.of()] == [1, 0, 0, 0, 0]
    node.now_s += LONGEST_PAUSE_S
    assert drain(loop) == 1
    assert sum(one.attempts for one in node.deliveries.of()) == 2


def test_a_paused_destination_gets_nothing_until_it_is_resumed(node: Node) -> None:
    node.put(1)
    node.deliveries.pause("pacs", "maintenance", "someone")
    with a_peer() as (peer, destination):
        loop = node.loop(destination)
        assert drain(loop) == 0
        node.deliveries.resume("pacs", "done", "someone")
        assert drain(loop) == 1
    assert len(peer.received) == 2


def test_after_the_deadline_a_delivery_is_given_up_with_the_setting_named(node: Node) -> None:
    node.put(1)
    with a_peer() as (peer, destination):
        assert drain(node.loop(destination, deadline_h=1e-9)) == 1
    assert peer.received == []
    (delivery,) = node.deliveries.of()
    assert delivery.states == {"refused": 2}
    assert "deadline_h" in str(delivery.reason)


def test_the_deadline_counts_the_time_that_passes_and_not_a_step_of_the_wall_clock(
    node: Node,
) -> None:
    node.put(1)
    with a_peer() as (_, destination):
        pass  # the port is free
    loop = node.loop(destination, deadline_h=2.0)
    assert loop.deliver_next()
    node.now_s += 3600
    with wall_clock_set_back(hours=-720):
        assert loop.deliver_next()
        assert node.deliveries.of()[0].states == {"pending": 2}
    node.now_s += 3601
    assert loop.deliver_next()
    assert node.deliveries.of()[0].states == {"refused": 2}


def test_an_altered_object_is_never_sent(node: Node) -> None:
    derived = node.put(1)
    (node.folder / "outbox" / derived.instances[1].sha256).write_bytes(b"altered")
    with a_peer() as (peer, destination):
        drain(node.loop(destination))
    assert peer.received == []
    assert node.states() == ["failed"]


def test_a_new_loop_starts_where_the_last_one_ended(node: Node) -> None:
    derived = node.put(1)
    with a_peer(lambda n: None if n == 2 else 0x0000) as (_, destination):
        drain(node.loop(destination))
    with a_peer() as (peer, again):
        assert drain(node.loop(again)) == 1
    assert uids(peer) == names(derived)[1:]


def test_a_study_that_was_corrected_at_the_destination_is_held_back(node: Node) -> None:
    derived = node.put(1)
    with a_peer(studies=[{"PatientID": "another"}]) as (peer, destination):
        assert drain(node.loop(destination)) == 1
        assert peer.received == []
        (delivery,) = node.deliveries.of()
        assert delivery.states == {"held": 2}
        assert "another Patient ID" in str(delivery.reason)
        peer.studies[:] = [{"PatientID": ""}]
        node.deliveries.retry(delivery.set_id, "pacs", "corrected there", "someone")
        assert drain(node.loop(destination)) == 1
    assert uids(peer) == names(derived)


def test_a_destination_is_asked_for_what_it_has_accepted(node: Node) -> None:
    derived = node.put(1)
    first, second = names(derived)
    with a_peer(images=[first]) as (peer, destination):
        loop = node.loop(destination, confirmation="query")
        assert drain(loop) == 1
        assert node.deliveries.of()[0].states == {"confirmed": 1, "pending": 1}
        peer.images.append(second)
        node.now_s += LONGEST_PAUSE_S
        assert drain(loop) == 1
    assert node.deliveries.of()[0].states == {"confirmed": 2}
    assert uids(peer) == [first, second, second]


def test_storage_commitment_confirms_a_delivery(node: Node) -> None:
    node.put(1)
    handlers = [(evt.EVT_N_ACTION, commit_all)]
    with a_peer(sop_classes=(MRImageStorage, PUSH_MODEL), handlers=handlers) as (_, destination):
        loop = node.loop(destination, confirmation="commitment")
        drain(loop)
        assert loop.confirm_next()
        assert node.deliveries.of()[0].states == {"confirmed": 2}
        node.now_s += WAIT_S
        assert not loop.confirm_next()


def test_an_object_to_which_the_destination_does_not_commit_itself_is_not_confirmed(
    node: Node,
) -> None:
    derived = node.put(1)
    transactions: list[str] = []

    def commit_first(event: Event) -> tuple[int, Dataset]:
        asked = event.action_information
        transactions.append(asked.TransactionUID)
        answer = Dataset()
        answer.TransactionUID = asked.TransactionUID
        answer.ReferencedSOPSequence = asked.ReferencedSOPSequence[:1]
        answer.FailedSOPSequence = asked.ReferencedSOPSequence[1:]
        answer.FailedSOPSequence[0].FailureReason = 0x0112
        arguments = (answer, 2, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        threading.Timer(0.05, event.assoc.send_n_event_report, arguments).start()
        return 0x0000, Dataset()

    with a_peer(
        sop_classes=(MRImageStorage, PUSH_MODEL),
        handlers=[(evt.EVT_N_ACTION, commit_first)],
        images=names(derived)[:1],
    ) as (_, destination):
        loop = node.loop(destination, confirmation="commitment")
        drain(loop)
        for _ in range(TRIES):
            assert loop.confirm_next()
            assert node.deliveries.of()[0].states == {"confirmed": 1, "unverified": 1}
            node.now_s += WAIT_S
        assert loop.confirm_next()  # asks what the destination holds
    assert len(set(transactions)) == TRIES
    assert node.deliveries.of()[0].states == {"confirmed": 1, "pending": 1}


def test_a_request_without_an_answer_is_repeated_and_then_the_destination_is_asked(
    node: Node,
) -> None:
    derived = node.put(1)
    transactions: list[str] = []

    def keep_silent(event: Event) -> tuple[int, Dataset]:
        transactions.append(event.action_information.TransactionUID)
        return 0x0000, Dataset()

    with a_peer(
        sop_classes=(MRImageStorage, PUSH_MODEL),
        handlers=[(evt.EVT_N_ACTION, keep_silent)],
        images=names(derived),
    ) as (_, destination):
        loop = node.loop(destination, confirmation="commitment")
        drain(loop)
        for _ in range(TRIES):
            assert loop.confirm_next()
            assert not loop.confirm_next()
            node.now_s += WAIT_S
        assert node.deliveries.of()[0].states == {"taken": 2}
        assert loop.confirm_next()
    assert len(set(transactions)) == len(transactions) == TRIES
    assert node.deliveries.of()[0].states == {"confirmed": 2}


def test_without_storage_commitment_the_destination_is_asked_what_it_holds(node: Node) -> None:
    derived = node.put(1)
    with a_peer(images=names(derived)) as (_, destination):
        loop = node.loop(destination, confirmation="commitment")
        drain(loop)
        assert loop.confirm_next()
    assert node.deliveries.of()[0].states == {"confirmed": 2}


def test_every_object_in_doubt_is_read_back_and_of_the_others_a_sample(node: Node) -> None:
    derived = node.put(1, slices=12)
    by_uid = dict.fromkeys(names(derived)[:6], 0xB000)
    stored = {one.sop_instance_uid: one.content for one in derived.instances}
    with a_peer(by_uid=by_uid, images=list(stored), gives=stored) as (peer, destination):
        drain(node.loop(destination, confirmation="query"))
        assert set(peer.given) >= set(by_uid)
        assert len(peer.given) < len(stored)
    assert node.states() == ["published, confirmed"]


def test_an_object_in_doubt_that_is_read_back_otherwise_is_altered(node: Node) -> None:
    derived = node.put(1)
    first, second = derived.instances
    other = dcmread(BytesIO(first.content))
    other.PatientName = "Another^Patient"
    stored = {
        first.sop_instance_uid: encoded(other, other.file_meta.TransferSyntaxUID),
        second.sop_instance_uid: second.content,
    }
    with a_peer(
        sop_classes=(MRImageStorage, PUSH_MODEL),
        handlers=[(evt.EVT_N_ACTION, commit_all)],
        images=list(stored),
        gives=stored,
    ) as (_, destination):
        loop = node.loop(destination, confirmation="commitment")
        drain(loop)
        assert loop.confirm_next()
    assert node.deliveries.of()[0].states == {"altered": 1, "confirmed": 1}


def test_a_question_that_failed_is_asked_again(node: Node) -> None:
    derived = node.put(1)
    failing = [(evt.EVT_C_FIND, fails_images)]
    with a_peer(images=names(derived), handlers=failing) as (_, destination):
        drain(node.loop(destination, confirmation="query"))
    assert node.states() == ["published, not confirmed"]
    with a_peer(images=names(derived)) as (_, destination):
        assert node.loop(destination, confirmation="query").confirm_next()
    assert node.states() == ["published, confirmed"]


def test_while_a_destination_is_paused_or_down_it_is_not_asked(node: Node) -> None:
    node.put(1)
    with a_peer(sop_classes=(MRImageStorage, PUSH_MODEL)) as (_, destination):
        loop = node.loop(destination, confirmation="commitment")
        drain(loop)
        node.deliveries.pause("pacs", "maintenance", "someone")
        assert not loop.confirm_next()
        node.deliveries.resume("pacs", "done", "someone")
    assert loop.confirm_next()  # nothing listens
    for _ in range(3):
        node.now_s += 0.1
        assert not loop.confirm_next()


def test_a_step_back_of_the_wall_clock_over_a_restart_delays_no_attempt(node: Node) -> None:
    """A durable pause that ends at a time of the wall clock would wait out the step."""
    node.put(1)
    with a_peer() as (_, destination):
        pass  # the port is free
    for _ in range(3):
        drain(node.loop(destination))
    with wall_clock_set_back(hours=1), a_peer(port=destination.port) as (peer, _):
        assert drain(node.loop(destination)) == 1
    assert len(peer.received) == 2


def fails_images(event: Event) -> Iterator[tuple[int, Dataset | None]]:
    if event.identifier.QueryRetrieveLevel == "STUDY":
        yield 0x0000, None
    else:
        yield 0xC001, None


@contextmanager
def wall_clock_set_back(hours: float) -> Iterator[None]:
    WallClock.step = timedelta(hours=-hours)
    with ExitStack() as stack:
        for name in CLOCKS:
            stack.enter_context(patch(name, WallClock))
        yield
    WallClock.step = timedelta()
