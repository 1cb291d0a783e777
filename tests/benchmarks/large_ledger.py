"""A node beside many received instances: rate of reception, start, and `queue list`.

usage: python -m tests.benchmarks.large_ledger [--instances N]

With SQLite, and with PostgreSQL where it is installed. The instances are those of published series,
with their rows of the audit log. Wanted at 1 000 000: reception within 10 % of that beside none, a
start within 10 s, `queue list` within 1 s. Reception is that of the ledger alone, one instance in
each transaction, alternately beside none and beside all, the best of five.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.support.long_log import write_long_log
from tests.support.postgres import Cluster, running_cluster
from tests.support.quick_node import make_node, run, write_quick_bundle
from tests.support.store_cases import received

#: instances in each measurement of reception
RECEIVED = 200
ROUNDS = 5
_CONTINUE_IDS = "SELECT setval(pg_get_serial_sequence('instance', 'id'), max(id)) FROM instance"


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def fill(url: str, instances: int) -> None:
    """Write instances of published series, and what the audit log tells of them."""
    with Database.open(url) as database:
        write_long_log(database, instances * 10 // 9)
        with database.writing() as session:
            session.execute(text("UPDATE series SET state = 'published'"))
            session.execute(text("UPDATE study SET state = 'judged'"))
            if database.is_shared:  # the rows were written with their ids
                session.execute(text(_CONTINUE_IDS))


def reception(database: Database, study: str) -> float:
    """Instances of a new series that the ledger takes in a second."""
    ledger = Ledger(database)
    ledger.record_received(received(0, f"{study}.1", study))
    began = time.perf_counter()
    for n in range(1, RECEIVED + 1):
        ledger.record_received(received(n, f"{study}.1", study))
    return RECEIVED / (time.perf_counter() - began)


def measure(folder: Path, kind: str, empty: str, full: str) -> None:
    """Print the figures of one kind of database."""
    with closing(Database.open(empty)) as none, closing(Database.open(full)) as many:
        rates = [(reception(none, f"1.3.{n}"), reception(many, f"1.3.{n}")) for n in range(ROUNDS)]
        alone, beside = (max(each) for each in zip(*rates, strict=True))
        say(f"{kind}: reception {alone:.0f}/s beside none, {beside:.0f}/s: {beside / alone:.1%}")
        began = time.perf_counter()
        listed = Ledger(many).series()
        say(f"{kind}: {len(listed)} series read in {time.perf_counter() - began:.2f} s")
    node = make_node(folder, write_quick_bundle(folder / "quick"), "PACS", 104)
    url = f'[storage]\ndatabase_url = "{full}"\n'
    node.config.write_text(node.config.read_text().replace("[storage]", url))
    began = time.perf_counter()
    with node.running():
        say(f"{kind}: ready after {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    answer = run("queue", "list", "--config", node.config)
    assert answer.returncode == 0, answer.stderr
    say(f"{kind}: `queue list` as a command in {time.perf_counter() - began:.2f} s")


def databases(folder: Path, cluster: Cluster | None) -> dict[str, tuple[str, str]]:
    """URLs of an empty database and of one to be filled, of each kind."""
    (folder / "empty").mkdir()
    files = [f"sqlite:///{folder}/{name}node.sqlite" for name in ("empty/", "")]
    found = {"sqlite": (files[0], files[1])}
    if cluster is not None:
        found["postgresql"] = (cluster.new_database(), cluster.new_database())
    return found


def main() -> None:
    """Measure with every kind of database."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=1_000_000)
    instances = parser.parse_args().instances
    with tempfile.TemporaryDirectory() as place, running_cluster() as cluster:
        for kind, (empty, full) in databases(Path(place), cluster).items():
            folder = Path(place) / kind
            folder.mkdir()
            began = time.perf_counter()
            fill(full, instances)
            say(f"{kind}: {instances} instances written in {time.perf_counter() - began:.0f} s")
            measure(folder, kind, empty, full)


if __name__ == "__main__":
    main()
