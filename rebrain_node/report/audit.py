"""The audit report: one page that tells what came, what was decided, and what left.

A pure function of the store's values, so the page of a state is the same whenever it is written.
It holds no script, loads nothing and, like the audit log, knows no patient.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from rebrain_node.domain.audit import AuditEvent, ChainVerdict, Event
from rebrain_node.domain.delivery import Delivery
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.report.markup import STYLE, Content, Html, join, tag

_TITLE: Final = "rebrain-node audit report"
_WARNING: Final = "Synthetic images: research software, not for diagnosis"
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
#: events that carry what a result is made of
_RESULT: Final = Event.SERIES_SYNTHESISED
#: details of hundreds of values (``series.guided``): too long for the page
_TABLES: Final = ("slices", "reasons")


def render(
    series: Sequence[SeriesRecord],
    events: Sequence[AuditEvent],
    verdict: ChainVerdict,
    deliveries: Sequence[Delivery],
) -> str:
    """Write the page.

    Parameters
    ----------
    series : sequence of SeriesRecord
        Every series to be reported.
    events : sequence of AuditEvent
        Rows of the audit log, in order.
    verdict : ChainVerdict
        Whether the log is as it was written.
    deliveries : sequence of Delivery
        What destinations have not taken yet.

    Returns
    -------
    str
        A complete HTML document that refers to nothing outside itself.
    """
    studies: dict[str, list[SeriesRecord]] = {}
    for record in series:
        studies.setdefault(record.study_instance_uid, []).append(record)
    body = join(
        _header(events),
        _summary(series, studies, verdict, deliveries),
        *(_study(uid, held, events) for uid, held in studies.items()),
        _deliveries(deliveries),
        _log(events, verdict),
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", _TITLE),
        tag("style", Html(STYLE)),
    )
    page = tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    return f"<!DOCTYPE html>\n{page.text}\n"


def _header(events: Sequence[AuditEvent]) -> Html:
    newest = f"as of {events[-1].recorded_at:%Y-%m-%d %H:%M:%S} UTC" if events else "empty log"
    title = tag("div", tag("h1", "Audit report"), tag("p", f"rebrain-node, {newest}"))
    return tag("header", title, tag("p", _WARNING, class_="warning"))


def _summary(
    series: Sequence[SeriesRecord],
    studies: Mapping[str, object],
    verdict: ChainVerdict,
    deliveries: Sequence[Delivery],
) -> Html:
    states = Counter(record.state for record in series)
    ended = states["published"] + states["refused"] + states["failed"]
    waiting = len(series) - ended - states["held"]
    tiles = [
        ("studies", len(studies), ""),
        ("series received", len(series), ""),
        ("published", states["published"], "good"),
        ("published, not confirmed", sum(one.confirmed is False for one in series), ""),
        ("refused", states["refused"], ""),
        ("failed", states["failed"], "bad" if states["failed"] else ""),
        ("held", states["held"], "bad" if states["held"] else ""),
        ("in work", waiting, ""),
        ("deliveries due", len(deliveries), "bad" if deliveries else ""),
        (
            "audit log",
            "intact" if verdict.intact else "BROKEN",
            "good" if verdict.intact else "bad",
        ),
    ]
    return tag(
        "section",
        *(tag("div", tag("b", value), tag("span", name), class_=c) for name, value, c in tiles),
        class_="tiles",
    )


def _study(
    uid: str,
    held: Sequence[SeriesRecord],
    events: Sequence[AuditEvent],
) -> Html:
    heading = tag("h2", "Study ", tag("code", uid))
    # what was made of the study first, then why the rest was not
    ordered = sorted(held, key=lambda record: record.state == "refused")
    return tag("section", heading, *(_series(r, events) for r in ordered))


def _series(
    record: SeriesRecord,
    events: Sequence[AuditEvent],
) -> Html:
    uid = record.series_instance_uid
    own = [event for event in events if event.subject == uid]
    badge = tag("span", record.state_text, class_=f"state {record.state}")
    instances = "1 instance" if record.instance_count == 1 else f"{record.instance_count} instances"
    facts = (
        f"{instances}, revision {record.revision}, "
        f"completeness {record.completeness or 'not judged yet'}"
    )
    parts = [
        tag("h3", badge, " ", tag("code", uid)),
        tag("p", facts, class_="faint"),
        _findings(record.findings),
        _explanation(record.explanation),
        _steps(own),
        _result(own),
    ]
    return tag("article", *parts)


def _findings(findings: Sequence[Finding]) -> Html:
    if not findings:
        return Html("")
    rows = [
        (
            tag("code", finding.code),
            finding.severity,
            finding.sentence,
            _value(finding.value),
            _value(finding.limit),
        )
        for finding in findings
    ]
    names = ("code", "effect", "finding", "value", "limit")
    return join(tag("h4", "Findings"), _table(names, rows, class_="findings"))


def _explanation(lines: Sequence[str]) -> Html:
    if not lines:
        return Html("")
    return join(tag("h4", "Selection"), tag("ul", *(tag("li", line) for line in lines)))


def _steps(events: Sequence[AuditEvent]) -> Html:
    """Bars as long as each step took, of the newest run."""
    taken: dict[str, float] = {}
    for event in events:
        if event.event == Event.STEP_COMPLETED:
            taken[str(event.details.get("step"))] = _seconds(event.details.get("seconds"))
    if not taken:
        return Html("")
    longest = max([*taken.values(), 1e-3])
    rows = [
        tag(
            "tr",
            tag("td", step),
            tag("td", f"{seconds:.2f} s", class_="number"),
            tag(
                "td",
                tag(
                    "svg",
                    tag("rect", width=max(round(1000 * seconds / longest), 3), height=10),
                    viewBox="0 0 1000 10",
                    preserveAspectRatio="none",
                    class_="bar",
                ),
                class_="wide",
            ),
        )
        for step, seconds in taken.items()
    ]
    total = tag("tr", tag("th", "all"), tag("th", f"{sum(taken.values()):.2f} s"), tag("th"))
    return join(tag("h4", "Steps"), tag("table", *rows, total, class_="steps"))


def _result(events: Sequence[AuditEvent]) -> Html:
    """What the newest result is made of: digests, objects, destinations."""
    made = [event for event in events if event.event == _RESULT]
    if not made:
        return Html("")
    rows = [
        tag("tr", tag("td", name), tag("td", tag("code", _list(value))))
        for name, value in made[-1].details.items()
        if name != "state"  # of that moment; the badge says what became of it
    ]
    return join(tag("h4", "Result"), tag("table", *rows, class_="facts"))


def _deliveries(deliveries: Sequence[Delivery]) -> Html:
    if not deliveries:
        return Html("")
    rows = [
        (
            delivery.destination,
            tag("code", delivery.source_series_uid),
            delivery.outstanding,
            delivery.attempts,
            delivery.reason or "not tried yet",
            f"{delivery.since:%Y-%m-%d %H:%M:%S}",
        )
        for delivery in deliveries
    ]
    names = ("destination", "source series", "instances due", "attempts", "reason", "since, UTC")
    return tag("section", tag("h2", "Deliveries due"), _table(names, rows))


def _log(events: Sequence[AuditEvent], verdict: ChainVerdict) -> Html:
    if verdict.intact:
        older = verdict.rows - len(events)
        shown = f" The newest {len(events)} are listed here." if older > 0 else ""
        words = f"All {verdict.rows} rows are as they were written.{shown} Head: "
    else:
        words = (
            f"Row {verdict.broken_sequence} is not as it was written ({verdict.reason}); "
            f"{verdict.rows} rows before it are. Last good hash: "
        )
    note = tag("p", words, tag("code", verdict.head), class_="" if verdict.intact else "bad")
    names = ("row", "time, UTC", "event", "subject, details", "hash")
    table = _table(names, [_row(event) for event in events])
    return tag("section", tag("h2", "Audit log"), note, table, class_="log")


def _row(event: AuditEvent) -> Sequence[Content]:
    """Cells of one event; a table of slices is left out, `audit show` prints it in full."""
    details = {name: value for name, value in event.details.items() if name not in _TABLES}
    return (
        event.sequence,
        f"{event.recorded_at:%Y-%m-%d %H:%M:%S.%f}"[:-3],
        event.event,
        join(tag("code", event.subject), tag("code", _value(details), class_="details")),
        tag("code", event.hash),
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[Content]], *, class_: str = "") -> Html:
    """Make a table; on a narrow screen each cell stands below its name."""
    head = tag("thead", tag("tr", *(tag("th", name) for name in names)))
    body = (
        tag("tr", *(tag("td", cell, data_name=n) for n, cell in zip(names, row, strict=True)))
        for row in rows
    )
    return tag("table", head, tag("tbody", *body), class_=f"rows {class_}".rstrip())


def _value(value: object) -> str:
    """A value of the log as text; canonical JSON where it has parts."""
    if value is None:
        return ""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _list(value: object) -> str:
    """Parts of a value with commas between them: ``MR 161, PM 1``; else as `_value`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_value, value))
    return _value(value)


def _plain(value: object) -> object:
    """What JSON does not know: read-only mappings and the like."""
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
