"""The result of an earlier revision is rejected where it was delivered, once a later one is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from rebrain_node.domain.audit import Event
from rebrain_node.domain.job import DerivedSet
from rebrain_node.instance.rejection_note import KEY_OBJECT_SELECTION, rejection_of
from rebrain_node.settings import DestinationSettings
from rebrain_node.steps.write import ObjectOptions, write
from rebrain_node.steps.write.rejection import RejectionReason
from rebrain_node.store.audit import AuditLog
from rebrain_node.worker.delivery import DeliveryLoop
from rebrain_node.worker.revisions import RevisionRule
from tests.support import phantoms
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import Peer, a_peer
from tests.support.store_cases import accept, received
from tests.support.synthetic_volumes import provenance, synthetic_volume

BOTH = (MRImageStorage, KEY_OBJECT_SELECTION)


@dataclass
class Node(OutboxNode):
    """A node; a late instance makes each next revision."""

    written: dict[int, DerivedSet] = field(default_factory=dict)

    def put(self, revision: int) -> int:
        self.ledger.record_received(received(revision))
        job = accept(self.ledger)
        assert job.revision == revision
        return self.outbox.put(self.written[revision], ["pacs"], job)

    def rejecting_loop(
        self, destination: DestinationSettings, reason: RejectionReason | None
    ) -> DeliveryLoop:
        earlier = None
        if reason is not None:
            earlier = RevisionRule(recall=self.recall, outbox=self.outbox, reason=reason)
        return self.loop(destination, earlier=earlier)


def uids(derived: DerivedSet) -> list[str]:
    return [one.sop_instance_uid for one in derived.instances]


def notes_at(peer: Peer, *known: DerivedSet) -> list[str]:
    """SOP Instance UIDs of what the destination got beside the sets."""
    sent = {uid for derived in known for uid in uids(derived)}
    return [uid for uid, _, _ in peer.received if uid not in sent]


def drain(loop: DeliveryLoop) -> None:
    for _ in range(20):
        if not loop.deliver_next():
            return
    raise AssertionError("still due after 20 attempts")


@pytest.fixture(scope="module")
def written() -> dict[int, DerivedSet]:
    source = phantoms.head_ct(slice_distances_mm=(-18.0, -6.0, 6.0, 18.0))
    options = ObjectOptions(companions=("KOS",))
    return {
        revision: write(
            synthetic_volume(source), source, provenance(revision=revision), (), options
        )
        for revision in (1, 2, 3)
    }


@pytest.fixture
def node(written: dict[int, DerivedSet]) -> Iterator[Node]:
    with outbox_node() as node:
        yield Node(node.database, node.folder, written=written)


def stored_note(node: Node, set_id: int) -> Dataset:
    return dcmread(BytesIO(node.outbox.instances_of(set_id)[-1].content))


@pytest.mark.parametrize(("reason", "title"), [("quality", "113001"), ("safety", "113037")])
def test_the_earlier_result_is_rejected_once_the_later_one_is_published(
    node: Node, reason: RejectionReason, title: str
) -> None:
    first = node.put(1)
    with a_peer(sop_classes=BOTH) as (peer, destination):
        loop = node.rejecting_loop(destination, reason)
        drain(loop)
        assert notes_at(peer, node.written[1]) == []
        node.put(2)
        drain(loop)
        drain(node.rejecting_loop(destination, reason))
        (sent,) = notes_at(peer, node.written[1], node.written[2])
    note = rejection_of(stored_note(node, first))
    assert note is not None
    assert (note.sop_instance_uid, note.title) == (sent, title)
    assert set(note.rejected) == set(uids(node.written[1]))
    (event,) = AuditLog(node.database).events(9, event=Event.SERIES_RECALLED)
    assert (event.details["revision"], event.details["operator"]) == (1, "rebrain-node")
    assert {one.state for one in node.ledger.series()} == {"published"}


def test_each_earlier_result_is_rejected_once(node: Node) -> None:
    with a_peer(sop_classes=BOTH) as (peer, destination):
        loop = node.rejecting_loop(destination, "quality")
        for revision in (1, 2, 3):
            node.put(revision)
            drain(loop)
        assert len(notes_at(peer, *node.written.values())) == 2
    assert node.recall.replaced() == ()


def test_by_default_the_earlier_result_is_kept(node: Node) -> None:
    with a_peer(sop_classes=BOTH) as (peer, destination):
        loop = node.rejecting_loop(destination, None)
        node.put(1)
        drain(loop)
        node.put(2)
        drain(loop)
        assert notes_at(peer, node.written[1], node.written[2]) == []


def test_nothing_is_rejected_while_the_later_result_is_not_published(node: Node) -> None:
    node.put(1)
    with a_peer(sop_classes=BOTH) as (peer, destination):
        loop = node.rejecting_loop(destination, "quality")
        drain(loop)
        node.put(2)
        peer.by_uid = dict.fromkeys(uids(node.written[2]), 0xA700)
        drain(loop)
    assert node.recall.replaced() == ()


def test_a_later_result_that_was_refused_rejects_nothing(node: Node) -> None:
    node.put(1)
    with a_peer(sop_classes=BOTH) as (peer, destination):
        loop = node.rejecting_loop(destination, "quality")
        drain(loop)
        node.put(2)
        peer.by_uid = {uids(node.written[2])[0]: 0xC000}
        drain(loop)
    assert node.recall.replaced() == ()
    assert {one.state for one in node.ledger.series()} == {"failed"}


def test_what_no_destination_holds_is_not_rejected(node: Node) -> None:
    first = node.put(1)
    node.deliveries.cancel(first, "pacs", "not wanted", "someone")
    node.put(2)
    with a_peer(sop_classes=BOTH) as (peer, destination):
        drain(node.rejecting_loop(destination, "quality"))
        assert notes_at(peer, node.written[2]) == []
