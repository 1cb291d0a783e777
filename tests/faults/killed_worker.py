"""Worker 1 of a node that kills itself with SIGKILL right after its N-th committed change.

usage: killed_worker.py CONFIG N        (N = 0: it lives)
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from rebrain_node.app.serve import run_worker
from rebrain_node.settings import load_settings
from rebrain_node.store.database import Database

config, last = Path(sys.argv[1]), int(sys.argv[2])
committed = 0
writing = Database.writing


@contextmanager
def counted(self):
    global committed
    with writing(self) as session:
        yield session
    committed += 1
    if committed == last:
        os.kill(os.getpid(), signal.SIGKILL)


Database.writing = counted
run_worker(load_settings(config), 1)
