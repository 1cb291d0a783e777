"""Storage commitment as SCU (PS3.4 annex J, push model): a destination promises to keep objects.

The request (N-ACTION) and its answer (N-EVENT-REPORT) belong together by the Transaction UID. The
answer may come over the association of the request, or hours later over another one, which the
receiver accepts; both are read by `report_of`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext, build_context

from rebrain_node.domain.delivery import CommitmentReport
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.network.association import associated, describe
from rebrain_node.settings import DestinationSettings

#: Storage Commitment Push Model SOP Class (PS3.4 J.3)
PUSH_MODEL: Final = UID("1.2.840.10008.1.20.1")
_PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
#: how long the association of a request stays open for its answer, s
ANSWER_WAIT_S: Final = 1.0


#: takes a report; False where the transaction is not known
Recorder = Callable[[CommitmentReport], bool]


def commitment_context() -> PresentationContext:
    """Build the context in which the receiver accepts answers, whichever role a peer proposes."""
    context = build_context(PUSH_MODEL)
    context.scu_role = context.scp_role = True
    return context


def answer_report(
    sop_class_uid: str, content: bytes, transfer_syntax_uid: str, record: Recorder
) -> int:
    """Handle the encoded data set of an N-EVENT-REPORT: its status, 0x0000 once it is durable.

    0x0110 (processing failure) where it cannot be read, is of no transaction of this node, or
    could not be recorded: the peer sends it again.
    """
    syntax = UID(transfer_syntax_uid)
    try:
        data = decode(BytesIO(content), syntax.is_implicit_VR, syntax.is_little_endian)
        known = sop_class_uid == PUSH_MODEL and record(report_of(data))
    except (AttributeError, ValueError):
        known = False
    return 0x0000 if known else 0x0110


def report_of(data: Dataset) -> CommitmentReport:
    """Read a report (PS3.4 table J.3-2).

    Raises
    ------
    AttributeError
        An attribute that identifies a transaction or an object is missing.
    """
    return CommitmentReport(
        transaction_uid=str(data.TransactionUID),
        committed=tuple(
            str(item.ReferencedSOPInstanceUID) for item in data.get("ReferencedSOPSequence") or ()
        ),
        failed={
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0x0110)
            for item in data.get("FailedSOPSequence") or ()
        },
    )


def request_commitment(
    destination: DestinationSettings,
    calling_ae_title: str,
    instances: Sequence[DerivedInstance],
    transaction_uid: str,
    record: Recorder,
) -> None:
    """Ask a destination to commit itself to some objects; the answer goes to ``record``.

    Raises
    ------
    QueryNotOfferedError
        The destination does not offer storage commitment.
    DeliveryError
        There is no association, or the request was refused.
    """
    handled, answered = threading.Event(), threading.Event()

    def handle(event: Event) -> tuple[int, None]:
        report = cast(N_EVENT_REPORT, event.request)
        content = report.EventInformation.getvalue() if report.EventInformation else b""
        status = answer_report(
            str(report.AffectedSOPClassUID), content, event.context.transfer_syntax, record
        )
        handled.set()
        return status, None

    def sent(_: Event) -> None:
        if handled.is_set():  # what is sent now is the response: only then may we release
            answered.set()

    with associated(
        destination,
        calling_ae_title,
        [build_context(PUSH_MODEL), build_context(instances[0].sop_class_uid)],
        handlers=[(evt.EVT_N_EVENT_REPORT, handle), (evt.EVT_PDU_SENT, sent)],
        linger=lambda: answered.wait(ANSWER_WAIT_S),
    ) as association:
        if PUSH_MODEL not in {c.abstract_syntax for c in association.accepted_contexts}:
            raise QueryNotOfferedError(
                f"{describe(destination)} does not offer storage commitment; allow it there, or "
                'set confirmation = "query" for this destination'
            )
        status, _ = association.send_n_action(
            _request(instances, transaction_uid), 1, PUSH_MODEL, _PUSH_MODEL_INSTANCE
        )
        code = getattr(status, "Status", None)
        if code != 0x0000:
            said = "nothing in time" if code is None else f"0x{code:04X}"
            raise DeliveryError(
                f"{describe(destination)} answered {said} to the request for storage commitment"
            )


def _request(instances: Sequence[DerivedInstance], transaction_uid: str) -> Dataset:
    """Build the request (PS3.4 table J.3-1)."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.sop_class_uid
        item.ReferencedSOPInstanceUID = instance.sop_instance_uid
        request.ReferencedSOPSequence.append(item)
    return request
