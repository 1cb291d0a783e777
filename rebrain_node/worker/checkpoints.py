"""Signs the audit log while the node runs: after so many rows or minutes, and published series."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import structlog

from rebrain_node.domain.audit import Checkpoint
from rebrain_node.errors import KeyFileError, StoreUnavailableError
from rebrain_node.store.checkpoints import Checkpoints

#: pause between two looks at the log, s
EVERY_S: Final = 2.0
_LOG = structlog.get_logger("audit")


@dataclass(frozen=True, kw_only=True)
class CheckpointLoop:
    """Looks every two seconds whether a checkpoint is due, and signs one at its start."""

    checkpoints: Checkpoints
    rows: int  #: a checkpoint is due after so many rows
    minutes: float  #: and after so long, where there are new rows

    def run(self, stop: threading.Event) -> None:
        """Sign until ``stop``; what cannot be written now is tried again."""
        rows = 1
        while True:
            try:
                self.write(rows)
                rows = self.rows
            except (StoreUnavailableError, KeyFileError) as error:
                _LOG.error("no checkpoint", reason=str(error))
            if stop.wait(EVERY_S):
                return

    def write(self, rows: int) -> Checkpoint | None:
        """Sign the newest row if a checkpoint is due after ``rows`` rows.

        Raises
        ------
        StoreUnavailableError, KeyFileError
            It cannot be written now.
        """
        due = self.checkpoints.is_due(rows, self.minutes)
        return self.checkpoints.write() if due else None
