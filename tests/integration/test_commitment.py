"""Storage commitment: with a real Orthanc, and with peers that answer late, wrongly or never."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from rebrain_node.domain.delivery import CommitmentReport
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.network.commitment import ANSWER_WAIT_S
from rebrain_node.network.sender import PacsDestination
from rebrain_node.settings import Peer
from tests.support.dicom_peers import Listening, listening
from tests.support.orthanc import ORTHANC, Orthanc
from tests.support.scripted_pacs import a_peer, instance, settings_for

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
needs_orthanc = pytest.mark.skipif(ORTHANC is None, reason="Debian package orthanc")


@dataclass
class Site:
    """An Orthanc, and a node's receiver that it knows."""

    orthanc: Orthanc
    node: Listening
    destination: PacsDestination

    def reports(self, count: int) -> list[CommitmentReport]:
        end = time.monotonic() + 20
        while len(self.node.reports.taken) < count and time.monotonic() < end:
            time.sleep(0.05)
        return self.node.reports.taken


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with (
        listening(tmp_path / "node", peers=(Peer(ae_title="ORTHANC"),)) as node,
        Orthanc(tmp_path / "orthanc", node.port).running() as orthanc,
    ):
        settings = settings_for(orthanc.dicom_port, ae_title="ORTHANC")
        yield Site(orthanc, node, PacsDestination(settings, "REBRAIN"))


@needs_orthanc
def test_orthanc_commits_itself_to_what_it_holds_over_an_association_of_its_own(
    site: Site,
) -> None:
    sent = [instance(1), instance(2)]
    site.destination.send(sent)
    site.node.reports.known.add("2.25.500")
    site.destination.request_commitment(sent, "2.25.500", lambda _: False)
    (report,) = site.reports(1)
    assert report.transaction_uid == "2.25.500"
    assert sorted(report.committed) == sorted(one.sop_instance_uid for one in sent)
    assert report.failed == {}


@needs_orthanc
def test_orthanc_names_what_it_does_not_hold(site: Site) -> None:
    sent = [instance(1), instance(2)]
    site.destination.send(sent[:1])
    site.node.reports.known.add("2.25.501")
    site.destination.request_commitment(sent, "2.25.501", lambda _: False)
    (report,) = site.reports(1)
    assert report.committed == (sent[0].sop_instance_uid,)
    assert report.failed == {sent[1].sop_instance_uid: 0x0112}


def _report(
    port: int, transaction_uid: str, *, role: bool, missing: str | None = None
) -> int | None:
    """Send an answer as a peer does, with or without the proposal of its role; the status."""
    entity = AE(ae_title="PACS")
    roles = [build_role(PUSH_MODEL, scp_role=True)] if role else []
    association = entity.associate(
        "127.0.0.1", port, [build_context(PUSH_MODEL)], ae_title="REBRAIN", ext_neg=roles
    )
    assert association.is_established
    data = Dataset()
    data.TransactionUID = transaction_uid
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, "2.25.1001"
    data.ReferencedSOPSequence = [item]
    for each in (data, item):
        if missing is not None and missing in each:
            delattr(each, missing)
    status, _ = association.send_n_event_report(data, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    association.release()
    return status.get("Status")


@pytest.mark.parametrize("role", [True, False])
@pytest.mark.parametrize(("transaction", "status"), [("2.25.500", 0x0000), ("2.25.666", 0x0110)])
def test_an_answer_of_a_known_transaction_is_acknowledged(
    tmp_path: Path, role: bool, transaction: str, status: int
) -> None:
    with listening(tmp_path) as node:
        node.reports.known.add("2.25.500")
        assert _report(node.port, transaction, role=role) == status
        (report,) = node.reports.taken
    assert (report.transaction_uid, report.committed) == (transaction, ("2.25.1001",))


@pytest.mark.parametrize("missing", ["TransactionUID", "ReferencedSOPInstanceUID"])
def test_an_answer_that_cannot_be_read_is_refused_and_not_recorded(
    tmp_path: Path, missing: str
) -> None:
    with listening(tmp_path) as node:
        node.reports.known.add("2.25.500")
        assert _report(node.port, "2.25.500", role=True, missing=missing) == 0x0110
        assert node.reports.taken == []


def test_an_answer_over_the_association_of_the_request_is_taken() -> None:
    reports: list[CommitmentReport] = []

    def answer(event: Event) -> tuple[int, Dataset]:
        data = event.action_information
        reply = Dataset()
        reply.TransactionUID = data.TransactionUID
        reply.ReferencedSOPSequence = data.ReferencedSOPSequence
        arguments = (reply, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        threading.Timer(0.1, event.assoc.send_n_event_report, arguments).start()
        return 0x0000, Dataset()

    with a_peer(
        sop_classes=(MRImageStorage, PUSH_MODEL), handlers=[(evt.EVT_N_ACTION, answer)]
    ) as (_, settings):
        PacsDestination(settings, "REBRAIN").request_commitment(
            [instance(1)], "2.25.500", lambda report: reports.append(report) or True
        )
    assert [report.transaction_uid for report in reports] == ["2.25.500"]


def test_an_answer_that_crosses_the_release_is_recorded_and_breaks_nothing() -> None:
    """No response may follow the release; the peer sends its report again, or is asked again."""
    reports: list[CommitmentReport] = []
    settled = threading.Event()

    def answer_late(event: Event) -> tuple[int, Dataset]:
        reply = event.action_information
        arguments = (reply, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        threading.Timer(0.05, event.assoc.send_n_event_report, arguments).start()
        return 0x0000, Dataset()

    def record_late(report: CommitmentReport) -> bool:
        reports.append(report)
        settled.wait(ANSWER_WAIT_S + 1.0)  # so long that the node releases meanwhile
        return True

    with a_peer(
        sop_classes=(MRImageStorage, PUSH_MODEL), handlers=[(evt.EVT_N_ACTION, answer_late)]
    ) as (_, settings):
        PacsDestination(settings, "REBRAIN").request_commitment(
            [instance(1)], "2.25.500", record_late
        )
    assert [report.transaction_uid for report in reports] == ["2.25.500"]


def test_a_refused_request_names_the_status() -> None:
    with (
        a_peer(
            sop_classes=(MRImageStorage, PUSH_MODEL),
            handlers=[(evt.EVT_N_ACTION, lambda _: (0x0213, None))],
        ) as (_, settings),
        pytest.raises(DeliveryError, match="0x0213"),
    ):
        PacsDestination(settings, "REBRAIN").request_commitment(
            [instance(1)], "2.25.500", lambda _: True
        )


def test_a_destination_without_storage_commitment_is_said_with_the_remedy() -> None:
    with (
        a_peer() as (_, settings),
        pytest.raises(QueryNotOfferedError, match='confirmation = "query"'),
    ):
        PacsDestination(settings, "REBRAIN").request_commitment(
            [instance(1)], "2.25.500", lambda _: True
        )
