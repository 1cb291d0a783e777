"""The commands of the audit log: verify, key, export, page by page."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rebrain_node.cli import program
from rebrain_node.cli.audit_records import COLUMNS
from rebrain_node.domain.audit import Event
from rebrain_node.errors import StateError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from tests.support.audited_node import DATABASE, REPORTS, audited_node
from tests.support.store_cases import fast_folder

PAYLOADS = (
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1:A9)", "\t=1", "\r=1", '=HYPERLINK("http://x")',
    'a"b,c\nd', "\x1b[31mred", "<script>x</script>", "../../x", "'; DROP TABLE series; --",
    "\u202egnp.exe",
)  # fmt: skip


@pytest.fixture(scope="module")
def state_folder() -> Iterator[Path]:
    """State of a node that has lived, with hostile names in its log."""
    with fast_folder() as folder:
        state = folder / "state"
        state.mkdir(mode=0o700)
        with audited_node(state) as node:
            for payload in PAYLOADS:
                details = {"address": payload, "reason": "AE-TITLE", "not_told": 0}
                node.audit.record(Event.ASSOCIATION_REFUSED, payload, details)
            node.audit.checkpoint()
        yield state


@pytest.fixture
def config(state_folder: Path) -> Iterator[Path]:
    """Settings of a copy of it: each reading of the log adds a row."""
    with fast_folder() as folder:
        shutil.copytree(state_folder, folder / "state")
        path = folder / "node.toml"
        path.write_text(f"[storage]\nfolder = {str(folder / 'state')!r}\n")
        yield path


def run(config: Path, *arguments: str) -> Any:
    return CliRunner().invoke(program, ["audit", *arguments, "--config", str(config)])


def test_verify_says_that_all_is_as_it_was_written(config: Path) -> None:
    reports = config.parent / "state" / REPORTS
    found = run(config, "verify", "--json", "--against-sr", str(reports))
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert (answer["intact"], answer["first"], answer["unsigned"]) == (True, 1, 0)
    assert answer["reports"]["compared"] == 3
    assert answer["differences"] == []


def test_verify_names_what_contradicts_the_log(config: Path, tmp_path: Path) -> None:
    copy = tmp_path / "state"
    copy.mkdir(mode=0o700)
    for path in (config.parent / "state").iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
            (copy / path.name).chmod(0o600)
    other = tmp_path / "node.toml"
    other.write_text(f"[storage]\nfolder = {str(copy)!r}\n")
    with Database.open(f"sqlite:///{copy}/{DATABASE}") as database, database.writing() as session:
        session.connection().exec_driver_sql(
            "UPDATE delivery SET state = 'confirmed' WHERE state = 'refused'"
        )
    found = run(other, "verify")
    assert found.exit_code == 1
    assert "does not stand as the log tells" in " ".join(found.stdout.split())
    broken = run(other, "list", "--event", "audit.broken", "--json").stdout
    assert "as the log tells" in json.loads(broken)["events"][0]["details"]["reason"]
    page = tmp_path / "report.html"
    assert run(other, "report", "--out", str(page)).exit_code == 0
    words = " ".join(page.read_text(encoding="utf-8").split())
    assert "BROKEN" in words
    assert "rows of the audit log are one chain, but 1 fact contradicts it, first: " in words


def test_the_public_key_is_printed_or_written_once(config: Path, tmp_path: Path) -> None:
    printed = run(config, "key")
    assert printed.stdout.startswith("-----BEGIN PUBLIC KEY-----")
    file = tmp_path / "site.pub"
    assert run(config, "key", "--out", str(file)).exit_code == 0
    assert file.read_text() == printed.stdout
    assert isinstance(run(config, "key", "--out", str(file)).exception, StateError)
    verified = run(config, "verify", "--key", str(file), "--json")
    assert json.loads(verified.stdout)["intact"] is True


def test_csv_holds_every_event_and_no_cell_that_is_a_formula(config: Path) -> None:
    found = run(config, "export", "--format", "csv")
    rows = list(csv.reader(StringIO(found.stdout, newline="")))
    with Database.open(f"sqlite:///{config.parent}/state/{DATABASE}") as database:
        events = AuditLog(database).events(10_000)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row[0]) for row in rows[1:]] == [event.sequence for event in events]
    assert [json.loads(row[5]) for row in rows[1:]] == [event.details for event in events]
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r" and cell]
    assert [cell for cell in cells if cell.startswith("'=cmd")]


def test_json_lines_can_be_verified_without_this_software(config: Path, tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "audit.jsonl"
    assert run(config, "export", "--format", "jsonl", "--out", str(file)).exit_code == 0
    previous = "0" * 64
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        details = json.dumps(row["details"], sort_keys=True, separators=(",", ":"))
        array = [*(row[name] for name in COLUMNS[:5]), details]
        text = previous + json.dumps(array, separators=(",", ":"))
        previous = hashlib.sha256(text.encode()).hexdigest()
        assert previous == row["hash"]
    again = run(config, "export", "--out", str(file))
    assert isinstance(again.exception, StateError)


def test_export_can_be_limited_in_time(config: Path) -> None:
    assert len(run(config, "export", "--since", "2100-01-01").stdout.splitlines()) == 1
    whole = run(config, "export", "--since", "2020-01-01", "--until", "2100-01-01")
    *all_but_newest, newest = run(config, "export").stdout.splitlines()
    assert whole.stdout.splitlines() == all_but_newest
    assert ",audit.read,audit export," in newest  # each export is a row of its own


@pytest.mark.parametrize(
    ("arguments", "event", "subject"),
    [
        (("export",), Event.AUDIT_READ, "audit export"),
        (("report",), Event.AUDIT_READ, "audit report"),
        (
            ("report", "--period", "2026-01-01/2026-01-02"),
            Event.AUDIT_READ,
            "audit report --period",
        ),
    ],
)
def test_who_read_the_log_stands_in_it(config, tmp_path, arguments, event, subject):
    assert run(config, *arguments, "--out", str(tmp_path / "out")).exit_code == 0
    listed = run(config, "list", "--limit", "1", "--json").stdout
    (newest,) = json.loads(listed)["events"]
    assert (newest["event"], newest["subject"]) == (event, subject)
    assert newest["details"]["operator"]


def test_the_log_is_listed_page_by_page(config: Path) -> None:
    newest = json.loads(run(config, "list", "--limit", "5", "--json").stdout)["events"]
    first = str(newest[0]["sequence"])
    before = json.loads(run(config, "list", "--limit", "5", "--before", first, "--json").stdout)[
        "events"
    ]
    assert [e["sequence"] for e in before] == [int(first) - n for n in (5, 4, 3, 2, 1)]
