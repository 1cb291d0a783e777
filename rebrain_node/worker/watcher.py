"""Finds what there is to do: studies that have become complete, series accepted, sets not sent.

Runs in one worker process. Everything it starts may have been started before: starting twice
does nothing, so that a start of the node is also its recovery.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from rebrain_node.errors import StoreUnavailable
from rebrain_node.worker.durable import Durable
from rebrain_node.worker.work import Work, reason_of

#: pause between two looks at the ledger, s
LOOK_S: Final = 0.25

_LOG = structlog.get_logger("worker")


@dataclass(kw_only=True)
class Watcher:
    """Judges complete studies and starts the work that follows."""

    work: Work
    durable: Durable
    inbox: InboxFolder
    settling: Settling
    folder: Path  #: whose free space is watched
    soft_mark_bytes: int  #: below it nothing new is judged
    _started: set[tuple[str, int] | tuple[int, str]] = field(default_factory=set)
    _low_disk: bool = False

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop``; a store that is down is looked at again."""
        while not stop.wait(LOOK_S):
            try:
                self.look()
            except StoreUnavailable as error:
                _LOG.error("store unavailable", reason=str(error))
                stop.wait(2.0)
            except Exception as error:  # noqa: BLE001 - what cannot be judged must not stop the rest
                _LOG.error("look failed", reason=reason_of(error))
                stop.wait(2.0)

    def look(self) -> None:
        """Take one look: what is complete is judged, what is accepted or unsent is started."""
        if self._has_room():
            for study, verdict in self.settling.settled(self.work.ledger.studies_in_reception()):
                self.work.ledger.complete(study, verdict.completeness, verdict.details)
            for study_instance_uid in self.work.ledger.studies_to_judge():
                self.judge(study_instance_uid)
        for record in self.work.ledger.series("accepted"):
            self._start_synthesis(record)
        for delivery in self.work.outbox.pending():
            self._start_delivery(delivery.set_id, delivery.destination)
