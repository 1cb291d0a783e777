"""`audit`: list, show, verify and report the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rebrain_node.cli.terminal import (
    AsJson,
    Config,
    choose,
    detail_words,
    print_json,
    print_table,
)
from rebrain_node.domain.text import reference, utc
from rebrain_node.errors import StateError

if TYPE_CHECKING:
    from rebrain_node.domain.audit import AuditEvent

#: of the tables of `list` and `show`
_COLUMNS: Final = ("sequence", "time", "event", "id", "subject", "details")
#: more digits are no sequence number but the id of a series
_SEQUENCE: Final = re.compile(r"[0-9]{1,11}")
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)+")
#: of a longer list of a detail only the length is shown
_LONGEST_LIST: Final = 20

audit = typer.Typer(help="List, show, verify and report the audit log.", no_args_is_help=True)


@audit.command("list")
def list_(
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of events, the newest ones.")] = 50,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Only events about this UID or name; the id of a series or study will do."
        ),
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only this event, e.g. series.refused.")] = None,
    before: Annotated[
        int | None, typer.Option(min=1, help="Only events before this sequence number.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest audit events, oldest first.

    In the table the receptions of one series that follow each other are one row.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.domain.audit import Event
    from rebrain_node.settings import load_settings

    if event is not None:
        choose(event, [str(one) for one in Event], "audit event")
    with find_state(load_settings(config)) as state:
        about = None if subject is None else state.names.subject(subject)
        events = state.audit.events(limit, subject=about, event=event, before=before)
    if as_json:
        print_json({"events": [_as_dict(event) for event in events]})
        return
    print_table("Audit log", _COLUMNS, _rows(events), piped=("subject",))


@audit.command("show")
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SEQUENCE|SERIES",
            help="Sequence number of one event, or a series: UID, id or the beginning of either.",
        ),
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one audit event, or all about one series.

    Of a series the receptions that follow each other are one row.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        if not _SEQUENCE.fullmatch(what):
            uid = state.names.series(what)
            events = state.audit.about_series(uid)
            if as_json:
                print_json({"events": [_as_dict(event) for event in events]})
            else:
                print_table(f"Series {uid}", _COLUMNS, _rows(events), piped=("subject",))
            return
        one = state.audit.event(int(what))
    if one is None:
        raise StateError(f"the audit log has no event {what}; see `rebrain-node audit list`")
    if as_json:
        print_json(_as_dict(one))
        return
    values = _as_dict(one) | {"recorded_at": utc(one.recorded_at)}
    details = values.pop("details")
    digest = values.pop("hash")
    rows = [(name.replace("_", " "), value) for name, value in values.items()]
    rows += [(f"details: {name}", _detail(value)) for name, value in one.details.items()]
    print_table(f"Event {what}", ("field", "value"), [*rows, ("hash", digest)])
    tables = [name for name, value in one.details.items() if _is_table(value)]
    if details and tables:
        typer.echo(f"the rows of {', '.join(tables)}: `rebrain-node audit show {what} --json`")


def _rows(events: Sequence[AuditEvent]) -> list[tuple[object, ...]]:
    """Return the rows of a table; receptions of one series that follow each other are one."""
    rows: list[tuple[object, ...]] = []
    for (collapsed, _), group in groupby(events, key=_reception):
        held = list(group)
        first, last = held[0], held[-1]
        if collapsed is None or len(held) == 1:
            rows += [
                (one.sequence, utc(one.recorded_at), one.event, _id(one.subject), one.subject,
                 detail_words(one.details))
                for one in held
            ]  # fmt: skip
            continue
        rows.append(
            (f"{first.sequence}-{last.sequence}", utc(last.recorded_at), last.event,
             _id(collapsed), collapsed, f"{len(held)} instances of one series")
        )  # fmt: skip
    return rows


def _reception(event: AuditEvent) -> tuple[str | None, int]:
    """Return the series of a reception; any other event is a group of its own."""
    if event.event == "instance.received":
        return str(event.details["series"]), 0
    return None, event.sequence


def _id(subject: str) -> str:
    """Return the short id of a UID; a name stands for itself."""
    return reference(subject) if _UID.fullmatch(subject) else subject


def _is_table(value: object) -> bool:
    return isinstance(value, list) and len(value) > _LONGEST_LIST


def _detail(value: object) -> object:
    if _is_table(value):
        return f"({len(value)} rows)"  # type: ignore[arg-type] # a table is a list
    return value if isinstance(value, str) else json.dumps(value, default=str)


@audit.command("report")
def report(
    series: Annotated[
        str | None,
        typer.Argument(
            metavar="[SERIES]",
            help="Only this series, with pictures: UID, id, or the beginning of either.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("audit-report.html"),
    period: Annotated[
        str | None,
        typer.Option(
            help="Report of the site over a period, e.g. 2026-11-01/2026-11-30: days in UTC, "
            "both included."
        ),
    ] = None,
    pdf: Annotated[
        Path | None, typer.Option(help="Also write the page as PDF to this file (extra `pdf`).")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report of all series, one series or a period.

    The page holds everything in one file, loads nothing and names no patient. With SERIES: what
    came, why it was chosen, the result with pictures in three planes and its uncertainty, every
    slice by kind, geometry, deliveries, and the proof from the audit log. With --period: counts,
    refusals by code, latency, uncertainty, bundles and deliveries of the site.
    """
    from rebrain_node.app.reports import write_audit_report, write_series_report, write_site_report
    from rebrain_node.settings import load_settings

    if series is not None and period is not None:
        raise typer.BadParameter("give SERIES or --period, not both")
    settings = load_settings(config)
    write_pdf = None if pdf is None else _pdf_writer()
    if series is not None:
        write_series_report(settings, series, out)
    elif period is not None:
        write_site_report(settings, *days_of(period), out)
    else:
        write_audit_report(settings, out)
    written = {"report": str(out)}
    if pdf is not None and write_pdf is not None:
        pdf.write_bytes(write_pdf(out.read_text(encoding="utf-8")))
        written["pdf"] = str(pdf)
    if as_json:
        print_json(written)
        return
    typer.echo("\n".join(written.values()))


def _pdf_writer() -> Callable[[str], bytes]:
    from rebrain_node.report.pdf import pdf_writer

    return pdf_writer()


def days_of(period: str) -> tuple[datetime, datetime]:
    """Read FROM/TO; the last day is included whole."""
    try:
        first, last = (datetime.fromisoformat(day) for day in period.split("/"))
    except ValueError:
        raise typer.BadParameter(
            f"{period!r} is no period; write two days, e.g. 2026-11-01/2026-11-30"
        ) from None
    if last < first:
        raise typer.BadParameter(f"{period!r} ends before it begins; exchange the two days")
    end = last.replace(tzinfo=UTC) + timedelta(days=1) - timedelta(microseconds=1)
    return first.replace(tzinfo=UTC), end


def _as_dict(event: AuditEvent) -> dict[str, object]:
    return {
        "sequence": event.sequence,
        "recorded_at": event.recorded_at.isoformat(),
        "event": str(event.event),
        "subject": event.subject,
        "details": dict(event.details),
        "hash": event.hash,
    }
