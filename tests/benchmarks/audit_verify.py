"""How fast the audit chain is verified: rows a second, median of repeats.

Run: ``python -m tests.benchmarks.audit_verify [rows]``. Wanted: at least 50 000 rows/s.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import time

from rebrain_node.domain.audit import Event
from rebrain_node.store.audit import AuditLog, append
from rebrain_node.store.database import Database
from tests.support.store_cases import fast_folder, received


def main(rows: int = 100_000, repeats: int = 5) -> None:
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        one = received(1)
        begun = time.perf_counter()
        with database.writing() as session:
            for n in range(rows):
                append(
                    session,
                    Event.INSTANCE_RECEIVED,
                    one.sop_instance_uid,
                    {
                        "ledger_id": n,
                        "series": one.series_instance_uid,
                        "study": one.study_instance_uid,
                        "sha256": one.sha256,
                        "size_bytes": one.size_bytes,
                        "calling_ae_title": one.calling_ae_title,
                    },
                )
        written = rows / (time.perf_counter() - begun)
        log, seconds = AuditLog(database), []
        for _ in range(repeats):
            begun = time.perf_counter()
            assert log.verify().intact
            seconds.append(time.perf_counter() - begun)
    sys.stdout.write(
        f"SQLite {sqlite3.sqlite_version}, {rows} rows: verified "
        f"{rows / statistics.median(seconds):,.0f} rows/s (median of {repeats}; slowest "
        f"{rows / max(seconds):,.0f}), appended {written:,.0f} rows/s in one transaction\n"
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
