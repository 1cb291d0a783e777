"""The receiver over TLS: what is stored, who is recorded, what happens when it stops or renews."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from rebrain_node.app.settings_check import settings_faults
from rebrain_node.errors import SettingsError, UnreachableError
from rebrain_node.network.certificates import PeerCertificate
from rebrain_node.network.receiver import file_header
from rebrain_node.network.sender import echo, send_files
from rebrain_node.network.tls import client_context
from rebrain_node.settings import (
    DestinationSettings,
    Peer,
    Receiver,
    ReceiverTlsSettings,
    RemoteTlsSettings,
    Settings,
)
from tests.support.certificates import CertificateAuthority, CertificatePair, fingerprint
from tests.support.dicom_peers import (
    Listening,
    associate,
    associate_request,
    connect,
    instance,
    listening,
    pause_reactor,
    send,
    settles,
)

GUIDE = Path(__file__).parents[2] / "docs/how-to/tls.md"


class Site:
    """An authority, the node's certificate and a sender's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = CertificateAuthority(folder)
        self.node = self.authority.issue("node", both=True)
        self.sender = self.authority.issue("sender", client=True)

    def tls(self, **changes: object) -> ReceiverTlsSettings:
        values = {
            "certificate": self.node.certificate,
            "key": self.node.key,
            "certificate_authority": self.authority.certificate,
        }
        return ReceiverTlsSettings(**(values | changes))

    @contextmanager
    def listening(self, *peers: Peer, **tls: object) -> Iterator[Listening]:
        chosen = peers or (Peer(ae_title="PACS"),)
        with listening(self.folder / "inbox", tls=self.tls(**tls), peers=chosen) as node:
            yield node

    def calls(self, pair: CertificatePair | None = None) -> tuple[ssl.SSLContext, str]:
        """Context of a sender, and the name that it expects."""
        own = pair or self.sender
        return client_context(self.authority.certificate, own.certificate, own.key), "localhost"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_instance_that_comes_over_tls_is_stored_as_it_came(site: Site) -> None:
    content = instance(1)
    with site.listening() as node:
        association = associate(node.receiver.tls_port, tls=site.calls())
        assert send(association, content) == (0x0000, "")
        pause_reactor(association).end()
        association.release()
        (kept,) = node.files()
        assert kept.read_bytes().endswith(content)


def test_with_tls_the_plain_port_is_open_only_where_it_is_set(site: Site) -> None:
    assert Receiver(tls=site.tls()).port is None
    assert Receiver(tls=site.tls(), port=11112).port == 11112
    assert Receiver().port == 11112


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": None}, "neither port nor tls"),
        ({"peers": [{"ae_title": "A", "certificates": ["CN=a"]}]}, "none is asked for"),
        ({"peers": [{"ae_title": "A", "certificates": ["a"]}]}, "no SHA-256 fingerprint"),
        ({"tls": {"certificate": "/c"}}, "certificate_authority is missing"),
        (
            {"tls": {"certificate": "/c", "certificate_authority": "/a", "port": 7}, "port": 7},
            "both 7",
        ),
        (
            {"tls": {"certificate": "/c", "client_certificates": "not asked",
                     "revocation_list": "/l"}},
            "revocation_list has no effect",
        ),
        ({"peers": [{"ae_title": "A", "certificates": []}]}, "delete the peer"),
    ],
)  # fmt: skip
def test_settings_of_tls_that_contradict_each_other_are_refused(
    values: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Receiver.model_validate(values)


def test_a_fingerprint_is_taken_as_openssl_prints_it(site: Site) -> None:
    command = ("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in")
    printed = subprocess.run(
        [*command, str(site.sender.certificate)], capture_output=True, text=True, check=True
    )
    peer = Peer(ae_title="PACS", certificates=(printed.stdout.strip(),))
    assert peer.certificates == (fingerprint(site.sender),)


def test_a_subject_is_taken_as_openssl_prints_it(site: Site) -> None:
    command = ("openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in")
    printed = subprocess.run(
        [*command, str(site.sender.certificate)], capture_output=True, text=True, check=True
    )
    peer = Peer(ae_title="PACS", certificates=(printed.stdout.strip(),))
    presented = x509.load_pem_x509_certificate(site.sender.certificate.read_bytes())
    shown = PeerCertificate.of(presented.public_bytes(Encoding.DER))
    assert shown.is_one_of(peer.certificates or ())


def test_every_fault_of_the_files_of_tls_is_named_with_its_place(site: Site) -> None:
    none = RemoteTlsSettings(certificate_authority=site.folder / "absent.pem")
    other = RemoteTlsSettings(certificate=site.node.certificate, key=site.sender.key)
    peers = (Peer(ae_title="PACS", certificates=("O=Hospital, CN=pacs",)),)
    destinations = tuple(
        DestinationSettings(name=name, ae_title="PACS", host=name, tls=tls)
        for name, tls in (("one", none), ("two", other))
    )
    settings = Settings(receiver=Receiver(tls=site.tls(), peers=peers), destinations=destinations)
    faults = settings_faults(settings)
    assert [each.partition(":")[0] for each in faults] == [
        "receiver.peers, PACS", "tls of one", "tls of two",
    ]  # fmt: skip
    assert "-nameopt RFC2253" in faults[0]
    assert "key values mismatch" in faults[2]


def test_an_encrypted_key_is_named_as_such(site: Site, tmp_path: Path) -> None:
    key = load_pem_private_key(site.node.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    secret = BestAvailableEncryption(b"secret")
    encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    with pytest.raises(SettingsError, match="or the key is encrypted"):
        client_context(certificate=site.node.certificate, key=encrypted)


def test_a_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="no effect without certificate"):
        RemoteTlsSettings(key=Path("/k"))


@pytest.mark.parametrize("wrong", ["key", "authority", "list", "certificate as list"])
def test_files_that_cannot_be_used_are_refused_at_the_start(site: Site, wrong: str) -> None:
    changes = {
        "key": {"key": site.sender.key},
        "authority": {"certificate_authority": site.folder / "nowhere"},
        "list": {"revocation_list": site.node.key},
        "certificate as list": {"revocation_list": site.sender.certificate},
    }[wrong]
    words = {"certificate as list": "holds a certificate beside"}.get(wrong, "give ")
    with pytest.raises(SettingsError, match=words), site.listening(**changes):
        pass


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(site: Site) -> None:
    locked = site.folder / "locked.key"
    command = ["openssl", "pkey", "-in", site.node.key, "-aes256", "-passout", "pass:x"]
    locked.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    with pytest.raises(SettingsError, match="the key not encrypted"), site.listening(key=locked):
        pass


def test_where_no_certificate_is_asked_for_a_sender_without_one_is_let_in(site: Site) -> None:
    context = client_context(site.authority.certificate)
    with site.listening(client_certificates="not asked", certificate_authority=None) as node:
        association = associate(node.receiver.tls_port, tls=(context, "localhost"))
        assert association.is_established
        association.release()


def test_a_refused_sender_is_recorded_with_the_lines_that_admit_it(site: Site) -> None:
    bound = Peer(ae_title="PACS", certificates=("CN=another",))
    with site.listening(bound) as node:
        assert associate(node.receiver.tls_port, tls=site.calls()).is_rejected
        (refused,) = node.audit.of("association.refused")
    assert refused["reason"] == "UNKNOWN-CERTIFICATE"
    assert refused["certificate_subject"] == "CN=sender"
    assert f'certificates = ["{fingerprint(site.sender)}"]' in str(refused["would_admit"])


def test_refused_handshakes_of_one_address_are_recorded_once_a_minute(site: Site) -> None:
    with site.listening() as node:
        for _ in range(5):
            with connect_tls(node) as connection:
                connection.sendall(associate_request())
                connection.recv(1)
        assert settles(lambda: bool(node.audit.of("handshake.refused")))
        (refused,) = node.audit.of("handshake.refused")
    assert (refused["reason"], refused["address"]) == ("NOT-TLS", "127.0.0.1")
    assert "set it to TLS there" in str(refused["sentence"])


def test_who_connects_and_goes_is_not_recorded(site: Site) -> None:
    with site.listening() as node:
        for _ in range(3):
            connect_tls(node).close()
        association = associate(node.receiver.tls_port, tls=site.calls())
        association.release()
        assert node.audit.of("handshake.refused") == []


def connect_tls(node: Listening) -> socket.socket:
    """A connection to the TLS port."""
    return connect(node, port=node.receiver.tls_port)


def test_a_senders_certificate_that_ends_soon_is_recorded_once_a_day(site: Site) -> None:
    ending = site.authority.issue("ending", client=True, days=5)
    with site.listening() as node:
        for _ in range(3):
            associate(node.receiver.tls_port, tls=site.calls(ending)).release()
            associate(node.receiver.tls_port, tls=site.calls()).release()
        (recorded,) = node.audit.of("certificate.expiring")
    assert recorded["days"] == 5


def test_an_association_that_is_open_when_the_receiver_stops_is_aborted(site: Site) -> None:
    with site.listening() as node:
        association = associate(node.receiver.tls_port, tls=site.calls())
        node.receiver.stop()
        assert settles(lambda: association.is_aborted)
        assert association.acceptor.primitive is not None


def test_reading_the_files_again_is_recorded_with_their_fingerprints(site: Site) -> None:
    with site.listening() as node:
        node.receiver.reload_certificates()
        read = node.audit.of("certificate.read")
    assert [each["fingerprints"] for each in read] == 2 * [[fingerprint(site.node)]]


@pytest.mark.parametrize(
    ("version", "renew", "resumed"),
    [("TLSv1_2", False, True), ("TLSv1_2", True, False), ("TLSv1_3", False, False)],
)
def test_a_session_is_resumed_in_tls_1_2_alone_while_no_file_changes_and_stays_bound(
    site: Site, version: str, renew: bool, resumed: bool
) -> None:
    context, name = site.calls()
    context.maximum_version = ssl.TLSVersion[version]
    titles = {peer: b"REBRAIN".ljust(16) + peer.encode().ljust(16) for peer in ("PACS", "OTHER")}
    bound = Peer(ae_title="PACS", certificates=(fingerprint(site.sender),))
    other = Peer(ae_title="OTHER", certificates=("CN=another",))
    with site.listening(bound, other) as node, ExitStack() as open_ones:

        def call(peer: str, session: ssl.SSLSession | None) -> tuple[ssl.SSLSocket, bytes]:
            wrapped = context.wrap_socket(connect_tls(node), server_hostname=name, session=session)
            open_ones.enter_context(wrapped)
            wrapped.sendall(associate_request(titles[peer]))
            return wrapped, wrapped.recv(1)

        first, answer = call("PACS", None)
        assert answer == b"\x02"
        if renew:
            node.receiver.reload_certificates()
        second, answer = call("PACS", first.session)
        assert (second.session_reused, answer) == (resumed, b"\x02")
        third, answer = call("OTHER", first.session)
        assert (third.session_reused, answer) == (resumed, b"\x03")


def test_a_session_that_outlives_its_certificate_is_not_resumed(site: Site) -> None:
    context, name = site.calls(site.authority.issue("ending", client=True, seconds=6))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        site.listening() as node,
        context.wrap_socket(connect_tls(node), server_hostname=name) as first,
    ):
        first.sendall(associate_request())
        assert first.recv(1) == b"\x02"
        time.sleep(6)
        wrapped = context.wrap_socket(
            connect_tls(node), server_hostname=name, session=first.session
        )
        with wrapped as second, suppress(OSError):
            second.sendall(associate_request())
            assert second.recv(1) == b""
        assert settles(lambda: bool(node.audit.of("handshake.refused")))
        (refused,) = node.audit.of("handshake.refused")
    assert (refused["reason"], "resumed" in str(refused["sentence"])) == ("EXPIRED", True)


def test_what_is_sent_over_tls_arrives_and_the_files_of_the_sender_may_change(site: Site) -> None:
    own = CertificatePair(site.folder / "own.pem", site.folder / "own.key")

    def put(pair: CertificatePair) -> None:
        own.key.write_bytes(pair.key.read_bytes())
        own.certificate.write_bytes(pair.certificate.read_bytes())

    put(site.sender)
    file = site.folder / "one.dcm"
    header = file_header(CTImageStorage, "1.2.3.4.1", ExplicitVRLittleEndian)
    file.write_bytes(header + instance(1))
    with site.listening() as node:
        destination = DestinationSettings(
            name="pacs",
            ae_title="REBRAIN",
            host="localhost",
            port=node.receiver.tls_port,
            tls=RemoteTlsSettings(
                certificate_authority=site.authority.certificate,
                certificate=own.certificate,
                key=own.key,
            ),
        )
        (sent,) = send_files(destination, "PACS", [file])
        assert sent.taken, sent.sentence
        (kept,) = node.files()
        assert kept.read_bytes() == file.read_bytes()
        own.certificate.write_text("half a certificate")
        assert echo(destination, "PACS") > 0, "the certificate before is still used"
        put(site.authority.issue("expired", client=True, days=-3))
        with pytest.raises(UnreachableError, match="it has expired; give certificate and key"):
            echo(destination, "PACS")
        put(site.authority.issue("renewed", client=True))
        assert echo(destination, "PACS") > 0


def test_a_destination_whose_files_are_missing_is_not_reached_and_says_which(site: Site) -> None:
    nowhere = RemoteTlsSettings(certificate_authority=site.folder / "nowhere.pem")
    destination = DestinationSettings(
        name="pacs", ae_title="REBRAIN", host="localhost", port=2762, tls=nowhere
    )
    with pytest.raises(UnreachableError, match=r"destination pacs .*nowhere.pem cannot be used"):
        echo(destination, "PACS")


def test_the_commands_of_the_guide_make_what_the_receiver_takes(site: Site) -> None:
    blocks = GUIDE.read_text(encoding="utf-8").split("<!-- run -->\n")[1:]
    lines = [line[4:] for block in blocks for line in block.split("\n\n")[0].splitlines()]
    quick = "ec -pkeyopt ec_paramgen_curve:P-256"
    script = "\n".join(["set -e", *lines]).replace("rsa:3072", quick)
    subprocess.run(["bash", "-c", script], cwd=site.folder, check=True, capture_output=True)
    files = {
        "certificate": site.folder / "node.pem",
        "key": site.folder / "node.key",
        "certificate_authority": site.folder / "authority.pem",
    }
    sender = CertificatePair(site.folder / "pacs.pem", site.folder / "pacs.key")
    context = client_context(files["certificate_authority"], sender.certificate, sender.key)
    bound = Peer(ae_title="PACS", certificates=("CN=pacs,O=Hospital",))
    for changes, let_in in (({}, True), ({"revocation_list": site.folder / "revoked.crl"}, False)):
        with site.listening(bound, **files, **changes) as node:
            called = associate(node.receiver.tls_port, tls=(context, "rebrain.hospital.example"))
            assert called.is_established == let_in
            if let_in:
                called.release()
