"""Signs the audit log while the node runs, and removes rows that are older than the site keeps."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from rebrain_node.domain.audit import Checkpoint
from rebrain_node.errors import KeyFileError, StateError, StoreUnavailableError
from rebrain_node.store.audit_retention import AuditRetention
from rebrain_node.store.checkpoints import Checkpoints

#: pause between two looks at the log, s
EVERY_S: Final = 2.0
_LOOKS_A_DAY: Final = int(86400 / EVERY_S)
_LOG = structlog.get_logger("audit")


@dataclass(frozen=True, kw_only=True)
class CheckpointLoop:
    """Looks every two seconds whether a checkpoint is due, and signs one at its start."""

    checkpoints: Checkpoints
    rows: int  #: a checkpoint is due after so many rows
    minutes: float  #: and after so long, where there are new rows
    retention: AuditRetention
    years: float | None = None  #: rows older than this are removed, once a day

    def run(self, stop: threading.Event) -> None:
        """Sign until ``stop``; what cannot be written now is tried again."""
        rows, looks = 1, 0
        while True:
            try:
                self.write(rows)
                rows = self.rows
                if self.years is not None and looks % _LOOKS_A_DAY == 0:
                    self.remove(self.years)
                looks += 1
            except (StoreUnavailableError, KeyFileError, StateError) as error:
                _LOG.error("audit log not signed", reason=str(error))
            if stop.wait(EVERY_S):
                return

    def remove(self, years: float) -> None:
        """Export, seal and remove the rows older than ``years``.

        Raises
        ------
        StateError, StoreUnavailableError, KeyFileError
            Nothing was removed.
        """
        removed = self.retention.remove_older(years, datetime.now(UTC))
        if removed is not None:
            _LOG.info("audit rows removed", file=removed.file.name, last=removed.last)

    def write(self, rows: int) -> Checkpoint | None:
        """Sign the newest row if a checkpoint is due after ``rows`` rows.

        Raises
        ------
        StoreUnavailableError, KeyFileError
            It cannot be written now.
        """
        due = self.checkpoints.is_due(rows, self.minutes)
        return self.checkpoints.write() if due else None
