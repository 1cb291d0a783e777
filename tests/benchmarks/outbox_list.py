"""How fast the outbox is listed and its backlog counted beside a million delivered objects.

Run: ``python -m tests.benchmarks.outbox_list [rows]``. Wanted: at most 1 s each at 1 000 000 rows.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from rebrain_node.store.backlog import Backlog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.store_cases import accept, derived_set, fast_folder, received

#: objects of one set, as of a series of 160 slices
OBJECTS = 166
_COPIES = (
    """INSERT INTO derived_set (id, source_series_uid, study_instance_uid, revision, provenance,
                                created_at)
       WITH RECURSIVE n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < :sets)
       SELECT 1000 + k, source_series_uid, study_instance_uid, 1000 + k, provenance, created_at
       FROM n, derived_set WHERE derived_set.id = 1""",
    """INSERT INTO derived_instance (id, set_id, position, kind, sop_class_uid, sop_instance_uid,
                                     series_instance_uid, sha256, size_bytes)
       WITH RECURSIVE n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < :objects)
       SELECT 1000 + k, 1000 + k / :each, k % :each, 'MR', '1', '2.25.' || k, '1', '0', 1 FROM n""",
    """INSERT INTO delivery (set_id, derived_instance_id, destination, state, attempts, changed_at)
       SELECT set_id, id, 'pacs', 'confirmed', 0, '2026-01-31T12:00:00.000000+00:00'
       FROM derived_instance WHERE id >= 1000""",
)


def fill(database: Database, rows: int) -> None:
    """Copy the set that is there until so many objects are delivered beside it."""
    sets = rows // OBJECTS
    values = {"sets": sets, "objects": sets * OBJECTS, "each": OBJECTS}
    with database.writing() as session:
        for each in _COPIES:
            names = {name: value for name, value in values.items() if f":{name}" in each}
            session.execute(text(each), names)


def main(rows: int = 1_000_000) -> None:
    """Print seconds of each list."""
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        ledger, outbox = Ledger(database), Outbox(database, folder / "outbox")
        ledger.record_received(received(1))
        job = accept(ledger)
        outbox.put(derived_set(job), ["pacs"], job)
        fill(database, rows)
        deliveries, now = Deliveries(database), datetime.now(UTC)
        day = now - timedelta(days=1)
        for name, read in (
            ("open sets (`outbox list`)", deliveries.open),
            ("and unconfirmed ones", lambda: deliveries.open(unconfirmed=True)),
            ("every set (`outbox list --all`)", deliveries.of),
            ("counts (`status`, metrics)", lambda: Backlog(database).counts(day, day)),
        ):
            begun = time.perf_counter()
            found = read()
            seconds = time.perf_counter() - begun
            size = f"{len(found)} sets, " if isinstance(found, tuple) else ""
            sys.stdout.write(f"{name}: {size}{seconds:.3f} s beside {rows} delivered objects\n")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
