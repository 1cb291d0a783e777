"""Every answer to a request for storage commitment, and what becomes of the objects.

Run: ``python -m tests.faults.commitments``. A set of three objects is accepted by a peer, which
answers the request for storage commitment over the association of the request or over one of its
own to the node's receiver; by C-FIND and C-GET
it holds all. The monotonic clock is simulated.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from unittest.mock import patch

from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from rebrain_node.domain.audit import Event as AuditEvent
from rebrain_node.network import commitment
from rebrain_node.worker.confirmation import TRIES, WAIT_S
from rebrain_node.worker.delivery import DeliveryLoop
from tests.support.dicom_peers import listening
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import PUSH_MODEL, PUSH_MODEL_INSTANCE, a_peer, instance
from tests.support.store_cases import accept, derived_set, received

CONFIRMED, NOT_CONFIRMED = "published, confirmed", "published, not confirmed"
FOREIGN: Final = UID("2.25.77")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One answer, and what must come of it."""

    answer: str
    over: tuple[str, ...]  #: `same` or `other` association of each event, in their order
    replies: tuple[int, ...]  #: statuses with which the node answers the events
    states: str  #: of the three objects after them
    series: str = NOT_CONFIRMED
    unknown: int = 0  #: rows ``commitment.unknown`` of the audit log
    requests: int = TRIES  #: in all, each with a Transaction UID of its own
    failed: int = 0  #: objects, the last ones, to which the peer does not commit itself
    refusal: int = 0x0000  #: status of the N-ACTION response


CASES: Final = (
    *(
        Case(answer="success", over=(over,), replies=(0,), states="3 confirmed", series=CONFIRMED,
             requests=1)
        for over in ("same", "other")
    ),
    *(
        Case(answer="partial", over=(over,), replies=(0,), states="2 confirmed, 1 unverified",
             failed=1)
        for over in ("same", "other")
    ),
    *(
        Case(answer="failed", over=(over,), replies=(0,), states="3 unverified", failed=3)
        for over in ("same", "other")
    ),
    *(
        Case(answer="foreign transaction", over=(over,), replies=(0x0110,), states="3 taken",
             unknown=1)
        for over in ("same", "other")
    ),
    Case(answer="never", over=(), replies=(), states="3 taken"),
    Case(answer="late, after the next request", over=("other",), replies=(0,),
         states="3 confirmed", series=CONFIRMED, requests=2),
    Case(answer="twice", over=("same", "other"), replies=(0, 0), states="3 confirmed",
         series=CONFIRMED, requests=1),
    Case(answer="twice", over=("other", "other"), replies=(0, 0), states="3 confirmed",
         series=CONFIRMED, requests=1),
    Case(answer="request refused with 0213", over=(), replies=(), states="3 taken",
         refusal=0x0213),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    replies: tuple[int, ...]
    states: str
    series: str
    unknown: int
    requests: int
    final: str  #: state of the series after all requests and the query that follows them


class Scp:
    """Answers the first request as a case says, and keeps silent about the others."""

    def __init__(self, case: Case, node_port: int) -> None:
        self.case = case
        self.node_port = node_port
        self.transactions: list[str] = []
        self.replies: list[int] = []
        self.first: Dataset | None = None
        self.threads: list[threading.Timer] = []

    def act(self, event: Event) -> tuple[int, Dataset]:
        asked = event.action_information
        self.transactions.append(asked.TransactionUID)
        if self.first is None and not self.case.refusal:
            self.first = asked
            if not self.case.answer.startswith("late"):
                self._later(lambda: self.report(event.assoc))
        return self.case.refusal, Dataset()

    def report(self, requesting: Association | None = None) -> None:
        for over in self.case.over:
            if over == "same" and requesting is not None:
                self._send(requesting)
            else:
                self._associate_and_send()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)

    def _later(self, work: Callable[[], None]) -> None:
        self.threads.append(threading.Timer(0.05, work))
        self.threads[-1].start()

    def _associate_and_send(self) -> None:
        association = AE(ae_title="PACS").associate(
            "127.0.0.1",
            self.node_port,
            [build_context(PUSH_MODEL)],
            ae_title="REBRAIN",
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
        )
        self._send(association)
        association.release()
        association.join(10)

    def _send(self, association: Association) -> None:
        assert self.first is not None
        items = list(self.first.ReferencedSOPSequence)
        border = len(items) - self.case.failed
        said = Dataset()
        foreign = self.case.answer.startswith("foreign")
        said.TransactionUID = FOREIGN if foreign else self.first.TransactionUID
        if items[:border]:
            said.ReferencedSOPSequence = items[:border]
        if self.case.failed:
            said.FailedSOPSequence = items[border:]
            for item in said.FailedSOPSequence:
                item.FailureReason = 0x0112
        kind = 2 if self.case.failed else 1
        status, _ = association.send_n_event_report(said, kind, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.replies.append(int(status.get("Status", -1)))


def outcome(case: Case) -> Outcome:
    """Deliver a set, ask for commitment, and let the peer answer."""
    objects = [instance(n) for n in range(3)]
    with (
        outbox_node() as node,
        tempfile.TemporaryDirectory() as folder,
        listening(Path(folder), take=node.confirmations.commit) as receiver,
    ):
        scp = Scp(case, receiver.port)
        with a_peer(
            sop_classes=(MRImageStorage, PUSH_MODEL),
            images=[one.sop_instance_uid for one in objects],
            gives={one.sop_instance_uid: one.content for one in objects},
            handlers=[(evt.EVT_N_ACTION, scp.act)],
        ) as (_, settings):
            node.ledger.record_received(received(1))
            job = accept(node.ledger)
            node.outbox.put(replace(derived_set(job), instances=tuple(objects)), ["pacs"], job)
            patient = settings.model_copy(update={"timeout_s": 30.0})  # on a machine under load
            loop = node.loop(patient, confirmation="commitment")
            assert loop.deliver_next()
            # on a machine under load the answer over the same association takes longer than usual
            same = case.over[:1] == ("same",)
            with patch(f"{commitment.__name__}.ANSWER_WAIT_S", 20.0 if same else 1.0):
                assert loop.confirm_next()
            if case.answer.startswith("late"):
                node.now_s += WAIT_S
                assert loop.confirm_next()
                scp.report()
            scp.join()
            (delivery,), (series,) = node.deliveries.of(), node.states()
            _ask_until_confirmed(node, loop)
        unknown = len(node.audit.events(9, event=AuditEvent.COMMITMENT_UNKNOWN))
        assert len(set(scp.transactions)) == len(scp.transactions)
        return Outcome(
            replies=tuple(scp.replies),
            states=delivery.summary,
            series=series,
            unknown=unknown,
            requests=len(scp.transactions),
            final=node.states()[0],
        )


def _ask_until_confirmed(node: OutboxNode, loop: DeliveryLoop) -> None:
    for _ in range(TRIES + 1):
        node.now_s += WAIT_S
        loop.confirm_next()


def main() -> None:
    """Print what came of each answer."""
    for case in CASES:
        found = outcome(case)
        right = (found.replies, found.states, found.series, found.unknown, found.requests) == (
            case.replies, case.states, case.series, case.unknown, case.requests,
        )  # fmt: skip
        replies = ", ".join(f"{each:04X}" for each in found.replies) or "none"
        sys.stdout.write(
            f"{case.answer} ({', then '.join(case.over) or 'no'} association): answered with "
            f"{replies}; {found.states}; {found.series}; {found.unknown} unknown; after "
            f"{found.requests} requests {found.final}; {'as wanted' if right else 'WRONG'}\n"
        )


if __name__ == "__main__":
    main()
