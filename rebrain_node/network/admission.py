"""Who may connect and associate, and for which SOP classes (PS3.8 9.3.2).

A calling AE title associates from its networks, to our AE title, while there is room; connections
that have not associated share a bounded number of places. CT is what the node is for. Everything
else a PACS sends along with a study is accepted, so that the sender's job ends well, and kept
like any instance; the selection then refuses its series. docs/receiving.md lists all of it.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context

from rebrain_node.instance.scan import CT_CLASSES
from rebrain_node.network.certificates import PeerCertificate
from rebrain_node.settings import Peer, Receiver

#: C-ECHO (PS3.4 annex A)
VERIFICATION = UID("1.2.840.10008.1.1")

#: SOP classes whose instances may become a synthetic series
PROCESSED: tuple[UID, ...] = tuple(sorted(CT_CLASSES))

#: storage SOP classes that are kept and not processed: all others that pynetdicom knows
KEPT: tuple[UID, ...] = tuple(
    sorted(
        UID(str(context.abstract_syntax))
        for context in AllStoragePresentationContexts
        if context.abstract_syntax not in CT_CLASSES
    )
)

#: a refusal of the same caller is audited once in so many seconds
AUDIT_EVERY_S: Final = 60.0
#: callers remembered for that; above it unknown callers share one entry
_REMEMBERED: Final = 1000

Reason = Literal[
    "CALLED-AE", "UNKNOWN-AE", "UNKNOWN-ADDRESS", "UNKNOWN-CERTIFICATE", "ASSOCIATIONS",
    "RESOURCES",
]  # fmt: skip
#: result, source and reason of the A-ASSOCIATE-RJ (PS3.8 table 9-21), and what the site does
REJECTIONS: Final[Mapping[Reason, tuple[tuple[int, int, int], str]]] = {
    "CALLED-AE": ((1, 1, 7), "correct the AE title entered at the sender"),
    "UNKNOWN-AE": ((1, 1, 3), "add the peer; the audit event carries the lines to paste"),
    "UNKNOWN-ADDRESS": (
        (1, 1, 3),
        "add the address; the sender is not told that only the address is wrong",
    ),
    "UNKNOWN-CERTIFICATE": (
        (1, 1, 3),
        "have the sender present its certificate, over TLS; or add the one it presents",
    ),
    "ASSOCIATIONS": (
        (2, 3, 2),
        "nothing: senders try again; or raise `receiver.maximum_associations`",
    ),
    "RESOURCES": (
        (2, 3, 1),
        "free disk space: the hard mark is reached, or the audit log cannot be written",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks for an association, in printable characters."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    certificate: PeerCertificate | None = None  #: None without TLS, or where none is asked for

    @classmethod
    def of(
        cls, calling: str, called: str, address: str, certificate: PeerCertificate | None = None
    ) -> Caller:
        """Clean what came from the network; an IPv4 address stays one behind IPv6."""
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        return cls(
            calling_ae_title=_printable(calling),
            called_ae_title=_printable(called),
            address=str(mapped or parsed),
            certificate=certificate,
        )

    def admitting_settings(self, reason: Reason) -> str:
        """What would admit this caller, to be pasted into the settings file.

        Of one that is bound to a certificate and presents none, the lines say what they give up.
        """
        network = ipaddress.ip_network(self.address)
        lines = (
            f"[[receiver.peers]]\nae_title = {json.dumps(self.calling_ae_title)}\n"
            f'addresses = ["{network}"]'
        )
        if self.certificate is None and reason == "UNKNOWN-CERTIFICATE":
            return f"# admits it without a certificate: have it call the TLS port instead\n{lines}"
        if self.certificate is None:
            return lines
        return f'{lines}\ncertificates = ["{self.certificate.fingerprint}"]'


def refusal(caller: Caller, ae_title: str, peers: Sequence[Peer]) -> Reason | None:
    """Say why the caller may not associate; None if it may."""
    if caller.called_ae_title != ae_title:
        return "CALLED-AE"
    named = [peer for peer in peers if peer.ae_title == caller.calling_ae_title]
    if not named:
        return "UNKNOWN-AE"
    address = ipaddress.ip_address(caller.address)
    near = [
        peer
        for peer in named
        if any(address in ipaddress.ip_network(network) for network in peer.addresses)
    ]
    if not near:
        return "UNKNOWN-ADDRESS"
    if not any(_presents(caller.certificate, peer) for peer in near):
        return "UNKNOWN-CERTIFICATE"
    return None


def _presents(certificate: PeerCertificate | None, peer: Peer) -> bool:
    if peer.certificates is None:
        return True
    return certificate is not None and certificate.is_one_of(peer.certificates)


def accepted_contexts(transfer_syntaxes: Sequence[str]) -> list[PresentationContext]:
    """Return what an association may agree on, given the transfer syntaxes that decode here.

    Verification needs no more than the default transfer syntax, but takes any native one.
    """
    native = [uid for uid in transfer_syntaxes if not UID(uid).is_compressed]
    return [
        build_context(VERIFICATION, native),
        *(build_context(uid, list(transfer_syntaxes)) for uid in (*PROCESSED, *KEPT)),
    ]


class _Waiting(Protocol):
    """A connection, as far as the pool needs it."""

    @property
    def address(self) -> str:
        """Address of the peer."""

    @property
    def waiting(self) -> bool:
        """Whether it is open and has no association."""


PoolMember = TypeVar("PoolMember", bound=_Waiting)


class UnassociatedPool(Generic[PoolMember]):
    """The connections that have not associated yet.

    When the places are taken, the longest waiting connection of the address that holds most gives
    way: a flood displaces itself, and a sender that associates at once is served.
    """

    def __init__(self, limits: Receiver) -> None:
        self._limits = limits
        self._waiting: list[PoolMember] = []  # oldest first

    def make_room(self, address: str) -> PoolMember | None:
        """Return the connection that gives way to a new one of the address, if one has to."""
        self._waiting = [each for each in self._waiting if each.waiting]
        held: dict[str, list[PoolMember]] = {}
        for each in self._waiting:
            held.setdefault(each.address, []).append(each)
        if len(held.get(address, ())) >= self._limits.maximum_unassociated_per_address:
            displaced = held[address][0]
        elif len(self._waiting) >= self._limits.maximum_unassociated:
            displaced = max(held.values(), key=len)[0]
        else:
            return None
        self._waiting.remove(displaced)
        return displaced

    def add(self, connection: PoolMember) -> None:
        """Count a new connection."""
        self._waiting.append(connection)


class RateLimiter:
    """Lets an event of each key be recorded once in ``every_s`` seconds, and counts the others."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._recorded: dict[Hashable, float] = {}
        self._suppressed: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def due(self, key: Hashable) -> int | None:
        """Number suppressed since the last record, if this one is to be recorded; else None."""
        now = self._clock()
        with self._lock:
            if key not in self._recorded and len(self._recorded) >= _REMEMBERED:
                self._forget(now)
                key = key if len(self._recorded) < _REMEMBERED else None
            if now - self._recorded.get(key, -self._every_s) < self._every_s:
                self._suppressed[key] = self._suppressed.get(key, 0) + 1
                return None
            self._recorded[key] = now
            return self._suppressed.pop(key, 0)

    def _forget(self, now: float) -> None:
        old = [key for key, recorded in self._recorded.items() if now - recorded >= self._every_s]
        for key in old:
            del self._recorded[key]
            self._suppressed.pop(key, None)


def _printable(title: str) -> str:
    kept = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in title[:16])
    return kept.strip()
