"""TLS in and out against openssl, dcmtk and Orthanc: who is let in, and what the others are told.

Run: ``python -m tests.faults.tls_matrix``. Certificates are made for the run. Into the node: a
receiver with a TLS port and a plain one; what is seen is what the node has recorded of the address
that called. Out of it: servers with every fault, and the sentence that an operator reads.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final

from rebrain_node.benchmark.dcmtk import program
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.errors import DeliveryError
from rebrain_node.network.association import certificate_end
from rebrain_node.network.sender import echo
from rebrain_node.network.tls import client_context
from rebrain_node.settings import (
    DestinationSettings,
    Peer,
    ReceiverTlsSettings,
    RemoteTlsSettings,
)
from tests.support.certificates import CertificateAuthority, CertificatePair, fingerprint
from tests.support.dicom_peers import (
    Listening,
    associate,
    associate_request,
    listening,
    settles,
)
from tests.support.orthanc import ORTHANC, Orthanc

#: time for a handshake where the case is that there is none, s; and where there is one
HASTY_S, PATIENT_S = 0.5, 30.0
#: longest wait for an answer of a program, s
_ANSWER_S = 30.0
_ACCEPTED: Final = "accepted"
Titles = bytes


class Bench:
    """Certificates, a receiver with them, and peers, made when a case needs them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.authority = CertificateAuthority(folder)
        self.other = CertificateAuthority(folder, "other")
        self._issued: dict[str, CertificatePair] = {}

    def pair(self, name: str) -> CertificatePair:
        """One of the certificates below, by its name."""
        if name not in self._issued:
            self._issued[name] = _CERTIFICATES[name](self, name)
        return self._issued[name]

    @cached_property
    def revoked(self) -> Path:
        """The revocation list."""
        return self.authority.revoke(self.pair("revoked"), self.pair("revoked-server"))

    @cached_property
    def node(self) -> Listening:
        """The receiver of most cases."""
        return self._listen("node", "node", PATIENT_S)

    @cached_property
    def hasty(self) -> Listening:
        """A receiver that gives a handshake little time."""
        return self._listen("hasty", "node", HASTY_S)

    @cached_property
    def foreign(self) -> Listening:
        """A receiver whose own certificate is of an authority that peers do not trust."""
        return self._listen("foreign", "other-server", PATIENT_S)

    @cached_property
    def foreign_to_orthanc(self) -> Listening:
        """Another one: one and the same refusal is recorded once a minute."""
        return self._listen("foreign-to-orthanc", "other-server", PATIENT_S)

    @cached_property
    def elsewhere(self) -> Listening:
        """A receiver whose certificate carries another host name than that which peers call."""
        return self._listen("elsewhere", "elsewhere", PATIENT_S)

    @cached_property
    def orthanc(self) -> Orthanc:
        """An Orthanc that speaks TLS alone, and calls the receivers over TLS."""
        own = self.pair("peer")

        def modality(node: Listening) -> Mapping[str, object]:
            where = {"Host": "127.0.0.1", "Port": node.receiver.tls_port}
            return {"AET": "REBRAIN", **where, "UseDicomTls": True}

        made = Orthanc(
            self.folder / "orthanc",
            0,
            DicomTlsEnabled=True,
            DicomTlsCertificate=str(own.certificate),
            DicomTlsPrivateKey=str(own.key),
            DicomTlsTrustedCertificates=str(self.authority.certificate),
            DicomModalities={
                "node": modality(self.node),
                "foreign": modality(self.foreign_to_orthanc),
                "elsewhere": modality(self.elsewhere),
            },
        )
        return self._stack.enter_context(made.running(kill=True))

    def _listen(self, name: str, certificate: str, seconds: float) -> Listening:
        good = self.pair("good")
        every = ("127.0.0.0/8",)
        peers = (
            Peer(ae_title="PACS", addresses=every),
            Peer(ae_title="ORTHANC", addresses=every),
            Peer(ae_title="BOUND", addresses=every, certificates=(fingerprint(good),)),
            Peer(ae_title="SUBJECT", addresses=every, certificates=("CN=good",)),
            Peer(ae_title="FILE", addresses=every, certificates=(str(good.certificate),)),
            Peer(ae_title="NEAR", addresses=("127.0.0.2/32",)),
        )
        own = self.pair(certificate)
        tls = ReceiverTlsSettings(
            certificate=own.certificate,
            key=own.key,
            certificate_authority=self.authority.certificate,
            revocation_list=self.revoked,
            handshake_timeout_s=seconds,
        )
        return self._stack.enter_context(listening(self.folder / name, tls=tls, peers=peers))


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Make a bench in a folder of its own."""
    with ExitStack() as stack:
        yield Bench(folder, stack)


def _issue(authority: str, **options: Any) -> Callable[[Bench, str], CertificatePair]:
    def issue(bench: Bench, name: str) -> CertificatePair:
        made: CertificateAuthority = getattr(bench, authority)
        return made.issue(name, **options)

    return issue


def _self_signed(bench: Bench, name: str) -> CertificatePair:
    pair = CertificatePair(bench.folder / f"{name}.pem", bench.folder / f"{name}.key")
    names = ("-subj", "/CN=good", "-keyout", pair.key, "-out", pair.certificate)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _run("openssl", "req", "-x509", *key, "-days", "9", *names)
    return pair


_CERTIFICATES: Final[Mapping[str, Callable[[Bench, str], CertificatePair]]] = {
    "node": _issue("authority", both=True, rsa_bits=2048),
    "other-server": _issue("other", both=True),
    "good": _issue("authority", client=True),
    "second": _issue("authority", client=True),
    "expired": _issue("authority", client=True, days=-3),
    "early": _issue("authority", client=True, begins_in_days=3),
    "revoked": _issue("authority", client=True),
    "foreign": _issue("other", client=True),
    "servers-only": _issue("authority", client=False),
    "short-key": _issue("authority", client=True, rsa_bits=1024),
    "self-signed": _self_signed,
    "peer": _issue("authority", both=True, rsa_bits=2048),
    "by-address": _issue("authority", host="127.0.0.1", both=True),
    "expired-server": _issue("authority", days=-3, both=True),
    "early-server": _issue("authority", begins_in_days=3, both=True),
    "revoked-server": _issue("authority", both=True),
    "elsewhere": _issue("authority", host="pacs.example", both=True),
    "clients-only": _issue("authority", client=True),
}


@dataclass(frozen=True)
class Case:
    """One connection: what is special in it, and what the node must record or say."""

    direction: str
    peer: str
    what: str
    expected: str
    run: Callable[[Bench, str], str]  #: given an address that calls; what was seen

    @property
    def runs_here(self) -> bool:
        """Whether its peer is installed."""
        needed = {"openssl": shutil.which("openssl"), "dcmtk": program("echoscu")}
        return bool(needed.get(self.peer, ORTHANC if self.peer == "Orthanc" else "yes"))

    def seen(self, bench: Bench) -> str:
        """Run it from an address of its own."""
        number = CASES.index(self) + 2
        return self.run(bench, f"127.0.1.{number}")


# into the node


def _recorded(node: Listening, address: str) -> str:
    """Reason for which the node has last refused or aborted what an address asked for."""

    def reasons() -> list[str]:
        return [
            str(details["reason"])
            for event, _, details in node.audit.events
            if event != "certificate.read" and details.get("address") == address
        ]

    settles(lambda: bool(reasons()), _ANSWER_S)
    return (reasons() or ["nothing"])[-1]


def _titles(calling: str) -> Titles:
    return b"REBRAIN".ljust(16) + calling.encode().ljust(16)


def _s_client(
    bench: Bench,
    address: str,
    *options: str,
    certificate: str | None = "good",
    calling: str = "PACS",
    trusted: str = "authority",
) -> str:
    """Ask for an association through ``openssl s_client``."""
    own = () if certificate is None else _own(bench.pair(certificate))
    trust = ("-CAfile", getattr(bench, trusted).certificate, "-verify_return_error")
    where = ("-connect", f"127.0.0.1:{bench.node.receiver.tls_port}", "-bind", address)
    command = ("openssl", "s_client", *where, *own, *trust, *options, "-quiet")
    with _started(*command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.write(associate_request(_titles(calling)))
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], _ANSWER_S)
        answer = os.read(process.stdout.fileno(), 1) if ready else b""
    return _ACCEPTED if answer == b"\x02" else _recorded(bench.node, address)


def _own(pair: CertificatePair) -> tuple[object, ...]:
    return ("-cert", pair.certificate, "-key", pair.key)


def _raw(bench: Bench, address: str, content: bytes, *, encrypted: bool = True) -> str:
    """Send bytes to a port."""
    port = bench.node.receiver.tls_port if encrypted else bench.node.port
    with socket.create_connection(("127.0.0.1", port), 5, (address, 0)) as connection:
        connection.sendall(content)
        answer = connection.recv(1)
    return _ACCEPTED if answer == b"\x02" else _recorded(bench.node, address)


def _half_hello() -> bytes:
    """Return the first half of what a TLS client says, made anew; sent to our own port alone."""
    written = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), written, server_hostname="localhost"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    content = written.read()
    return content[: len(content) // 2]


_HALF_HELLO: Final = _half_hello()


def _slow(bench: Bench, address: str, content: bytes, pause_s: float = 0.0) -> str:
    """Begin a handshake and do not end it, while another peer is served."""
    port = bench.hasty.receiver.tls_port
    with socket.create_connection(("127.0.0.1", port), 5, (address, 0)) as connection:
        with contextlib.suppress(OSError):
            for at in range(len(content)):
                connection.sendall(content[at : at + 1])
                time.sleep(pause_s)
        return _recorded(bench.hasty, address)


def _flood(bench: Bench, address: str) -> str:
    """Open more silent connections than one address may have, and ask for an association."""
    port = bench.node.receiver.tls_port
    with ExitStack() as stack:
        for _ in range(12):
            silent = socket.create_connection(("127.0.0.1", port), 5, (address, 0))
            stack.enter_context(silent)
        return _s_client(bench, "127.0.0.1")


def _plain(bench: Bench, address: str, calling: str) -> str:
    return _raw(bench, address, associate_request(_titles(calling)), encrypted=False)


def _echoscu(
    bench: Bench,
    _: str,
    *options: str,
    certificate: str | None = "peer",
    trusted: str = "authority",
    to: str = "node",
) -> str:
    node: Listening = getattr(bench, to)
    before = len(node.audit.of("handshake.refused"))
    own = ("+tla",) if certificate is None else _own_of_dcmtk(bench.pair(certificate))
    trust = ("+cf", getattr(bench, trusted).certificate)
    where = ("-aet", "PACS", "-aec", "REBRAIN", "127.0.0.1", node.receiver.tls_port)
    ended = _run(_dcmtk("echoscu"), "-to", "20", *own, *trust, *options, *where, check=False)
    if ended.returncode == 0:
        return _ACCEPTED
    return _refused_since(node, before)


def _refused_since(node: Listening, before: int) -> str:
    settles(lambda: len(node.audit.of("handshake.refused")) > before, _ANSWER_S)
    reasons = [str(each["reason"]) for each in node.audit.of("handshake.refused")[before:]]
    return (reasons or ["nothing"])[-1]


def _own_of_dcmtk(pair: CertificatePair) -> tuple[object, ...]:
    return ("+tls", pair.key, pair.certificate)


def _orthanc_calls(bench: Bench, _: str, modality: str, node: str) -> str:
    called: Listening = getattr(bench, node)
    before = len(called.audit.of("handshake.refused"))
    try:
        bench.orthanc.post(f"/modalities/{modality}/echo", "{}")
    except OSError:
        return _refused_since(called, before)
    return _ACCEPTED


# files that change


class _Renewal:
    """A receiver of its own, whose files a case changes while an association is open."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench = bench
        self.folder = bench.folder / f"renewal-{name}"
        self.folder.mkdir()
        self._put("node.pem", bench.pair("node").certificate.read_bytes())
        self._put("node.key", bench.pair("node").key.read_bytes())
        self._put("authority.pem", bench.authority.certificate.read_bytes())
        self._put("list.crl", bench.revoked.read_bytes())

    def _put(self, name: str, content: bytes) -> None:
        whole = self.folder / "whole"
        whole.write_bytes(content)
        whole.replace(self.folder / name)

    def after(self, change: Callable[[_Renewal], None], certificate: str, trusted: str) -> str:
        """What a peer gets after a change, and whether the association before it still answers."""
        path = self.folder
        tls = ReceiverTlsSettings(
            certificate=path / "node.pem",
            key=path / "node.key",
            certificate_authority=path / "authority.pem",
            revocation_list=path / "list.crl",
        )
        with listening(path / "inbox", tls=tls) as node:
            good, authority = self.bench.pair("good"), self.bench.authority.certificate
            context = client_context(authority, good.certificate, good.key)
            held = associate(node.receiver.tls_port, tls=(context, "localhost"))
            change(self)
            presented = self.bench.pair(certificate)
            trust = getattr(self.bench, trusted).certificate
            second = client_context(trust, presented.certificate, presented.key)
            other = associate(node.receiver.tls_port, tls=(second, "localhost"))
            let_in = other.is_established
            if let_in:
                other.release()
            answered = held.send_c_echo().get("Status") == 0
            held.release()
            settles(lambda: let_in or bool(node.audit.of("handshake.refused")), _ANSWER_S)
            refused = [str(one["reason"]) for one in node.audit.of("handshake.refused")]
            kept = len(node.audit.of("certificate.not-read"))
        words = [_ACCEPTED] if let_in else refused[-1:]
        words += ["files not read"] * bool(kept)
        return ", ".join([*words, "" if answered else "the open association ended"]).rstrip(", ")

    def renew(self, name: str) -> None:
        """Put another certificate of the node in place."""
        pair = self.bench.pair(name)
        self._put("node.key", pair.key.read_bytes())
        self._put("node.pem", pair.certificate.read_bytes())

    def spoil(self) -> None:
        """Put half a certificate in place."""
        content = self.bench.pair("other-server").certificate.read_bytes()
        self._put("node.pem", content[: len(content) // 2])

    def mix(self) -> None:
        """Put a certificate in place, and not the key that belongs to it."""
        self._put("node.pem", self.bench.pair("other-server").certificate.read_bytes())

    def lose(self) -> None:
        """Remove the file of the authorities."""
        (self.folder / "authority.pem").unlink()

    def trust(self, name: str) -> None:
        """Put other authorities in place, and no list, which would be of the first one."""
        other: CertificateAuthority = getattr(self.bench, name)
        self._put("authority.pem", other.certificate.read_bytes())
        self._put("list.crl", other.revoke(name="of-other").read_bytes())

    def revoke(self, name: str, days: int = 30) -> None:
        """Put a revocation list in place."""
        made = self.bench.authority.revoke(self.bench.pair(name), name="later", days=days)
        self._put("list.crl", made.read_bytes())


def _renewed(
    bench: Bench,
    address: str,
    change: Callable[[_Renewal], None],
    *,
    certificate: str = "good",
    trusted: str = "authority",
) -> str:
    return _Renewal(bench, address).after(change, certificate, trusted)


# out of the node


@contextmanager
def _started(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    words = [str(each) for each in command]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,  # at the end of its input openssl would hang up
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _run(*command: object, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    words = [str(each) for each in command]
    return subprocess.run(words, capture_output=True, check=check, timeout=2 * _ANSWER_S)


@cache
def _dcmtk(name: str) -> str:
    found = program(name)
    assert found is not None, f"dcmtk's {name} is not installed"
    return found


@contextmanager
def _serving(*command: object) -> Iterator[int]:
    """Start a server whose command holds ``PORT``; yield its port once it listens."""
    port = free_port()
    words = [str(each).replace("PORT", str(port)) for each in command]

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with _started(*words):
        assert settles(listens, _ANSWER_S), words
        yield port


def _ours(bench: Bench, certificate: str | None, **changes: Any) -> RemoteTlsSettings:
    pair = None if certificate is None else bench.pair(certificate)
    values = {
        "certificate_authority": bench.authority.certificate,
        "certificate": pair and pair.certificate,
        "key": pair and pair.key,
    }
    return RemoteTlsSettings(**(values | changes))


def _destination(
    port: int, tls: RemoteTlsSettings | None, host: str = "localhost", timeout_s: float = 20.0
) -> DestinationSettings:
    return DestinationSettings(
        name="pacs", ae_title="ORTHANC", host=host, port=port, timeout_s=timeout_s, tls=tls
    )


def _asked(ask: Callable[[DestinationSettings], object], destination: DestinationSettings) -> str:
    """What an operator reads of a destination."""
    try:
        ask(destination)
    except DeliveryError as error:
        return str(error)
    return _ACCEPTED


def _echo(destination: DestinationSettings) -> float:
    return echo(destination, "REBRAIN")


def _s_server(
    bench: Bench,
    _: str,
    *options: object,
    server: str = "peer",
    certificate: str | None = "good",
    host: str = "localhost",
    revoke: bool = False,
    **changes: Any,
) -> str:
    """Call ``openssl s_server``; it speaks no DICOM, so that TLS alone is looked at."""
    own = _own(bench.pair(server))
    if revoke:
        changes["revocation_list"] = bench.revoked
    with _serving("openssl", "s_server", "-accept", "PORT", "-quiet", *own, *options) as port:
        destination = _destination(port, _ours(bench, certificate, **changes), host)
        return _asked(certificate_end, destination)


def _asks(bench: Bench) -> tuple[object, ...]:
    return ("-Verify", "1", "-verify_return_error", "-CAfile", bench.authority.certificate)


def _refusing(bench: Bench, _: str, version: str, certificate: str | None) -> str:
    """Call ``openssl s_server`` that asks for a certificate, with one that it refuses."""
    own = _own(bench.pair("peer"))
    command = ("openssl", "s_server", "-accept", "PORT", "-quiet", version, *own, *_asks(bench))
    with _serving(*command) as port:
        return _asked(_echo, _destination(port, _ours(bench, certificate)))


def _storescp(
    bench: Bench,
    _: str,
    *options: object,
    server: str | None = "peer",
    certificate: str | None = "peer",
    encrypted: bool = True,
    host: str = "localhost",
    **changes: Any,
) -> str:
    own: tuple[object, ...] = ()
    if server is not None:
        own = (*_own_of_dcmtk(bench.pair(server)), "+cf", bench.authority.certificate)
    with _serving(_dcmtk("storescp"), "--ignore", *own, *options, "PORT") as port:
        tls = _ours(bench, certificate, **changes) if encrypted else None
        return _asked(_echo, _destination(port, tls, host, timeout_s=5.0))


def _called_orthanc(
    bench: Bench, _: str, certificate: str | None = "peer", *, encrypted: bool = True
) -> str:
    tls = _ours(bench, certificate) if encrypted else None
    return _asked(_echo, _destination(bench.orthanc.dicom_port, tls, timeout_s=5.0))


def _silent_server(bench: Bench, _: str, *, after_handshake: bool) -> str:
    """Call a server that accepts the connection and says nothing more."""
    if after_handshake:
        own = _own(bench.pair("peer"))
        with _serving("openssl", "s_server", "-accept", "PORT", "-quiet", *own) as port:
            return _asked(_echo, _destination(port, _ours(bench, None), timeout_s=1.0))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        return _asked(_echo, _destination(port, _ours(bench, None), "127.0.0.1", timeout_s=1.0))


def _in(peer: str, what: str, expected: str, run: Callable[..., str], *a: Any, **k: Any) -> Case:
    return Case("in", peer, what, expected, _bound(run, a, k))


def _out(peer: str, what: str, expected: str, run: Callable[..., str], *a: Any, **k: Any) -> Case:
    return Case("out", peer, what, expected, _bound(run, a, k))


def _bound(
    run: Callable[..., str], arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> Callable[[Bench, str], str]:
    return lambda bench, address: run(bench, address, *arguments, **options)


_V3, _V2 = "-tls1_3", "-tls1_2"
_NO_SECURITY: Final = "DEFAULT@SECLEVEL=0"
_REJECTED_THERE: Final = "it does not accept the certificate of this node"
_UNKNOWN: Final = "unable to get local issuer certificate"

CASES: Final[tuple[Case, ...]] = (
    _in("openssl", "a good certificate, TLS 1.3", _ACCEPTED, _s_client, _V3),
    _in("openssl", "a good certificate, TLS 1.2", _ACCEPTED, _s_client, _V2),
    _in("openssl", "no certificate, TLS 1.3", "NO-CERTIFICATE", _s_client, _V3, certificate=None),
    _in("openssl", "no certificate, TLS 1.2", "NO-CERTIFICATE", _s_client, _V2, certificate=None),
    _in("openssl", "of another authority", "UNKNOWN-AUTHORITY", _s_client, certificate="foreign"),
    _in("openssl", "self-signed", "UNKNOWN-AUTHORITY", _s_client, certificate="self-signed"),
    _in("openssl", "expired", "EXPIRED", _s_client, certificate="expired"),
    _in("openssl", "not yet valid", "NOT-YET-VALID", _s_client, certificate="early"),
    _in("openssl", "revoked, TLS 1.3", "REVOKED", _s_client, _V3, certificate="revoked"),
    _in("openssl", "revoked, TLS 1.2", "REVOKED", _s_client, _V2, certificate="revoked"),
    _in("openssl", "of a server alone", "CERTIFICATE", _s_client, certificate="servers-only"),
    _in(
        "openssl", "an RSA key of 1024 bits", "CERTIFICATE", _s_client, "-cipher", _NO_SECURITY,
        certificate="short-key",
    ),
    _in(
        "openssl", "it does not trust the node", "NOT-TRUSTED-THERE", _s_client, trusted="other"
    ),
    _in("openssl", "TLS 1.0", "TLS-VERSION", _s_client, "-tls1", "-cipher", _NO_SECURITY),
    _in("openssl", "TLS 1.1", "TLS-VERSION", _s_client, "-tls1_1", "-cipher", _NO_SECURITY),
    _in("openssl", "RSA key exchange", "TLS-CIPHER", _s_client, _V2, "-cipher",
        "AES128-GCM-SHA256"),
    _in("openssl", "CBC", "TLS-CIPHER", _s_client, _V2, "-cipher", "ECDHE-RSA-AES128-SHA256"),
    _in(
        "openssl", "finite-field DHE", "TLS-CIPHER", _s_client, _V2, "-cipher",
        "DHE-RSA-AES256-GCM-SHA384",
    ),
    _in("openssl", "no encryption", "TLS-CIPHER", _s_client, _V2, "-cipher", "eNULL:@SECLEVEL=0"),
    _in(
        "openssl", "anonymous", "TLS-CIPHER", _s_client, _V2, "-cipher", "aNULL:@SECLEVEL=0",
        certificate=None,
    ),
    _in("openssl", "bound by fingerprint", _ACCEPTED, _s_client, calling="BOUND"),
    _in("openssl", "bound by subject", _ACCEPTED, _s_client, calling="SUBJECT"),
    _in("openssl", "bound by file", _ACCEPTED, _s_client, calling="FILE"),
    _in(
        "openssl", "an AE title bound to another certificate", "UNKNOWN-CERTIFICATE", _s_client,
        calling="BOUND", certificate="second",
    ),
    _in(
        "openssl", "an AE title bound to another subject", "UNKNOWN-CERTIFICATE", _s_client,
        calling="SUBJECT", certificate="second",
    ),
    _in(
        "openssl", "an AE title bound to another file", "UNKNOWN-CERTIFICATE", _s_client,
        calling="FILE", certificate="second",
    ),
    _in("openssl", "an unknown AE title", "UNKNOWN-AE", _s_client, calling="ROGUE"),
    _in("openssl", "an AE title of another address", "UNKNOWN-ADDRESS", _s_client, calling="NEAR"),
    _in("socket", "plain DICOM to the TLS port", "NOT-TLS", _raw, associate_request()),
    _in("socket", "HTTP to the TLS port", "NOT-TLS", _raw, b"GET / HTTP/1.1\r\n\r\n"),
    _in("socket", "TLS to the plain port", "PDU-TYPE", _raw, _HALF_HELLO, encrypted=False),
    _in("socket", "plain DICOM to the plain port", _ACCEPTED, _plain, "PACS"),
    _in(
        "socket", "plain DICOM under an AE title bound to a certificate", "UNKNOWN-CERTIFICATE",
        _plain, "BOUND",
    ),
    _in("socket", "a silent handshake", "SLOW-HANDSHAKE", _slow, b""),
    _in("socket", "half a handshake", "SLOW-HANDSHAKE", _slow, _HALF_HELLO),
    _in("socket", "a handshake byte by byte", "SLOW-HANDSHAKE", _slow, _HALF_HELLO, 0.05),
    _in("openssl", "twelve silent connections beside it", _ACCEPTED, _flood),
    _in("dcmtk", "a good certificate", _ACCEPTED, _echoscu),
    _in("dcmtk", "the extended BCP 195 profile", _ACCEPTED, _echoscu, "--profile-bcp195-ex"),
    _in("dcmtk", "no certificate", "NO-CERTIFICATE", _echoscu, certificate=None),
    _in("dcmtk", "expired", "EXPIRED", _echoscu, certificate="expired-server"),
    _in("dcmtk", "revoked", "REVOKED", _echoscu, certificate="revoked-server"),
    _in("dcmtk", "of another authority", "UNKNOWN-AUTHORITY", _echoscu, certificate="other-server"),
    _in("dcmtk", "it does not trust the node", "NOT-TRUSTED-THERE", _echoscu, to="foreign"),
    _in("dcmtk", "the node's certificate is of another host", _ACCEPTED, _echoscu, to="elsewhere"),
    _in("Orthanc", "a good certificate", _ACCEPTED, _orthanc_calls, "node", "node"),
    _in(
        "Orthanc", "the node's certificate is of another host", _ACCEPTED, _orthanc_calls,
        "elsewhere", "elsewhere",
    ),
    _in(
        "Orthanc", "it does not trust the node", "NOT-TRUSTED-THERE", _orthanc_calls, "foreign",
        "foreign_to_orthanc",
    ),
    _in("socket", "the node's certificate renewed", _ACCEPTED, _renewed,
        partial(_Renewal.renew, name="other-server"), trusted="other"),
    _in("socket", "half a certificate put in place", "accepted, files not read", _renewed,
        _Renewal.spoil),
    _in("socket", "a certificate without its key put in place", "accepted, files not read",
        _renewed, _Renewal.mix),
    _in("socket", "the file of the authorities removed", "accepted, files not read", _renewed,
        _Renewal.lose),
    _in("socket", "another authority put in place", _ACCEPTED, _renewed,
        partial(_Renewal.trust, name="other"), certificate="foreign"),
    _in("socket", "the authority taken out", "UNKNOWN-AUTHORITY", _renewed,
        partial(_Renewal.trust, name="other")),
    _in("socket", "the sender revoked meanwhile", "REVOKED", _renewed,
        partial(_Renewal.revoke, name="good")),
    _in("socket", "a revocation list that is out of date", "REVOCATION-LIST", _renewed,
        partial(_Renewal.revoke, name="second", days=-3)),
    _out("openssl", "a good certificate, TLS 1.3", _ACCEPTED, _s_server, _V3),
    _out("openssl", "a good certificate, TLS 1.2", _ACCEPTED, _s_server, _V2),
    _out("openssl", "of another authority", _UNKNOWN, _s_server, server="other-server"),
    _out("openssl", "self-signed", "self-signed certificate", _s_server, server="self-signed"),
    _out("openssl", "expired", "certificate has expired", _s_server, server="expired-server"),
    _out("openssl", "not yet valid", "not yet valid", _s_server, server="early-server"),
    _out("openssl", "revoked", "certificate revoked", _s_server, server="revoked-server",
         revoke=True),
    _out("openssl", "not revoked", _ACCEPTED, _s_server, revoke=True),
    _out("openssl", "another host name", "Hostname mismatch", _s_server, server="elsewhere"),
    _out("openssl", "another address", "IP address mismatch", _s_server, host="127.0.0.1"),
    _out("openssl", "the address in the certificate", _ACCEPTED, _s_server, server="by-address",
         host="127.0.0.1"),
    _out("openssl", "another host name, which `host_name` names", _ACCEPTED, _s_server,
         server="elsewhere", host_name="pacs.example"),
    _out("openssl", "of a client alone", "unsuitable certificate purpose", _s_server,
         server="clients-only"),
    _out("openssl", "TLS 1.1", "check that it speaks TLS 1.2 or later", _s_server, "-tls1_1",
         "-cipher", _NO_SECURITY),
    _out("openssl", "RSA key exchange", "TLS failed", _s_server, _V2, "-cipher",
         "AES128-GCM-SHA256"),
    _out("openssl", "our certificate expired, TLS 1.3", "it has expired", _refusing, _V3,
         "expired"),
    _out("openssl", "our certificate expired, TLS 1.2", "it has expired", _refusing, _V2,
         "expired"),
    _out("openssl", "our certificate missing, TLS 1.3", "none was presented", _refusing, _V3,
         None),
    _out("openssl", "our authority not known there", "its authority is not known there",
         _refusing, _V3, "foreign"),
    _out("dcmtk", "a good certificate", _ACCEPTED, _storescp),
    _out("dcmtk", "the extended BCP 195 profile", _ACCEPTED, _storescp, "--profile-bcp195-ex"),
    _out("dcmtk", "expired", "certificate has expired", _storescp, server="expired-server"),
    _out("dcmtk", "another host name", "Hostname mismatch", _storescp, server="elsewhere"),
    _out("dcmtk", "our certificate missing", _REJECTED_THERE, _storescp, certificate=None),
    _out("dcmtk", "our certificate expired", "it has expired", _storescp, certificate="expired"),
    _out("dcmtk", "it listens for plain DICOM", "TLS", _storescp, server=None),
    _out("dcmtk", "it listens for TLS, and we call plainly", "whether it expects TLS", _storescp,
         encrypted=False),
    _out("Orthanc", "a good certificate", _ACCEPTED, _called_orthanc),
    _out("Orthanc", "our certificate missing", _REJECTED_THERE, _called_orthanc, None),
    _out("Orthanc", "our authority not known there", "its authority is not known there",
         _called_orthanc, "foreign"),
    _out("Orthanc", "we call plainly", "whether it expects TLS", _called_orthanc,
         encrypted=False),
    _out("socket", "silent before the handshake", "no answer in time", _silent_server,
         after_handshake=False),
    _out("openssl", "silent after the handshake", "did not answer the association request",
         _silent_server, after_handshake=True),
)  # fmt: skip


def agrees(case: Case, seen: str) -> bool:
    """Whether a case ended as it must: a sentence holds the words, a code is the code."""
    return seen == case.expected or (
        case.direction == "out" and case.expected != _ACCEPTED and case.expected in seen
    )


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Print the table; 1 if a case did not end as it must."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as made:
        for number, case in enumerate(CASES, 1):
            if not case.runs_here:
                _print(f"{number:3} {case.direction:4}{case.peer:8} not installed: {case.what}")
                continue
            begun = time.monotonic()
            seen = case.seen(made)
            right = agrees(case, seen)
            wrong += not right
            words = case.expected if right else f"EXPECTED {case.expected}, SEEN {seen}"
            ended = f"{words} {time.monotonic() - begun:.1f} s"
            _print(f"{number:3} {case.direction:4}{case.peer:8}{case.what:58}{ended}")
    _print(f"{len(CASES)} cases, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
