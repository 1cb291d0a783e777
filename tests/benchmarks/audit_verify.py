"""How fast the audit log is verified and listed.

Run: ``python -m tests.benchmarks.audit_verify [rows]``. Wanted: at least 50 000 rows/s of the whole
check (chain, checkpoints, triggers, facts), a page of the list within 1 s at 1 000 000 rows.
"""

from __future__ import annotations

import resource
import sqlite3
import sys
import time

from rebrain_node.model.keys import make_node_key
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.checkpoints import Checkpoints
from rebrain_node.store.database import Database
from tests.support.long_log import write_long_log
from tests.support.store_cases import fast_folder


def main(rows: int = 100_000, repeats: int = 3) -> None:
    """Print rows a second, the best of a few repeats, wall and CPU time."""
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        write_long_log(database, rows)
        key = make_node_key(folder)
        assert key is not None
        Checkpoints(database, folder).write()
        log = AuditLog(database)
        sys.stdout.write(f"SQLite {sqlite3.sqlite_version}, {rows} rows\n")
        for name, verify in (
            ("chain", log.verify),
            ("chain and facts", AuditCheck(database, folder, [key]).verify),
        ):
            wall, cpu = [], []
            for _ in range(repeats):
                begun, burnt = time.perf_counter(), time.process_time()
                assert verify().intact
                wall.append(time.perf_counter() - begun)
                cpu.append(time.process_time() - burnt)
            sys.stdout.write(
                f"{name}: {rows / min(wall):,.0f} rows/s, "
                f"{rows / min(cpu):,.0f} rows a second of CPU\n"
            )
        for name, options in (
            ("newest page", {}),
            ("page of one event", {"event": "step.completed"}),
            ("page before the middle", {"before": rows // 2}),
            ("page of one subject", {"subject": "1.2.3.1"}),
        ):
            begun = time.perf_counter()
            events = log.events(50, **options)
            sys.stdout.write(
                f"{name}: {len(events)} events in {time.perf_counter() - begun:.3f} s\n"
            )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(f"peak memory {memory:.0f} MB\n")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
