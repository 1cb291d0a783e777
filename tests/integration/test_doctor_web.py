"""`doctor` and DICOMweb: does a server answer a search, and how long is its certificate valid."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from rebrain_node.app.doctor import DoctorCheck
from rebrain_node.app.doctor_remotes import checks_of_remotes
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.settings import Settings, WebDestinationSettings

STUDY = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}


@contextmanager
def a_server(answer: list[object], status: int = 200, pem: Path | None = None) -> Iterator[str]:
    """Serve one answer to every search; its URL."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            raise AssertionError("nothing is sent by doctor")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if pem is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http{'s' if pem else ''}://127.0.0.1:{server.server_address[1]}/rs"
    finally:
        server.shutdown()
        server.server_close()


def certificate(folder: Path, days: float) -> Path:
    """Write key and certificate of 127.0.0.1 that is its own authority, valid for so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "archive")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "archive.pem"
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(text + made.public_bytes(Encoding.PEM))
    return path


def checks(url: str, authority: Path | None = None) -> dict[str, DoctorCheck]:
    web = WebDestinationSettings(name="web", url=url, certificate_authority=authority, timeout_s=5)
    return {one.what: one for one in checks_of_remotes(Settings(dicomweb_destinations=(web,)))}


def test_a_server_that_finds_nothing_is_fit():
    with a_server([]) as url:
        check = checks(url)["destination web"]
    assert check.state == "ok"
    assert check.found.endswith("STOW-RS is not tried")


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ([STUDY], 200, "it ignores Study Instance UID"),
        ([], 403, "answered HTTP 403 to a query"),
        ([], 404, "answered HTTP 404 to a query"),
    ],
)
def test_a_server_that_cannot_be_asked_is_named(answer, status, words):
    with a_server(answer, status) as url:
        check = checks(url)["destination web"]
    assert check.state == "fail"
    assert words in check.found


def test_a_server_that_is_down_is_named_with_the_remedy():
    check = checks(f"http://127.0.0.1:{free_port()}/rs")["destination web"]
    assert check.state == "fail"
    assert "check url, network and certificate" in check.found


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (10, "warn")])
def test_a_certificate_that_ends_soon_is_a_warning(tmp_path, days, state):
    pem = certificate(tmp_path, days)
    with a_server([], pem=pem) as url:
        found = checks(url, pem)
    assert found["destination web"].state == "ok"
    for what in ("certificate of web", "certificate authority of web"):
        assert found[what].state == state
        assert f"{days} days" in found[what].found


def test_a_certificate_that_has_expired_fails(tmp_path):
    pem = certificate(tmp_path, -3)
    with a_server([], pem=pem) as url:
        found = checks(url, pem)
    assert found["certificate of web"].state == "fail"
    assert "expired" in found["certificate of web"].found
    assert found["certificate authority of web"].state == "fail"
    assert "it has expired; put the new certificate into" in (
        found["certificate authority of web"].found
    )
