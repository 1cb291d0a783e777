"""Deletes hourly what the rules of retention release."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from rebrain_node.errors import StoreUnavailableError
from rebrain_node.store.retention import PurgeableSeries, Retention, RetentionRules

#: pause between two purges, s
EVERY_S: Final = 3600.0
_LOG = structlog.get_logger("purge")


@dataclass(frozen=True, kw_only=True)
class PurgeLoop:
    """Purges at its start and then every hour."""

    retention: Retention
    rules: RetentionRules

    def run(self, stop: threading.Event) -> None:
        """Purge until ``stop``; a purge that fails is tried again an hour later.

        Nothing is purged while objects are found that were deleted before their confirmation.
        """
        while True:
            try:
                purged = self.purge()
            except (StoreUnavailableError, OSError) as error:
                _LOG.warning("purge failed", reason=str(error))
            else:
                if purged:
                    count = sum(each.received_bytes + each.derived_bytes for each in purged)
                    _LOG.info("purged", series=len(purged), bytes=count)
            if stop.wait(EVERY_S):
                return

    def purge(self) -> tuple[PurgeableSeries, ...]:
        """Purge once, unless an earlier purge deleted what was not confirmed.

        Raises
        ------
        StoreUnavailableError, OSError
            The database or a file cannot be changed now.
        """
        lost = self.retention.deleted_unconfirmed()
        if lost:
            _LOG.critical("no purge: objects were deleted before confirmation", objects=lost)
            return ()
        return self.retention.purge(self.rules, datetime.now(UTC))
