"""Looks at disk, certificates and audit log, and records what needs attention."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from rebrain_node.domain.audit import ChainVerdict, Event
from rebrain_node.domain.text import utc
from rebrain_node.errors import RebrainError, StoreUnavailableError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import AuditLog
from rebrain_node.worker.work import reason_of

#: pause between two looks at the disk, s
EVERY_S: Final = 60.0
#: looks between two checks of certificates and log, and before the first one
_LOOKS_A_DAY: Final = int(86400 / EVERY_S)
_FIRST_LOOK: Final = 10
_LOG = structlog.get_logger("self-check")


@dataclass(frozen=True, kw_only=True)
class SelfCheckLoop:
    """Looks at the disk each minute, and at the rest once a day, first after ten minutes."""

    audit: AuditLog
    folder: Path
    soft_mark_bytes: int
    verify: Callable[[], ChainVerdict]
    #: when certificates end, by setting; None where there is none to judge
    certificates: Mapping[str, Callable[[], datetime | None]]
    certificate_days: int

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop``."""
        looks = 0
        while True:
            try:
                self.look_at_disk()
                if looks % _LOOKS_A_DAY == _FIRST_LOOK:
                    self.look_at_certificates(datetime.now(UTC))
                    self.look_at_log()
            except Exception as error:  # noqa: BLE001 - it looks again
                _LOG.warning("self-check failed", reason=reason_of(error))
            looks += 1
            if stop.wait(EVERY_S):
                return

    def look_at_disk(self) -> None:
        """Record when free disk falls below the soft mark, and when it is above it again.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        free = shutil.disk_usage(self.folder).free
        was_low = self._last(Event.STORAGE_LOW) > self._last(Event.STORAGE_FREE)
        is_low = free < self.soft_mark_bytes
        if is_low != was_low:
            event = Event.STORAGE_LOW if is_low else Event.STORAGE_FREE
            details: dict[str, JsonValue] = {
                "free_bytes": free, "soft_mark_bytes": self.soft_mark_bytes,
            }  # fmt: skip
            self.audit.record(event, "storage", details)

    def _last(self, event: Event) -> int:
        """Sequence of the newest event of a kind; 0 where there is none."""
        return max((one.sequence for one in self.audit.events(1, event=event)), default=0)

    def look_at_certificates(self, now: datetime) -> None:
        """Record each certificate that ends soon.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        for setting, end_of in self.certificates.items():
            try:
                end = end_of()
            except StoreUnavailableError:
                raise
            except RebrainError as error:
                _LOG.warning("certificate not read", setting=setting, reason=str(error))
                continue
            if end is not None and (days := (end - now).days) < self.certificate_days:
                details: dict[str, JsonValue] = {"ends": utc(end), "days": days}
                self.audit.record(Event.CERTIFICATE_EXPIRING, setting, details)

    def look_at_log(self) -> None:
        """Record what contradicts the audit log, once.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        verdict = self.verify()
        if verdict.intact:
            return
        subject, details = broken_details(verdict)
        newest = next(iter(self.audit.events(1, event=Event.AUDIT_BROKEN)), None)
        if newest is None or (newest.subject, newest.details) != (subject, details):
            self.audit.record(Event.AUDIT_BROKEN, subject, details)


def broken_details(verdict: ChainVerdict) -> tuple[str, dict[str, JsonValue]]:
    """Subject and details of the event that the log is not as it was written."""
    if verdict.broken_sequence is not None:
        return f"row {verdict.broken_sequence}", {"reason": verdict.reason, "differences": 0}
    first = verdict.differences[0]
    details: dict[str, JsonValue] = {
        "reason": first.sentence,
        "differences": len(verdict.differences),
    }
    return f"{first.kind} {first.subject}", details
