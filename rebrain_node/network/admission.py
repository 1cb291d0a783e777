"""Who may associate: a calling AE title from its networks, to our AE title, while there is room."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rebrain_node.settings import Peer

#: a refusal of the same caller is audited once in so many seconds
AUDIT_EVERY_S: Final = 60.0
#: callers remembered for that; above it unknown callers share one entry
_REMEMBERED: Final = 1000

#: (result, source, reason) of A-ASSOCIATE-RJ (PS3.8 table 9-21)
Rejection = tuple[int, int, int]
CALLED_NOT_RECOGNISED: Final[Rejection] = (1, 1, 7)
CALLING_NOT_RECOGNISED: Final[Rejection] = (1, 1, 3)
TEMPORARY_CONGESTION: Final[Rejection] = (2, 3, 1)
LOCAL_LIMIT_EXCEEDED: Final[Rejection] = (2, 3, 2)

Reason = Literal["CALLED-AE", "UNKNOWN-AE", "UNKNOWN-ADDRESS", "ASSOCIATIONS", "RESOURCES"]
REJECTIONS: Final[dict[Reason, Rejection]] = {
    "CALLED-AE": CALLED_NOT_RECOGNISED,
    "UNKNOWN-AE": CALLING_NOT_RECOGNISED,
    "UNKNOWN-ADDRESS": CALLING_NOT_RECOGNISED,
    "ASSOCIATIONS": LOCAL_LIMIT_EXCEEDED,
    "RESOURCES": TEMPORARY_CONGESTION,
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks for an association, in printable characters."""

    calling_ae_title: str
    called_ae_title: str
    address: str

    @classmethod
    def of(cls, calling: str, called: str, address: str) -> Caller:
        """Clean what came from the network; an IPv4 address stays one behind IPv6."""
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        return cls(
            calling_ae_title=_printable(calling),
            called_ae_title=_printable(called),
            address=str(mapped or parsed),
        )

    @property
    def settings_line(self) -> str:
        """What would admit this caller, to be pasted into the settings file."""
        network = ipaddress.ip_network(self.address)
        return (
            f"[[receiver.peers]]\nae_title = {json.dumps(self.calling_ae_title)}\n"
            f'addresses = ["{network}"]'
        )


def refusal(caller: Caller, ae_title: str, peers: Sequence[Peer]) -> Reason | None:
    """Say why the caller may not associate; None if it may."""
    if caller.called_ae_title != ae_title:
        return "CALLED-AE"
    named = [peer for peer in peers if peer.ae_title == caller.calling_ae_title]
    if not named:
        return "UNKNOWN-AE"
    address = ipaddress.ip_address(caller.address)
    networks = (network for peer in named for network in peer.addresses)
    if not any(address in ipaddress.ip_network(network) for network in networks):
        return "UNKNOWN-ADDRESS"
    return None


class RateLimiter:
    """Lets something be told once in a while for each key, and counts what was left out."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._told: dict[Hashable, float] = {}
        self._untold: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def due(self, key: Hashable) -> int | None:
        """How many were left out since the last time, if now is the time to tell; else None."""
        now = self._clock()
        with self._lock:
            if key not in self._told and len(self._told) >= _REMEMBERED:
                self._forget(now)
                key = key if len(self._told) < _REMEMBERED else None
            if now - self._told.get(key, -self._every_s) < self._every_s:
                self._untold[key] = self._untold.get(key, 0) + 1
                return None
            self._told[key] = now
            return self._untold.pop(key, 0)

    def _forget(self, now: float) -> None:
        old = [key for key, told in self._told.items() if now - told >= self._every_s]
        for key in old:
            del self._told[key]
            self._untold.pop(key, None)


def _printable(title: str) -> str:
    kept = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in title[:16])
    return kept.strip()
