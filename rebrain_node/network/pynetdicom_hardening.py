"""All that the node changes in pynetdicom; no other module overrides or reads its private members.

Each change says what happens without it and which issue of github.com/pydicom/pynetdicom knows of
that. ``tests/integration/test_pynetdicom_hardening.py`` takes each away and shows the symptom on
a real socket: a change whose symptom is gone in a newer pynetdicom can be deleted.

Associations that peers request of us are served by ``acceptor``; these are those that we request.
"""

from __future__ import annotations

import logging
import ssl
import threading
from typing import Final

import pynetdicom
from pydicom import config
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from rebrain_node.errors import RebrainError
from rebrain_node.network.tls import TlsSocket

#: the only version whose private members are known to be as this module needs them
TESTED_VERSION: Final = "3.0.4"
if pynetdicom.__version__ != TESTED_VERSION:
    raise RebrainError(
        f"pynetdicom {pynetdicom.__version__} is installed, the node works with pynetdicom "
        f"{TESTED_VERSION} only because it replaces internal parts of it; install that version: "
        f"pip install pynetdicom=={TESTED_VERSION}"
    )

# Without: pynetdicom's log quotes what a patient is called, and costs more than the reading.
# Upstream: #911.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

# Without: each text of an unknown peer's association request that should be a UID, and is no UID,
# is printed on the standard error output and remembered for good by ``warnings``. Upstream: a
# setting of pydicom; UIDs that matter are checked by ``instance.scan`` and ``messages``.
config.settings.reading_validation_mode = config.IGNORE

# Without: a file is decoded and encoded again before it is sent, without its group lengths.
# Upstream: a documented switch.
_config.STORE_SEND_CHUNKED_DATASET = True


class LeakFreeSocket(AssociationSocket):
    """Socket that is closed also when ``shutdown`` fails because the peer closed or reset first."""

    failure: OSError | None = None  #: why there is no TLS
    _connected_once = False

    @property
    def ready(self) -> bool:
        """Whether there is data of the peer.

        Without: a session ticket of TLS 1.3, which is no data, is taken for data, and the thread of
        the state machine waits in ``recv`` without a limit: nothing is sent, and no timeout ends
        the association, as long as the peer is silent. Upstream: no issue known.
        """
        ready = super().ready
        if ready and isinstance(self.socket, TlsSocket):
            return self.socket.has_data()
        return ready

    @property
    def _is_connected(self) -> bool:
        """Whether the connection was made; it may be closed again.

        Without: a rejection that comes before the requesting thread has looked is taken for a
        failed connection, because the DUL thread has closed the socket meanwhile. Upstream: no
        issue known. Whoever asks whether the socket is open looks at ``socket`` too.
        """
        return self._connected_once

    @_is_connected.setter
    def _is_connected(self, connected: bool) -> None:
        self._connected_once = self._connected_once or connected

    def _shutdown_socket(self) -> None:
        """Shut down and close.

        Without: the descriptor stays open until Python collects cyclic garbage. Upstream: #979,
        #806; #999 does not help where ``shutdown`` raises.
        """
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            self.failure = getattr(connection, "failure", None) or self.failure
            connection.close()


class Requestor(AE):
    """Application entity that requests associations through ``LeakFreeSocket``."""

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        """Without: see ``LeakFreeSocket``. Upstream: no way to choose the class."""
        connection = LeakFreeSocket(assoc, address=address)
        connection.tls_args = tls_args
        return connection


class ReactorPause(threading.Event):
    """Keeps the reactor thread of an association that we requested from taking answers.

    Without: the reactor now and then takes an answer that ``send_c_store`` waits for, which then
    ends in a timeout: pynetdicom pauses the reactor for each request (#351, #435), but believes a
    flag of the pause before. Here the pause begins once and lasts until ``end``.
    """

    def __init__(self, association: Association) -> None:
        """Wait until the reactor stands still, or has ended."""
        super().__init__()
        self._reached = threading.Event()
        association._reactor_checkpoint = self  # noqa: SLF001 - no public way
        while not self._reached.wait(0.01) and association.is_alive():
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Stand still: called by the reactor at its checkpoint."""
        self._reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        """Do nothing: called by pynetdicom after each request."""

    def end(self) -> None:
        """Let the reactor go on, to its end."""
        super().set()
