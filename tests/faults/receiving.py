"""A receiver process that faults are tried on, and what it must not lose."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.support.dicom_peers import associate, instance, pause_reactor, send

RECEIVER = "tests.integration.receiver_process"


@contextmanager
def receiving(
    folder: Path, module: str = RECEIVER
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a receiver over the folder, killed in the end; the process and its port."""
    process = subprocess.Popen([sys.executable, "-m", module, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def send_numbered(port: int, numbers: Iterator[int], acknowledged: list[int]) -> list[int]:
    """Send instances over one association until it ends; statuses other than success."""
    association = associate(port)
    others: list[int] = []
    if not association.is_established:
        return others
    pause = pause_reactor(association)
    for number in numbers:
        try:
            status, _ = send(association, instance(number), instance=f"1.2.3.4.{number}")
        except (AssertionError, RuntimeError):
            break
        if status == 0x0000:
            acknowledged.append(number)
        else:
            others.append(status)
    association.abort()
    pause.end()
    return others


def lost(folder: Path, acknowledged: Sequence[int]) -> list[int]:
    """Acknowledged instances that are not held as they were sent; the audit log must be whole."""
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        held = {each.sop_instance_uid: each for each in Ledger(database).instances(study="1.2.3")}
        assert AuditLog(database).verify().intact

    def is_held(number: int) -> bool:
        stored = held.get(f"1.2.3.4.{number}")
        path = folder / "inbox" / stored.path if stored else None
        if stored is None or path is None or not path.is_file():
            return False
        content = path.read_bytes()
        whole = hashlib.sha256(content).hexdigest() == stored.sha256
        return whole and content.endswith(instance(number))

    return [number for number in acknowledged if not is_held(number)]
