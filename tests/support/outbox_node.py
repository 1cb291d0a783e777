"""The part of a node that delivers: database, outbox and delivery loop, with a clock to set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rebrain_node.blobs import inbox_blobs, outbox_blobs
from rebrain_node.network.sender import PacsDestination
from rebrain_node.ports import Destination
from rebrain_node.settings import DestinationSettings
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.audit_queue import AuditQueue
from rebrain_node.store.confirmations import Confirmations
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.notifications import Notifications
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.recall import Recall
from rebrain_node.store.retention import Retention
from rebrain_node.store.stops import Stops
from rebrain_node.store.workitems import Workitems
from rebrain_node.worker.delivery import DeliveryLoop
from tests.support.store_cases import fast_folder


@dataclass
class OutboxNode:
    """What `serve` composes for deliveries, on one database and folder."""

    database: Database
    folder: Path
    now_s: float = 0.0  #: monotonic clock

    def __post_init__(self) -> None:
        self.ledger, self.audit = Ledger(self.database), AuditLog(self.database)
        self.outbox = Outbox(self.database, self.folder / "outbox")
        self.deliveries = Deliveries(self.database)
        self.stops = Stops(self.database)
        self.confirmations = Confirmations(self.database)
        self.notifications = Notifications(self.database)
        self.workitems = Workitems(self.database)
        self.queue = AuditQueue(self.database)
        self.recall = Recall(self.database)
        inbox = inbox_blobs(self.folder / "inbox")
        inbox.prepare()
        self.retention = Retention(self.database, inbox, outbox_blobs(self.folder / "outbox"))

    def loop(self, destination: DestinationSettings | Destination, **options: Any) -> DeliveryLoop:
        """A delivery loop to a destination, on the clock of this node."""
        if isinstance(destination, DestinationSettings):
            destination = PacsDestination(destination, "REBRAIN")
        return DeliveryLoop(
            outbox=self.outbox,
            deliveries=self.deliveries,
            confirmations=self.confirmations,
            destination=destination,
            clock=lambda: self.now_s,
            **options,
        )

    def states(self) -> list[str]:
        """The state of each series, with whether it is confirmed."""
        return [one.state_text for one in self.ledger.series()]


@contextmanager
def outbox_node(folder: Path | None = None) -> Iterator[OutboxNode]:
    """A node on a folder that exists, or on one of its own that costs no fsync."""
    if folder is None:
        with fast_folder() as own, outbox_node(own) as node:
            yield node
        return
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        yield OutboxNode(database, folder)
        found = AuditCheck(database, folder, ()).verify().differences
        assert found == (), found[:3]
