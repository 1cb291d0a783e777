"""`audit export`, `erase`: the audit log for other programs, and what is stored of a patient."""

from __future__ import annotations

import csv
import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer

from rebrain_node.cli.audit import audit
from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

if TYPE_CHECKING:
    from rebrain_node.domain.audit import AuditEvent

#: columns of the export, in their order
COLUMNS: Final = (
    "sequence", "recorded_at", "monotonic_ns", "event", "subject", "details", "hash",
)  # fmt: skip
#: a spreadsheet takes text that begins so for a formula
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_DATES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


class ExportFormat(StrEnum):
    """Format of the export."""

    CSV = "csv"
    JSONL = "jsonl"


@audit.command("export")
def export(
    config: Config = None,
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="csv for a spreadsheet, or jsonl.")
    ] = ExportFormat.CSV,
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it, standard output.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=_DATES, help="Only events from this time on, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=_DATES, help="Only events before this time, UTC.")
    ] = None,
) -> None:
    """Write the audit log as CSV or JSON lines, oldest event first.

    In CSV, text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.domain.audit import Event
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state, _stream(out) as stream:
        state.audit.record(Event.AUDIT_READ, "audit export", {"operator": getpass.getuser()})
        write = _write_csv if format_ is ExportFormat.CSV else _write_lines
        write(state.audit.stream(_utc(since), _utc(until)), stream)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


@contextmanager
def _stream(out: Path | None) -> Iterator[TextIO]:
    """Open a new file, or standard output.

    Raises
    ------
    StateError
        The file exists.
    """
    if out is None:
        yield sys.stdout
        return
    from rebrain_node.errors import StateError

    try:
        stream = out.open("x", encoding="utf-8", newline="")
    except FileExistsError as error:
        raise StateError(f"{out} exists and is not overwritten; name another file") from error
    with stream:
        yield stream


def _write_csv(events: Iterator[AuditEvent], stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\r\n")  # RFC 4180
    writer.writerow(COLUMNS)
    for event in events:
        writer.writerow([_cell(value) for value in _row(event).values()])


def _cell(value: object) -> object:
    if not isinstance(value, str | dict):
        return value
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
    return f"'{text}" if text.startswith(_FORMULA) else text


def _write_lines(events: Iterator[AuditEvent], stream: TextIO) -> None:
    stream.writelines(json.dumps(_row(event), ensure_ascii=True) + "\n" for event in events)


def _row(event: AuditEvent) -> dict[str, object]:
    return {
        "sequence": event.sequence,
        "recorded_at": event.recorded_at.isoformat(timespec="microseconds"),
        "monotonic_ns": event.monotonic_ns,
        "event": str(event.event),
        "subject": event.subject,
        "details": dict(event.details),
        "hash": event.hash,
    }


@audit.command("erase")
def erase(
    patient: Annotated[str, typer.Argument(help="Patient ID, or a Study Instance UID.")],
    reason: Annotated[
        str, typer.Option(help="Why, for the audit log; without a name or a Patient ID.")
    ],
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase every stored byte of a patient.

    Received, quarantined and derived instances are deleted. The audit log and the ledger hold no
    name and no Patient ID; their rows, with UIDs, stay, so that the log remains verifiable. What a
    PACS has is not erased.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.app.patient import erase_studies, studies_of_patient
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        studies = studies_of_patient(state, patient)
        if not yes:
            typer.echo("\n".join(studies), err=True)
            typer.confirm(f"Erase all stored bytes of these {len(studies)} studies?", abort=True)
        erased = tuple(erase_studies(state, studies, reason))
    if as_json:
        print_json({"erased": [asdict(one) for one in erased]})
        return
    columns = ("study", "instances", "objects", "quarantined", "bytes")
    print_table("Erased", columns, [tuple(asdict(one).values()) for one in erased])
