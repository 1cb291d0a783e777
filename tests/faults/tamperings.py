"""Tampers with the database of a node at random, and counts what `audit verify` finds.

Run: ``python -m tests.faults.tamperings N SEED``. Each tampering is done to a copy of
a node that has lived, by somebody who may write to its database and folder and does not have
``audit.key``; the site has a copy of ``audit.pub`` and the reports that the PACS holds. Only what
somebody else has witnessed is tampered with: nobody can prove what came after the newest report
that left the machine.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from rebrain_node.app.anchors import compare_reports, read_anchors
from rebrain_node.domain.audit import Checkpoint
from rebrain_node.errors import RebrainError
from rebrain_node.model.keys import (
    PRIVATE_FILE,
    PUBLIC_FILE,
    make_node_key,
    node_key,
    read_key_file,
    sign_statement,
)
from rebrain_node.store.audit import GENESIS
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.audit_facts import COMPARED
from rebrain_node.store.checkpoints import WITNESS_FILE
from rebrain_node.store.database import Database
from rebrain_node.store.triggers import POSTGRESQL, SQLITE
from tests.support.audited_node import COPIES, DATABASE, REPORTS, audited_node
from tests.support.store_cases import fast_folder

COLUMNS = ("recorded_at", "monotonic_ns", "event", "subject", "details", "hash")


@dataclass
class Case:
    """One copy of the node, to be tampered with."""

    rng: random.Random
    folder: Path
    url: str
    anchored: int  #: sequence of the newest row that a report in the PACS names

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @contextmanager
    def unlocked(self) -> Iterator[Connection]:
        """The database without its triggers, which stand again afterwards as if nothing was."""
        engine = create_engine(make_url(self.url).set(drivername=_driver(self.url)))
        with engine.begin() as connection:
            if self.is_sqlite:
                for name in SQLITE:
                    connection.execute(text(f"DROP TRIGGER {name}"))
            else:
                connection.execute(text("SET session_replication_role = replica"))
            yield connection
            if self.is_sqlite:
                for statement in SQLITE.values():
                    connection.exec_driver_sql(statement)
        engine.dispose()

    def row(self, last: int) -> int:
        return self.rng.randint(1, last)


def _driver(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"


def _log(connection: Connection) -> list[dict[str, Any]]:
    query = text("SELECT * FROM audit_event ORDER BY sequence")
    return [dict(row) for row in connection.execute(query).mappings()]


def _put(connection: Connection, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def _rewrite(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write the log anew with a chain that is whole, head included."""
    connection.execute(text("DELETE FROM audit_event"))
    previous = GENESIS
    for sequence, row in enumerate(rows, 1):
        names = ("recorded_at", "monotonic_ns", "event", "subject", "details")
        array = json.dumps([sequence, *(row[n] for n in names)], separators=(",", ":"))
        previous = hashlib.sha256((previous + array).encode()).hexdigest()
        _put(connection, "audit_event", {**row, "sequence": sequence, "hash": previous})
    connection.execute(
        text("UPDATE audit_head SET sequence = :s, hash = :h"), {"s": len(rows), "h": previous}
    )


def _other(rng: random.Random, value: Any) -> Any:
    """Another value of the same kind."""
    if value is None:
        return "2026-01-01T00:00:00.000000+00:00"
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 1000))
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return _other_text(rng, str(value))
    hours = rng.choice((-1, 1)) * rng.randint(1, 1000)
    return (moment + timedelta(hours=hours)).isoformat(timespec="microseconds")


def _other_text(rng: random.Random, words: str) -> str:
    """Change a letter, or add one to an empty text."""
    place = rng.randrange(len(words)) if words else 0
    letters = [each for each in "0123456789abcdefX" if each != words[place : place + 1]]
    return words[:place] + rng.choice(letters) + words[place + 1 :]


def change_a_column_of_the_log(case: Case) -> None:
    with case.unlocked() as connection:
        row, column = case.rng.choice(_log(connection)), case.rng.choice(COLUMNS)
        value = _other(case.rng, row[column])
        connection.execute(
            text(f"UPDATE audit_event SET {column} = :v WHERE sequence = :s"),
            {"v": value, "s": row["sequence"]},
        )


def delete_a_row_of_the_log(case: Case) -> None:
    with case.unlocked() as connection:
        row = case.rng.choice(_log(connection))
        connection.execute(
            text("DELETE FROM audit_event WHERE sequence = :s"), {"s": row["sequence"]}
        )


def swap_two_rows_of_the_log(case: Case) -> None:
    with case.unlocked() as connection:
        one, other = case.rng.sample(_log(connection), 2)
        _exchange(connection, "audit_event", "sequence", one["sequence"], other["sequence"])


def _exchange(connection: Connection, table: str, column: str, one: int, other: int) -> None:
    for old, new in ((one, -1), (other, one), (-1, other)):
        connection.execute(
            text(f"UPDATE {table} SET {column} = :new WHERE {column} = :old"),
            {"old": old, "new": new},
        )


def add_a_row_to_the_log(case: Case) -> None:
    with case.unlocked() as connection:
        rows = _log(connection)
        _put(connection, "audit_event", {**case.rng.choice(rows), "sequence": len(rows) + 1})


def change_the_head(case: Case) -> None:
    with case.unlocked() as connection:
        column = case.rng.choice(("sequence", "hash"))
        value = connection.execute(text(f"SELECT {column} FROM audit_head")).scalar()
        connection.execute(
            text(f"UPDATE audit_head SET {column} = :v"), {"v": _other(case.rng, value)}
        )


def write_the_log_again(case: Case) -> None:
    """Change, remove, add or exchange rows and compute the whole chain anew."""
    with case.unlocked() as connection:
        _rewrite(connection, _changed(case, _log(connection)))


def _changed(case: Case, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    place = case.row(case.anchored) - 1
    what = case.rng.choice(("change", "remove", "add", "exchange", "backdate"))
    if what == "change":
        rows[place]["details"] = json.dumps({"made_up": case.rng.random()})
    elif what == "remove":
        del rows[place]
    elif what == "add":
        rows.insert(place, {**rows[place], "subject": "1.2.3"})
    elif what == "exchange":
        after = rows[place + 1]
        rows[place], rows[place + 1] = after, rows[place]
        if all(rows[place][n] == rows[place + 1][n] for n in COLUMNS[:-1]):
            del rows[place]
    else:
        rows[place]["recorded_at"] = _other(case.rng, rows[place]["recorded_at"])
    return rows


def write_the_log_again_without_checkpoints(case: Case) -> None:
    """The same, and remove the checkpoints that show it; or all of them, with their file."""
    with case.unlocked() as connection:
        rows = _log(connection)
        before = [row["hash"] for row in rows]
        _rewrite(connection, _changed(case, rows))
        after = [row["hash"] for row in _log(connection)]
        same = next(
            (n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]),
            min(len(before), len(after)),
        )
        keep = case.rng.choice((0, same))
        connection.execute(text("DELETE FROM audit_checkpoint WHERE sequence > :s"), {"s": keep})
    if case.rng.random() < 0.5:
        _cut_witness(case, keep)


def _cut_witness(case: Case, keep: int) -> None:
    path = case.folder / WITNESS_FILE
    lines = [x for x in path.read_text().splitlines(True) if json.loads(x)["sequence"] <= keep]
    path.write_text("".join(lines))


def write_the_log_again_with_another_key(case: Case) -> None:
    """The same, sign all checkpoints with a new key, and put that in the place of the node's."""
    (case.folder / PRIVATE_FILE).unlink()
    (case.folder / PUBLIC_FILE).unlink()
    public = make_node_key(case.folder)
    key = node_key(case.folder)
    with case.unlocked() as connection:
        _rewrite(connection, _changed(case, _log(connection)))
        hashes = {row["sequence"]: row["hash"] for row in _log(connection)}
        query = text("SELECT * FROM audit_checkpoint ORDER BY number")
        signed = []
        for row in connection.execute(query).mappings().all():
            digest = hashes.get(row["sequence"], row["hash"])
            made = {**row, "hash": digest, "key": public, "signature": ""}
            made["signature"] = sign_statement(Checkpoint(**made).statement, key)
            signed.append(made)
        connection.execute(text("DELETE FROM audit_checkpoint"))
        for made in signed:
            _put(connection, "audit_checkpoint", made)
    lines = "".join(json.dumps(made, separators=(",", ":")) + "\n" for made in signed)
    (case.folder / WITNESS_FILE).write_text(lines)


def cut_the_tail(case: Case) -> None:
    """Remove the newest rows and let head, and perhaps checkpoints and file, agree."""
    with case.unlocked() as connection:
        keep = case.row(case.anchored) - 1
        _rewrite(connection, _log(connection)[:keep])
        if case.rng.random() < 0.7:
            connection.execute(
                text("DELETE FROM audit_checkpoint WHERE sequence > :s"), {"s": keep}
            )
    if case.rng.random() < 0.5:
        _cut_witness(case, keep)


def put_an_old_copy_back(case: Case) -> None:
    """Put the database, and perhaps its witness, of an earlier time back (SQLite)."""
    if not case.is_sqlite:
        cut_the_tail(case)
        return
    copy = case.folder / COPIES / case.rng.choice(("early", "late"))
    for leftover in case.folder.glob(f"{DATABASE}-*"):
        leftover.unlink()
    shutil.copy2(copy / DATABASE, case.folder / DATABASE)
    if case.rng.random() < 0.7:
        shutil.copy2(copy / WITNESS_FILE, case.folder / WITNESS_FILE)


def change_a_checkpoint(case: Case) -> None:
    with case.unlocked() as connection:
        row = _a_checkpoint(case, connection)
        column = case.rng.choice(("kind", "sequence", "hash", "signed_at", "key", "signature"))
        value = "seal" if column == "kind" else _other(case.rng, row[column])
        connection.execute(
            text(f"UPDATE audit_checkpoint SET {column} = :v WHERE number = :n"),
            {"v": value, "n": row["number"]},
        )


def _a_checkpoint(case: Case, connection: Connection) -> dict[str, Any]:
    rows = connection.execute(text("SELECT * FROM audit_checkpoint")).mappings().all()
    return dict(case.rng.choice(rows))


def delete_a_checkpoint(case: Case) -> None:
    with case.unlocked() as connection:
        row = _a_checkpoint(case, connection)
        sign = case.rng.choice(("=", ">=", "<="))
        connection.execute(
            text(f"DELETE FROM audit_checkpoint WHERE number {sign} :n"), {"n": row["number"]}
        )


def add_a_checkpoint(case: Case) -> None:
    with case.unlocked() as connection:
        row = _a_checkpoint(case, connection)
        count = connection.execute(text("SELECT count(*) FROM audit_checkpoint")).scalar() or 0
        _put(connection, "audit_checkpoint", {**row, "number": count + 1})


def seal_and_remove_rows(case: Case) -> None:
    """Pretend that retention removed the first rows."""
    with case.unlocked() as connection:
        last = case.row(case.anchored)
        rows = _log(connection)
        row = _a_checkpoint(case, connection)
        count = connection.execute(text("SELECT count(*) FROM audit_checkpoint")).scalar() or 0
        row.update(number=count + 1, kind="seal", sequence=last, hash=rows[last - 1]["hash"])
        _put(connection, "audit_checkpoint", row)
        connection.execute(text("DELETE FROM audit_event WHERE sequence <= :s"), {"s": last})


def change_the_file_of_checkpoints(case: Case) -> None:
    path = case.folder / WITNESS_FILE
    lines = path.read_text().splitlines(keepends=True)
    what = case.rng.choice(("remove", "cut", "byte", "double"))
    if what == "remove":
        path.unlink()
    elif what == "cut":
        path.write_text("".join(lines[: case.rng.randrange(len(lines) - 1)]))
    elif what == "byte":
        content = bytearray(path.read_bytes())
        places = [n for n, byte in enumerate(content) if byte not in b"\n"]
        place = case.rng.choice(places)
        content[place] ^= 1 << case.rng.randrange(3)
        path.write_bytes(bytes(content))
    else:
        fields = json.loads(case.rng.choice(lines))
        fields["number"] = len(lines) + 1
        path.write_text("".join([*lines, json.dumps(fields) + "\n"]))


def change_a_trigger(case: Case) -> None:
    engine = create_engine(make_url(case.url).set(drivername=_driver(case.url)))
    with engine.begin() as connection:
        what = case.rng.choice(("drop", "empty", "add"))
        if case.is_sqlite:
            name = case.rng.choice(list(SQLITE))
            table = "audit_event" if "event" in name else "audit_checkpoint"
            if what != "add":
                connection.execute(text(f"DROP TRIGGER {name}"))
            if what == "empty":
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} BEGIN SELECT 1; END"
                )
            if what == "add":
                connection.exec_driver_sql(
                    "CREATE TRIGGER made_up AFTER INSERT ON delivery BEGIN "
                    "UPDATE delivery SET state = 'confirmed'; END"
                )
        else:
            name, table, *_ = case.rng.choice(POSTGRESQL)
            statement = {
                "drop": f"DROP TRIGGER {name} ON {table}",
                "empty": f"ALTER TABLE {table} DISABLE TRIGGER {name}",
                "add": (
                    "CREATE OR REPLACE FUNCTION audit_event_append_only() RETURNS trigger "
                    "LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
                ),
            }[what]
            connection.execute(text(statement))
    engine.dispose()


#: values of a column that can be told from the others, where a changed letter is not enough
_STATES = {
    "series": ("receiving", "complete", "held", "refused", "accepted", "published", "failed"),
    "delivery": ("pending", "held", "taken", "unverified", "confirmed", "refused", "cancelled"),
}


def change_a_fact(case: Case) -> None:
    """Change one column that the log tells of, in one row."""
    with case.unlocked() as connection:
        table, column, row = _a_fact(case, connection)
        value = _changed_fact(case, table, column, row[column])
        where, key = _key_of(connection, table, row)
        statement = text(f"UPDATE {table} SET {column} = :v WHERE {where}")
        connection.execute(statement, key | {"v": value})


def _a_fact(case: Case, connection: Connection) -> tuple[str, str, dict[str, Any]]:
    while True:
        table = case.rng.choice(sorted(COMPARED))
        column = case.rng.choice(sorted(COMPARED[table]))
        row = _a_row(case, connection, table)
        if column == "purged_at" and row[column] is not None:
            continue  # bytes that come again take the time away, without a row
        return table, column, row


def _a_row(case: Case, connection: Connection, table: str) -> dict[str, Any]:
    rows = connection.execute(text(f"SELECT * FROM {table}")).mappings().all()
    return dict(case.rng.choice(rows))


def _key_of(connection: Connection, table: str, row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    names = inspect(connection).get_pk_constraint(table)["constrained_columns"]
    return " AND ".join(f"{n} = :k_{n}" for n in names), {f"k_{n}": row[n] for n in names}


def _changed_fact(case: Case, table: str, column: str, value: Any) -> Any:
    if table == "study" and column == "state":  # complete and judged differ by what is to be done
        return "complete" if value == "receiving" else "receiving"
    if column == "state":
        return case.rng.choice([each for each in _STATES[table] if each != value])
    if column in ("provenance", "findings", "explanation"):
        return json.dumps([{"code": f"MADE-UP-{case.rng.random()}"}])
    if column == "status":
        return 0xB000 if value is None else value + 1
    return _other(case.rng, value)


def delete_a_fact(case: Case) -> None:
    with case.unlocked() as connection:
        table = case.rng.choice(sorted(COMPARED))
        where, key = _key_of(connection, table, _a_row(case, connection, table))
        connection.execute(text(f"DELETE FROM {table} WHERE {where}"), key)


def add_a_fact(case: Case) -> None:
    """Add a row that is like another, under a new key."""
    with case.unlocked() as connection:
        table = case.rng.choice(sorted(COMPARED))
        row = _a_row(case, connection, table)
        for name in _unique(connection, table):
            number = isinstance(row[name], int)
            row[name] = case.rng.randint(1000, 10**6) if number else f"{row[name]}9"
        _put(connection, table, {n: _storable(v) for n, v in row.items()})


def _unique(connection: Connection, table: str) -> set[str]:
    names = set(inspect(connection).get_pk_constraint(table)["constrained_columns"])
    for each in inspect(connection).get_unique_constraints(table):
        names.add(each["column_names"][-1])
    return names


def _storable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


TAMPERINGS: tuple[Callable[[Case], None], ...] = (
    change_a_column_of_the_log, delete_a_row_of_the_log, swap_two_rows_of_the_log,
    add_a_row_to_the_log, change_the_head, write_the_log_again,
    write_the_log_again_without_checkpoints, write_the_log_again_with_another_key,
    cut_the_tail, put_an_old_copy_back, change_a_checkpoint, delete_a_checkpoint,
    add_a_checkpoint, seal_and_remove_rows, change_the_file_of_checkpoints, change_a_trigger,
    change_a_fact, delete_a_fact, add_a_fact,
)  # fmt: skip


def is_found(case: Case, key: str, reports: Path) -> bool:
    """Whether `audit verify --key --against-sr` finds it; a database it cannot open counts."""
    try:
        with Database.open(case.url, make=False) as database:
            check = AuditCheck(database, case.folder, [key])
            return not (check.verify().intact and compare_reports(check, reports).agree)
    except RebrainError:
        return True


def tamper(count: int, seed: int, source: Path, copies: Copies) -> Iterator[tuple[str, int, bool]]:
    """Yield name, number and whether it was found, of each tampering with a copy of a node."""
    key = read_key_file(source / PUBLIC_FILE)
    reports = source / REPORTS
    with copies.open_source(source) as database:
        check = AuditCheck(database, source, [key])
        assert check.verify().intact
        assert compare_reports(check, reports).agree
        anchored = _anchored(reports)
    for number in range(count):
        tampering = TAMPERINGS[number % len(TAMPERINGS)]
        rng = random.Random(f"{seed} {number}")
        while True:
            folder, url = copies.make(source)
            try:
                tampering(Case(rng, folder, url, anchored))
            except DBAPIError:  # the database itself does not take it: another one
                copies.remove(folder, url)
                continue
            case = Case(rng, folder, url, anchored)
            yield tampering.__name__, number, is_found(case, key, reports)
            copies.remove(folder, url)
            break


def _anchored(reports: Path) -> int:
    return max(each.sequence for each in read_anchors(reports))


class Copies:
    """Copies of a node on SQLite: its folder, database included."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def open_source(self, source: Path) -> Iterator[Database]:
        with Database.open(f"sqlite:///{source}/{DATABASE}") as database:
            yield database

    def make(self, source: Path) -> tuple[Path, str]:
        target = self._folder / "copy"
        ignore = shutil.ignore_patterns("outbox", REPORTS)
        shutil.copytree(source, target, ignore=ignore)
        return target, f"sqlite:///{target}/{DATABASE}"

    def remove(self, folder: Path, url: str) -> None:
        shutil.rmtree(folder)


def main(count: int, seed: int) -> int:
    """Print found and not found by kind; the number that was not found."""
    found, missed = Counter[str](), dict[str, list[int]]()
    begun = time.perf_counter()
    with fast_folder() as folder:
        source = folder / "node"
        source.mkdir()
        with audited_node(source):
            pass
        for name, number, is_seen in tamper(count, seed, source, Copies(folder)):
            found[name] += is_seen
            if not is_seen:
                missed.setdefault(name, []).append(number)
    for each in TAMPERINGS:
        name = each.__name__
        lost = missed.get(name, [])
        sys.stdout.write(f"{name}: {found[name]} found, {len(lost)} not found {lost[:20] or ''}\n")
    total = sum(map(len, missed.values()))
    seconds = time.perf_counter() - begun
    sys.stdout.write(f"seed {seed}: {count - total} of {count} found in {seconds:.0f} s\n")
    return total


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
