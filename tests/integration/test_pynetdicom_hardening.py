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
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pynetdicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.presentation import build_context
from pynetdicom.timer import Timer

from rebrain_node.errors import RebrainError
from rebrain_node.instance.scan import scan_data_set
from rebrain_node.network import association as association_module
from rebrain_node.network import pynetdicom_hardening as hardening
from rebrain_node.network.admission import UnassociatedPool
from rebrain_node.network.receiver import file_of
from rebrain_node.network.sender import send_files
from rebrain_node.settings import DestinationSettings
from tests.support.data_sets import ct, element, encode, us
from tests.support.dicom_peers import (
    Listening,
    associate,
    associated,
    connect,
    echo,
    instance,
    listening,
    raw_association,
    send,
    send_all,
    settles,
    store_request,
)

#: how long a check waits for what it hopes for, s: long where the change is there, for a busy
#: machine; short where it is taken away and the wait is expected to be in vain
LONG_S, SHORT_S = 20.0, 2.0

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


def small_node(folder: Path, **changes: object) -> contextlib.AbstractContextManager[Listening]:
    values = {"maximum_unassociated_per_address": 4, "maximum_unassociated": 12}
    return listening(folder, **(values | changes))


def first_byte(connection: socket.socket, patience_s: float) -> int | None:
    """Kind of the next PDU, 0 where the peer closed the connection, None where it is silent."""
    connection.settimeout(patience_s)
    try:
        return (connection.recv(1) or b"\0")[0]
    except TimeoutError:
        return None
    except ConnectionError:
        return 0


@change("MonotonicTimer", lambda patch: patch.setattr(hardening, "MonotonicTimer", Timer))
def _the_wall_clock_set_forward_aborts_no_association(folder: Path, patience_s: float) -> bool:
    with small_node(folder) as node, associated(node.port) as association:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pynetdicom.timer.time", SimpleNamespace(time=lambda: time.time() + 3600))
            settles(association.acse.is_aborted, 0.5)
        return not association.acse.is_aborted()


@change(
    "GuardedHandler._idle_timer",
    lambda patch: patch.setattr(hardening, "MonotonicTimer", lambda _: Timer(None)),
)
def _a_silent_association_is_aborted(folder: Path, patience_s: float) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rebrain_node.network.receiver.IDLE_TIMEOUT_S", 0.5)
        with small_node(folder) as node:
            return first_byte(raw_association(node), patience_s) == 7  # A-ABORT


@change(
    "WakingQueue.put",
    lambda patch: patch.delattr(hardening.WakingQueue, "put"),
)
def _an_answer_ends_the_wait_for_the_peer(folder: Path, patience_s: float) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardening, "WAIT_S", 3.0)
        with small_node(folder) as node:
            begun = time.monotonic()
            raw_association(node)
            return time.monotonic() - begun < 2.0


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


@change("GuardedSocket.ready")
def _a_sender_that_does_not_wait_is_held_up(folder: Path, patience_s: float) -> bool:
    """Buffers of the kernel hold some 10 MB; a node that reads on takes all of 60 MB."""
    served = threading.Event()
    with small_node(folder) as node, pytest.MonkeyPatch.context() as patch:
        record = node.ledger.record_received
        patch.setattr(
            node.ledger, "record_received", lambda *found: served.wait(60) and record(*found)
        )
        connection = raw_association(node)
        message = store_request(large_ct(megabytes=1))
        taken = send_all(connection, 60 * message, 2.0)
        served.set()
        return taken < 30 * len(message)


def large_ct(megabytes: int) -> bytes:
    elements = ct(instance="1.2.3.4.1")
    elements[0x00280010], elements[0x00280011] = ("US", us(1000)), ("US", us(500 * megabytes))
    elements[0x7FE00010] = ("OW", bytes(1_000_000 * megabytes))
    return encode(elements)


@change("GuardedSocket.recv")
def _a_pdu_that_stalls_or_claims_gigabytes_is_cut(folder: Path, patience_s: float) -> bool:
    with small_node(folder, pdu_timeout_s=0.5) as node:
        stalling, claiming = raw_association(node), raw_association(node)
        stalling.sendall(struct.pack(">BBI", 4, 0, 1000) + bytes(10))
        claiming.sendall(struct.pack(">BBI", 4, 0, 0xFFFFFFF0))
        cut = first_byte(stalling, patience_s), first_byte(claiming, patience_s)
        return None not in cut


@change("GuardedSocket._shutdown_socket")
def _a_connection_that_ends_takes_its_threads_along(folder: Path, patience_s: float) -> bool:
    with small_node(folder, association_timeout_s=4.0) as node:
        before = threading.active_count()
        connection = connect(node)
        settles(lambda: threading.active_count() > before, patience_s)
        begun = time.monotonic()
        connection.close()
        settles(lambda: threading.active_count() <= before, 3.0)
        return time.monotonic() - begun < 3.0


@change("GuardedDimse.receive_primitive")
def _a_message_without_end_is_cut(folder: Path, patience_s: float) -> bool:
    with small_node(folder, maximum_message_bytes=2_000_000) as node:
        fragment = struct.pack(">BBIIBB", 4, 0, 65536, 65532, 1, 0) + bytes(65530)
        return send_all(raw_association(node), 600 * fragment, 5.0) < 400 * len(fragment)


@change("GuardedDimse.get_msg")
def _a_request_without_instance_uid_is_answered(folder: Path, patience_s: float) -> bool:
    with small_node(folder) as node, associated(node.port) as association:
        association.dimse_timeout = patience_s
        try:
            status, comment = send(association, instance(1), instance=None)
        except AssertionError:
            return False
        return status == 0xC110 and comment.startswith("INCOMPLETE-COMMAND")


@change("GuardedHandler._create_association")
def _the_node_answers(folder: Path, patience_s: float) -> bool:
    with small_node(folder) as node:
        try:
            return echo(node.port) == 0x0000
        except (AssertionError, ValueError):
            return False


def _with_the_delay_of_pynetdicom(patch: pytest.MonkeyPatch) -> None:
    create = hardening.GuardedHandler._create_association

    def with_delay(handler: hardening.GuardedHandler) -> object:
        association = create(handler)
        association.dul._run_loop_delay = 0.001
        return association

    patch.setattr(hardening.GuardedHandler, "_create_association", with_delay)


@change("GuardedHandler._run_loop_delay", _with_the_delay_of_pynetdicom)
def _no_thread_of_the_node_sleeps(folder: Path, patience_s: float) -> bool:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        thread = threading.current_thread()
        if thread.assoc.is_acceptor:  # type: ignore[attr-defined]
            slept.append(seconds)
        time.sleep(seconds)

    with small_node(folder) as node, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pynetdicom.dul.time", SimpleNamespace(sleep=sleep))
        connection = raw_association(node)
        connection.close()
        return max(slept) == 0.0


@change("GuardedServer.request_queue_size")
def _connections_that_come_at_once_are_not_dropped(folder: Path, patience_s: float) -> bool:
    accept = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnassociatedPool, "make_room", lambda *_: accept.wait(60) and None)
        with small_node(folder) as node, contextlib.ExitStack() as opened:
            try:
                for _ in range(20):
                    address = ("127.0.0.1", node.port)
                    opened.enter_context(socket.create_connection(address, 0.5))
            except TimeoutError:
                return False
            finally:
                accept.set()
    return True


def _with_all_contexts(patch: pytest.MonkeyPatch) -> None:
    make = hardening.GuardedServer.__init__

    def with_contexts(server: hardening.GuardedServer, *values: object, **names: object) -> None:
        make(server, *values, **names)
        server.contexts = server.offered

    patch.setattr(hardening.GuardedServer, "__init__", with_contexts)


@change("GuardedServer.contexts", _with_all_contexts)
def _a_connection_copies_no_context(folder: Path, patience_s: float) -> bool:
    copied: list[int] = []
    with small_node(folder) as node, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pynetdicom.transport.deepcopy", lambda found: copied.append(len(found)) or list(found)
        )
        assert echo(node.port) == 0x0000
    return copied == [0]


@change("GuardedServer.verify_request")
def _silent_connections_have_a_bounded_number_of_threads(folder: Path, patience_s: float) -> bool:
    with small_node(folder) as node, contextlib.ExitStack() as opened:
        before = threading.active_count()
        for _ in range(20):
            opened.enter_context(socket.create_connection(("127.0.0.1", node.port)))
        assert echo(node.port) == 0x0000, "all of them are accepted"
        return settles(lambda: threading.active_count() - before <= 2 * 4 + 2, patience_s)


@change("GuardedServer.handle_error")
def _a_failure_goes_to_the_log(folder: Path, patience_s: float) -> bool:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(printed):
        patch.setattr(UnassociatedPool, "add", fail)
        with small_node(folder) as node:
            first_byte(connect(node), LONG_S)
    return printed.getvalue() == ""


@change("GuardedServer.shutdown")
def _the_end_of_the_node_is_the_end_of_its_associations(folder: Path, patience_s: float) -> bool:
    try:
        with small_node(folder) as node:
            connection = raw_association(node)
            node.receiver.stop()
            return first_byte(connection, patience_s) is not None
    except ValueError:
        return False


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
    with small_node(folder) as node:
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
        with small_node(folder) as node:
            assert echo(node.port) == 0x0000
    finally:
        peer_log.removeHandler(handler)
    return log.getvalue() == ""


@change(
    "_config.STORE_SEND_CHUNKED_DATASET",
    lambda patch: patch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", False),
)
def _a_file_is_sent_as_it_is(folder: Path, patience_s: float) -> bool:
    data_set = element(0x00080000, "UL", bytes(4)) + instance(1)  # a retired group length
    path = folder / "one.dcm"
    path.write_bytes(file_of(data_set, scan_data_set(data_set, ExplicitVRLittleEndian)))
    with small_node(folder) as node:
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
    assert len(changed) > 15
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
            assert not re.search(r"import .*\b_config\b|class \w+\(.*(AE|Association\w*)\)", text)


def test_another_pynetdicom_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "3.1.0")
    with pytest.raises(RebrainError, match=r"pynetdicom 3\.1\.0 is installed.*3\.0\.4"):
        importlib.reload(hardening)
