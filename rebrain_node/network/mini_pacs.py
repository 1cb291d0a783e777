"""A small archive on loopback, for the demonstration and for tests; never for patients.

It takes every storage SOP class from anybody, keeps each instance as a file, and answers C-ECHO.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import cast

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from rebrain_node.network.admission import KEPT, PROCESSED, VERIFICATION

_UID = re.compile(r"[0-9.]{1,64}")


class MiniPacs:
    """Listens on a port of 127.0.0.1 while the context is open."""

    def __init__(self, ae_title: str, folder: Path, *, port: int = 0) -> None:
        """Keep instances in ``folder``; port 0 takes a free one."""
        self.ae_title = ae_title
        self._wanted_port = port
        self._folder = folder
        self._changed = threading.Condition()
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """TCP port it listens on.

        Raises
        ------
        RuntimeError
            It is not open.
        """
        if self._server is None:
            raise RuntimeError("the archive is not open")
        return int(self._server.server_address[1])

    def instances(self) -> tuple[Path, ...]:
        """List the files it keeps, one per SOP instance, by name."""
        return tuple(sorted(self._folder.glob("*.dcm")))

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until it keeps at least so many instances; false if it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.instances()) >= count, timeout_s)

    def __enter__(self) -> MiniPacs:
        """Listen."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entity = AE(ae_title=self.ae_title)
        entity.supported_contexts = [
            build_context(uid, list(map(str, AllTransferSyntaxes)))
            for uid in (VERIFICATION, *PROCESSED, *KEPT)
        ]
        self._server = entity.start_server(
            ("127.0.0.1", self._wanted_port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._keep)],
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            for association in server.active_associations:
                association.abort()

    def _keep(self, event: Event) -> int:
        uid = str(cast(C_STORE, event.request).AffectedSOPInstanceUID)
        if _UID.fullmatch(uid) is None:
            return 0x0117
        with self._changed:
            temporary = self._folder / f"{uid}.part"
            temporary.write_bytes(event.encoded_dataset())
            temporary.rename(self._folder / f"{uid}.dcm")
            self._changed.notify_all()
        return 0x0000
