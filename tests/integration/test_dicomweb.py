"""DICOMweb: with a real Orthanc, and with a server that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.network.dicomweb import WebDestination
from rebrain_node.settings import WebDestinationSettings
from rebrain_node.worker.workflow import LONGEST_PAUSE_S
from tests.integration.test_query import mr
from tests.support.orthanc import DICOMWEB, ORTHANC, Orthanc
from tests.support.outbox_node import outbox_node
from tests.support.store_cases import accept, derived_set, received

needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or DICOMWEB is None, reason="Debian packages orthanc and orthanc-dicomweb"
)


def web(url: str, **changes: object) -> WebDestination:
    return WebDestination(WebDestinationSettings(name="web", url=url, timeout_s=10.0, **changes))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc") / "archive"
    with Orthanc(folder, 104, plugins=[DICOMWEB]).running() as archive:
        yield archive


@pytest.fixture
def destination(archive: Orthanc) -> WebDestination:
    for study in archive.get("/studies"):
        archive.delete(f"/studies/{study}")
    return web(f"{archive.url}/dicom-web")


@needs_orthanc
def test_orthanc_holds_what_was_stored_unchanged(
    destination: WebDestination, archive: Orthanc
) -> None:
    sent = [mr(1), mr(2)]
    assert [one.outcome for one in destination.send(sent)] == ["taken", "taken"]
    found = destination.held(sent, [sent[0].sop_instance_uid])
    assert [(one.held, one.changed) for one in found] == [(True, ()), (True, None)]
    assert len(archive.get("/instances")) == 2


@needs_orthanc
def test_another_object_under_our_uid_is_found(destination: WebDestination) -> None:
    destination.send([mr(1, PatientName="Other^Name")])
    destination.send([mr(1)])
    (found,) = destination.held([mr(1)], [mr(1).sop_instance_uid])
    assert (found.held, found.changed) == (True, ("PatientName",))


@needs_orthanc
def test_a_study_that_was_corrected_there_is_a_conflict(destination: WebDestination) -> None:
    assert destination.identity_conflict(mr(2)) is None
    destination.send([mr(1)])
    assert destination.identity_conflict(mr(2)) is None
    assert "another Patient ID" in str(destination.identity_conflict(mr(2, PatientID="P2")))


class Server:
    """What a scripted server was sent."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        self.query_status: int | None = None  #: of a GET; without it as of a POST
        self.requests: list[tuple[str, str | None, bytes]] = []


@contextmanager
def a_server(status: int, answer: object) -> Iterator[tuple[Server, str]]:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    scripted = Server(status, body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            received = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    received += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            scripted.requests.append((self.path, self.headers.get("Authorization"), received))
            self.answer(scripted.status)

        def do_GET(self) -> None:
            self.answer(scripted.query_status or scripted.status)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(scripted.body)))
            self.end_headers()
            self.wfile.write(scripted.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield scripted, f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def item(uid: str, tag: str | None = None, code: int = 0) -> dict[str, object]:
    named: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    return named | ({tag: {"vr": "US", "Value": [code]}} if tag else {})


def said(taken: list[dict[str, object]], failed: list[dict[str, object]]) -> dict[str, object]:
    return {"00081199": {"vr": "SQ", "Value": taken}, "00081198": {"vr": "SQ", "Value": failed}}


FIRST, SECOND, THIRD = mr(1), mr(2), mr(3)


@pytest.mark.parametrize("status", [200, 202, 400, 409])
def test_the_answer_of_each_instance_is_read_whatever_the_status(status: int) -> None:
    answer = said(
        [item(FIRST.sop_instance_uid), item(SECOND.sop_instance_uid, "00081196", 0xB000)],
        [item(THIRD.sop_instance_uid, "00081197", 0xA900)],
    )
    with a_server(status, answer) as (_, url):
        answers = web(url).send([FIRST, SECOND, THIRD])
    assert [(one.outcome, one.status) for one in answers] == [
        ("taken", 0x0000), ("warning", 0xB000), ("refused", 0xA900),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(0x0110, "retry"), (0x0111, "duplicate"), (0xA700, "retry"), (0xC000, "refused")],
)
def test_each_failure_of_an_instance_has_the_outcome_of_its_code(code: int, outcome: str) -> None:
    failed = [item(FIRST.sop_instance_uid, "00081197", code)]
    with a_server(409, said([item(SECOND.sop_instance_uid)], failed)) as (_, url):
        answers = web(url).send([FIRST, SECOND])
    assert [(one.outcome, one.status) for one in answers] == [(outcome, code), ("taken", 0x0000)]


def test_companions_are_not_sent_after_a_partial_failure_of_the_images() -> None:
    companion = replace(mr(4), kind="PM")
    failed = [item(SECOND.sop_instance_uid, "00081197", 0x0110)]
    with a_server(409, said([item(FIRST.sop_instance_uid)], failed)) as (server, url):
        answers = web(url).send([FIRST, SECOND, companion])
    assert [one.outcome for one in answers] == ["taken", "retry"]
    assert len(server.requests) == 1


def test_after_a_partial_failure_only_what_failed_is_sent_again() -> None:
    failed = [item(SECOND.sop_instance_uid, "00081197", 0x0110)]
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        node.outbox.put(replace(derived_set(job), instances=(FIRST, SECOND)), ["web"], job)
        with a_server(409, said([item(FIRST.sop_instance_uid)], failed)) as (server, url):
            server.query_status = 404
            loop = node.loop(web(url))
            assert loop.deliver_next()
            assert node.deliveries.of()[0].states == {"pending": 1, "taken": 1}
            server.status, node.now_s = 200, LONGEST_PAUSE_S
            server.body = json.dumps(said([item(SECOND.sop_instance_uid)], [])).encode()
            assert loop.deliver_next()
        assert node.deliveries.of()[0].states == {"taken": 2}
    assert [FIRST.content in body for _, _, body in server.requests] == [True, False]


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "warning"), (202, "warning"), (409, "retry")]
)
@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}"])
def test_an_instance_that_the_answer_does_not_name_is_in_doubt(
    status: int, outcome: str, body: bytes
) -> None:
    with a_server(status, body) as (_, url):
        (answer,) = web(url).send([FIRST])
    assert answer.outcome == outcome
    assert "not named in the answer" in str(answer.reason)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_server_that_takes_no_requests_now_is_tried_again(status: int) -> None:
    with a_server(status, {}) as (_, url), pytest.raises(DeliveryError, match=f"HTTP {status}"):
        web(url).send([FIRST])


def test_the_stored_bytes_are_sent_with_the_token_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-1\n")
    with a_server(200, said([item(FIRST.sop_instance_uid)], [])) as (server, url):
        destination = web(url, token_file=tmp_path / "token")
        destination.send([FIRST])
        (tmp_path / "token").write_text("secret-2\n")
        destination.send([FIRST])
    assert [request[:2] for request in server.requests] == [
        ("/dicom-web/studies", "Bearer secret-1"), ("/dicom-web/studies", "Bearer secret-2"),
    ]  # fmt: skip
    assert FIRST.content in server.requests[0][2]


def test_a_server_without_a_query_service_is_said_to_offer_none() -> None:
    with a_server(404, {}) as (_, url), pytest.raises(QueryNotOfferedError):
        web(url).identity_conflict(FIRST)
    with a_server(500, {}) as (_, url), pytest.raises(DeliveryError):
        web(url).identity_conflict(FIRST)


def test_a_server_that_is_down_is_not_reached() -> None:
    with a_server(200, {}) as (_, url):
        pass
    with pytest.raises(DeliveryError, match="cannot be reached"):
        web(url).send([FIRST])


def test_patient_data_never_travel_over_plain_http_to_another_machine() -> None:
    with pytest.raises(ValidationError, match="https"):
        WebDestinationSettings(name="web", url="http://pacs.example/dicom-web")
