"""Worker 1 of a node that kills itself with SIGKILL right after its N-th committed change.

usage: killed_worker.py CONFIG N [METHOD]

N = 0: it lives. With METHOD, such as Ledger.judge, only the changes that it makes are counted.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from rebrain_node.app.serve import ChildOptions, run_worker
from rebrain_node.settings import load_settings
from rebrain_node.store.database import Database

config, last = Path(sys.argv[1]), int(sys.argv[2])
method = sys.argv[3] if len(sys.argv) > 3 else None
committed = 0
writing = Database.writing


@contextmanager
def counted(self):
    global committed
    with writing(self) as session:
        yield session
    if method is not None and sys._getframe(2).f_code.co_qualname != method:
        return  # frame 0 is this function, 1 the end of its `with` block, 2 who changed something
    committed += 1
    if committed == last:
        os.kill(os.getpid(), signal.SIGKILL)


Database.writing = counted
run_worker(load_settings(config), 1, ChildOptions(config=config), delivers=True)
