"""Opening an association as requestor, with refusals that a PACS administrator understands.

Speed: a peer with Nagle's algorithm on (the default of dcmtk and Orthanc) writes its C-STORE
response in two pieces and holds the second back until the first is acknowledged, which our
kernel delays by 40 ms; so TCP_QUICKACK is armed again after each PDU we send and receive.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from rebrain_node.errors import DeliveryError, SettingsError, UnreachableError
from rebrain_node.network.certificates import PeerCertificate
from rebrain_node.network.pynetdicom_hardening import (
    LeakFreeSocket,
    ReactorPause,
    Requestor,
)
from rebrain_node.network.tls import fault_of, remote_context, words_of
from rebrain_node.settings import DicomRemote

#: what a rejection asks the administrator to do (PS3.8 table 9-21, result source and reason)
_REJECTIONS = {
    (1, 2): "the application context is not supported",
    (1, 3): "it does not know our AE title {calling}: add it there",
    (1, 7): "it does not answer to AE title {called}: correct ae_title of this {role}",
    (2, 2): "the protocol version is not supported",
    (3, 1): "it is busy: nothing to do, it is tried again",
    (3, 2): "it has too many associations: nothing to do, it is tried again",
}
#: most presentation contexts one association can have (PS3.8 section 9.3.2.2: odd ids to 255)
MAXIMUM_CONTEXTS = 128


def describe(destination: DicomRemote) -> str:
    """Name a destination or source in messages: name, AE title, host and port."""
    where = f"{destination.ae_title}@{destination.host}:{destination.port}"
    return f"{destination.role} {destination.name} ({where})"


@contextmanager
def associated(
    destination: DicomRemote,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[EventHandlerType] = (),
    linger: Callable[[], object] | None = None,
) -> Iterator[Association]:
    """Associate with the destination; released, or aborted on an error, when the block ends.

    Parameters
    ----------
    roles : sequence of SCP_SCU_RoleSelectionNegotiation
        Roles other than SCU, e.g. to be sent the instances of a C-GET.
    handlers : sequence
        Pairs of an event of pynetdicom and the function that handles it.
    linger : callable, optional
        Called before the release, while requests of the peer are handled.

    Raises
    ------
    UnreachableError
        No connection, no TLS, no answer in time, a rejection, or a file of its ``tls`` cannot be
        used; the text says which and what to do.
    DeliveryError
        More presentation contexts are needed than an association takes.
    """
    if len(contexts) > MAXIMUM_CONTEXTS:
        raise DeliveryError(
            f"{len(contexts)} presentation contexts are needed, an association takes "
            f"{MAXIMUM_CONTEXTS}; send fewer kinds of instances at once"
        )
    entity = Requestor(ae_title=calling_ae_title)
    entity.connection_timeout = destination.timeout_s
    entity.acse_timeout = destination.timeout_s
    entity.dimse_timeout = destination.timeout_s
    entity.network_timeout = destination.timeout_s
    association = entity.associate(
        _address(destination),
        destination.port,
        contexts=list(contexts),
        ae_title=destination.ae_title,
        ext_neg=list(roles),
        tls_args=_tls(destination),
        evt_handlers=[
            (evt.EVT_CONN_OPEN, _send_at_once),
            (evt.EVT_DATA_SENT, _acknowledge_at_once),
            (evt.EVT_DATA_RECV, _acknowledge_at_once),
            *handlers,
        ],
    )
    if not association.is_established:
        raise UnreachableError(_why_not(association, destination, calling_ae_title))
    pause = ReactorPause(association)
    finished = False
    try:
        yield association
        if linger is not None:
            pause.end()
            linger()
            _stop_answering(association)
        finished = True
    except DeliveryError:
        finished = True  # the peer answered, only not what was hoped for
        raise
    finally:
        if is_open(association):
            association.release() if finished else association.abort()
        pause.end()
        association.join(destination.timeout_s)


def certificate_end(destination: DicomRemote) -> datetime:
    """Agree on TLS and close; when the certificate that is shown ends (aware, UTC).

    Raises
    ------
    UnreachableError
        There is no connection, or no TLS.
    """
    context, name = _tls(destination) or (None, "")
    if context is None:
        raise UnreachableError(f"{describe(destination)} is reached without TLS")
    address = (_address(destination), destination.port)
    try:
        with (
            socket.create_connection(address, timeout=destination.timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            return PeerCertificate.of(secured.getpeercert(binary_form=True) or b"").ends
    except OSError as error:
        raise UnreachableError(f"{describe(destination)}: {_no_tls(error)}") from error


def is_open(association: Association) -> bool:
    """Whether the peer has neither aborted the association nor closed the connection."""
    return association.is_established and not association.acse.is_aborted()


def _stop_answering(association: Association) -> None:
    """Leave a request without a response that crosses our release.

    A response is no longer allowed then (PS3.8 table 9-10, Evt9 in Sta7), and the thread of
    pynetdicom's state machine would end by it with the connection open.
    """
    setattr(association.dimse, "send_msg", lambda *_: None)  # noqa: B010 - a method is replaced


def _address(destination: DicomRemote) -> str:
    """Resolve the host, so that a name that is not known is said as such.

    Raises
    ------
    UnreachableError
        The name service does not know the host.
    """
    try:
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnreachableError(
            f"{describe(destination)}: the host is not known ({error.strerror}); "
            f"correct host of this {destination.role}, or the name service"
        ) from error
    return str(found[0][4][0])


def _tls(destination: DicomRemote) -> tuple[ssl.SSLContext, str] | None:
    """Context of TLS, and the name that the certificate must carry.

    Raises
    ------
    UnreachableError
        A file of its settings cannot be used.
    """
    tls = destination.tls
    if tls is None:
        return None
    try:
        return remote_context(tls), tls.host_name or destination.host
    except SettingsError as error:
        raise UnreachableError(f"{describe(destination)}: {error}") from error


def _no_tls(failure: OSError) -> str:
    if isinstance(failure, ssl.SSLError):
        return fault_of(failure)
    return f"TLS was not agreed on ({words_of(failure)}); check that it expects TLS on this port"


def _send_at_once(event: Event) -> None:
    _set_option(event, socket.TCP_NODELAY)
    _set_option(event, socket.TCP_QUICKACK)


def _acknowledge_at_once(event: Event) -> None:
    _set_option(event, socket.TCP_QUICKACK)


def _set_option(event: Event, option: int) -> None:
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        try:
            transport.socket.setsockopt(socket.IPPROTO_TCP, option, 1)
        except OSError:
            return  # the peer has just closed: the next read fails


def _why_not(association: Association, destination: DicomRemote, calling: str) -> str:
    where = describe(destination)
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = "it gives no reason: ask its administrator"
        if answer.result_source is not None and answer.diagnostic is not None:
            reason = _REJECTIONS.get((answer.result_source, answer.diagnostic), reason)
        said = reason.format(calling=calling, called=destination.ae_title, role=destination.role)
        return f"{where} rejected the association ({answer.result_str}): {said}"
    refused = sorted({UID(str(c.abstract_syntax)).name for c in association.rejected_contexts})
    if refused:
        return f"{where} accepts none of {', '.join(refused)}; allow these SOP classes there"
    transport = association.dul.socket
    if isinstance(transport, LeakFreeSocket) and transport.failure is not None:
        return f"{where}: {_no_tls(transport.failure)}"
    try:
        address = (_address(destination), destination.port)
        socket.create_connection(address, timeout=destination.timeout_s).close()
    except OSError as error:
        reason = error.strerror or f"no connection within {destination.timeout_s:g} s"
        return (
            f"{where}: {reason}; check host and port of this {destination.role}, that it runs, and "
            "the firewall between"
        )
    return (
        f"{where} takes connections but did not answer the association request within "
        f"{destination.timeout_s:g} s; check that a DICOM storage service listens there "
        f"and whether it expects {'plain DICOM' if destination.tls is not None else 'TLS'}"
    )
