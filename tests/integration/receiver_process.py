"""A receiver in a process of its own, over the real ledger; prints its port.

Run: ``... FOLDER [BEAT_S]``. A beat, at which the time of listening is counted, is short here.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from rebrain_node.network.receiver import Receiver
from rebrain_node.reception.inbox import Spool
from rebrain_node.reception.listening import count_listening
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.listening import ListeningClock
from tests.support.dicom_peers import receiver_settings


def main() -> None:
    """Receive until SIGTERM."""
    folder, beat_s = Path(sys.argv[1]), float((*sys.argv, "0.05")[2])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        spool = Spool(folder / "inbox", Ledger(database), hard_mark_bytes=0)
        clock = ListeningClock(database)
        clock.begin()
        with Receiver(receiver_settings(), spool, AuditLog(database), lambda _: False) as receiver:
            sys.stdout.write(f"{receiver.port}\n")
            sys.stdout.flush()
            count_listening(clock, Ledger(database).has_reception, stop, beat_s=beat_s)


if __name__ == "__main__":
    main()
