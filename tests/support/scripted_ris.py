"""An SCP of Instance Availability Notification on loopback that answers as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.events import Event

from rebrain_node.network.notification import AVAILABILITY


@dataclass
class Ris:
    """What a receiver of notifications got, and what it answers."""

    status: Callable[[int], int | None] = lambda _: 0x0000
    got: list[tuple[str, Dataset]] = field(default_factory=list)

    def create(self, event: Event) -> tuple[int, Dataset | None]:
        self.got.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        status = self.status(len(self.got))
        if status is None:
            event.assoc.abort()
            return 0x0000, None
        return status, None


@contextmanager
def a_ris(sop_class: UID = AVAILABILITY, port: int = 0) -> Iterator[tuple[Ris, int]]:
    ris, entity = Ris(), AE(ae_title="RIS")
    entity.add_supported_context(sop_class)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_CREATE, ris.create)]
    )
    try:
        yield ris, server.server_address[1]
    finally:
        server.shutdown()
