"""Every change to pynetdicom, there and taken away: its symptom is absent, or shows."""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import io
import logging
import re
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pynetdicom
import pytest
from pydicom import config
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import _config, evt
from pynetdicom.presentation import build_context

from rebrain_node.errors import RebrainError, UnreachableError
from rebrain_node.network import association as association_module
from rebrain_node.network import pynetdicom_hardening as hardening
from rebrain_node.network.receiver import file_header
from rebrain_node.network.sender import send_files
from rebrain_node.settings import DestinationSettings, RemoteTlsSettings
from tests.support.certificates import CertificateAuthority
from tests.support.data_sets import ct, element, encode, us
from tests.support.dicom_peers import (
    Listening,
    associate,
    associate_request,
    connect,
    echo,
    instance,
    listening,
    settles,
)

#: how long a check waits for what it hopes for, s: long where the change is there, for a busy
#: machine; short where it is taken away and the wait is expected to be in vain
LONG_S, SHORT_S = 20.0, 2.0

#: how long a thread is held up so that another one surely comes first, s
LATE_S = 0.5

Check = Callable[[Path, float], bool]
TakeAway = Callable[[pytest.MonkeyPatch], object]
CHECKS: dict[str, tuple[Check, TakeAway]] = {}


def change(name: str, take_away: TakeAway | None = None) -> Callable[[Check], Check]:
    """Register the check of one change; taken away by deleting ``Class.member`` by default."""

    def delete(patch: pytest.MonkeyPatch) -> None:
        owner, member = name.split(".")
        patch.delattr(getattr(hardening, owner), member)

    def register(check: Check) -> Check:
        CHECKS[name] = check, take_away or delete
        return check

    return register


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@change("LeakFreeSocket._shutdown_socket")
@change("Requestor._create_socket")
def _a_peer_that_resets_costs_no_descriptor(folder: Path, patience_s: float) -> bool:
    def reset(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    gc.collect()
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            before = descriptors()
            for _ in range(3):
                peer = threading.Thread(target=reset, args=(listener,))
                peer.start()
                associate(listener.getsockname()[1])
                peer.join()
            return settles(lambda: descriptors() <= before, patience_s)
    finally:
        gc.enable()
        gc.collect()


@change("LeakFreeSocket._is_connected")
def _a_quick_rejection_is_one_to_a_late_requestor(folder: Path, patience_s: float) -> bool:
    """The handler keeps the requesting thread busy while the other one takes the answer."""
    with listening(folder) as node:
        entity = hardening.Requestor(ae_title="UNKNOWN-AE")
        association = entity.associate(
            "127.0.0.1",
            node.port,
            contexts=[build_context("1.2.840.10008.1.1")],
            ae_title="REBRAIN",
            evt_handlers=[(evt.EVT_REQUESTED, lambda _: time.sleep(LATE_S))],
        )
        return association.is_rejected


def large_ct(megabytes: int) -> bytes:
    elements = ct(instance="1.2.3.4.1")
    elements[0x00280010], elements[0x00280011] = ("US", us(1000)), ("US", us(500 * megabytes))
    elements[0x7FE00010] = ("OW", bytes(1_000_000 * megabytes))
    return encode(elements)


class NoPause:
    """Leaves the reactor as pynetdicom has it."""

    def __init__(self, association: object) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


@change(
    "ReactorPause._reactor_checkpoint",
    lambda patch: patch.setattr(association_module, "ReactorPause", NoPause),
)
def _only_the_sender_takes_answers(folder: Path, patience_s: float) -> bool:
    readers: set[str] = set()
    with listening(folder) as node:
        destination = destination_of(node)
        contexts = [build_context("1.2.840.10008.1.1")]
        with association_module.associated(destination, "PACS", contexts) as association:
            get_msg = association.dimse.get_msg

            def watched(block: bool = False) -> object:
                readers.add(threading.current_thread().name)
                return get_msg(block)

            association.dimse.get_msg = watched  # type: ignore[method-assign]
            for _ in range(5):
                assert association.send_c_echo().Status == 0x0000
                time.sleep(0.02)  # a reactor that does not stand still reads meanwhile
            return readers == {threading.current_thread().name}


def _associates(destination: DestinationSettings) -> None:
    with (
        contextlib.suppress(UnreachableError),
        association_module.associated(destination, "PACS", [build_context("1.2.840.10008.1.1")]),
    ):
        pass


@change("LeakFreeSocket.ready")
def _a_server_that_is_silent_after_the_handshake_is_given_up(
    folder: Path, patience_s: float
) -> bool:
    authority = CertificateAuthority(folder)
    pair = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    heard = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True):
            heard.wait(LONG_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        destination = DestinationSettings(
            name="node",
            ae_title="REBRAIN",
            host="localhost",
            port=listener.getsockname()[1],
            timeout_s=0.5,
            tls=RemoteTlsSettings(certificate_authority=authority.certificate),
        )
        caller = threading.Thread(target=_associates, args=(destination,), daemon=True)
        caller.start()
        caller.join(patience_s)
        given_up = not caller.is_alive()
        heard.set()
        caller.join(LONG_S)
    return given_up


def destination_of(node: Listening) -> DestinationSettings:
    return DestinationSettings(name="node", ae_title="REBRAIN", host="127.0.0.1", port=node.port)


def _with_the_log_of_pynetdicom(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_config, "LOG_HANDLER_LEVEL", "standard")
    patch.setattr(logging.getLogger("pynetdicom"), "level", logging.DEBUG)


@change("_config.LOG_HANDLER_LEVEL", _with_the_log_of_pynetdicom)
def _nothing_that_a_peer_sends_stands_in_the_log(folder: Path, patience_s: float) -> bool:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    peer_log = logging.getLogger("pynetdicom._handlers")  # what it writes of each PDU and message
    peer_log.addHandler(handler)
    try:
        with listening(folder) as node:
            assert echo(node.port) == 0x0000
    finally:
        peer_log.removeHandler(handler)
    return log.getvalue() == ""


@change(
    "config.settings",
    lambda patch: patch.setattr(config.settings, "reading_validation_mode", config.WARN),
)
def _what_is_no_uid_is_not_printed(folder: Path, patience_s: float) -> bool:
    with listening(folder) as node, warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        with contextlib.closing(connect(node)) as connection:
            connection.sendall(associate_request(abstract_syntax=b"1.2.x"))
            connection.settimeout(LONG_S)
            connection.recv(4096)
    return printed == []


@change(
    "_config.STORE_SEND_CHUNKED_DATASET",
    lambda patch: patch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", False),
)
def _a_file_is_sent_as_it_is(folder: Path, patience_s: float) -> bool:
    data_set = element(0x00080000, "UL", bytes(4)) + instance(1)  # a retired group length
    path = folder / "one.dcm"
    path.write_bytes(file_header(CTImageStorage, "1.2.3.4.1", ExplicitVRLittleEndian) + data_set)
    with listening(folder) as node:
        (sent,) = send_files(destination_of(node), "PACS", [path])
        assert sent.taken, sent.sentence
        (kept,) = node.files()
        return kept.read_bytes().endswith(data_set)


@pytest.mark.parametrize("name", CHECKS)
def test_with_a_change_its_symptom_is_absent(name: str, tmp_path: Path) -> None:
    check, _ = CHECKS[name]
    assert check(tmp_path, LONG_S)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_without_a_change_its_symptom_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, take_away = CHECKS[name]
    take_away(monkeypatch)
    assert not check(tmp_path, SHORT_S), f"{name} can be deleted: pynetdicom does without"


def overrides() -> Iterator[str]:
    """Every member of a class of pynetdicom that the module overrides."""
    for owner, value in vars(hardening).items():
        if inspect.isclass(value) and value.__module__ == hardening.__name__:
            bases = [each for each in value.__mro__ if each.__module__.startswith("pynetdicom")]
            for member in vars(value):
                if not member.startswith("__") and any(hasattr(each, member) for each in bases):
                    yield f"{owner}.{member}"


def test_every_change_has_a_check() -> None:
    source = inspect.getsource(hardening)
    assigned = re.findall(r"\b(?:dul|association|_config)\.(_\w+|[A-Z_]+) = ", source)
    changed = [*overrides(), *assigned]
    assert len(changed) > 3
    checked = {name for key in CHECKS for name in (key, key.split(".")[-1])}
    unchecked = [
        each for each in changed if each not in checked and each.split(".")[0] not in checked
    ]
    assert unchecked == []


def test_no_other_module_changes_pynetdicom() -> None:
    room = Path(hardening.__file__).parent
    for path in room.glob("*.py"):
        if path.name != Path(hardening.__file__).name:
            text = path.read_text(encoding="utf-8")
            assert "SLF001" not in text, path.name
            assert not re.search(r"import .*\b_config\b|class \w+\(.*\b(AE|Association\w*)\)", text)


def test_another_pynetdicom_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "3.1.0")
    with pytest.raises(RebrainError, match=r"pynetdicom 3\.1\.0 is installed.*3\.0\.4"):
        importlib.reload(hardening)
