"""The audit report: one page that tells what came, what was decided, and what left.

A pure function of the store's values, so the page of a state is the same whenever it is written.
It holds no script, loads nothing and, like the audit log, knows no patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from rebrain_node.domain.audit import AuditEvent, ChainVerdict, Event
from rebrain_node.domain.delivery import Delivery
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.domain.result import ResultRecord
from rebrain_node.report.markup import Content, Html, document, join, table, tag, value_text

_TITLE: Final = "rebrain-node audit report"
_WARNING: Final = "Synthetic images: research software, not for diagnosis"
#: details of hundreds of values (``series.guided``): too long for the page
_TABLES: Final = ("slices", "reasons")


def render(
    series: Sequence[SeriesRecord],
    events: Sequence[AuditEvent],
    verdict: ChainVerdict,
    deliveries: Sequence[Delivery],
    results: Mapping[str, ResultRecord] | None = None,
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
    results : mapping of str to ResultRecord, optional
        The result of each series of which one was made, by its UID.

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
        *(_study(uid, held, events, results or {}) for uid, held in studies.items()),
        _deliveries(deliveries),
        _log(events, verdict),
    )
    return document(_TITLE, body)


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
    results: Mapping[str, ResultRecord],
) -> Html:
    heading = tag("h2", "Study ", tag("code", uid))
    # what was made of the study first, then why the rest was not
    ordered = sorted(held, key=lambda record: record.state == "refused")
    return tag("section", heading, *(_series(r, events, results) for r in ordered))


def _series(
    record: SeriesRecord,
    events: Sequence[AuditEvent],
    results: Mapping[str, ResultRecord],
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
        _result(results.get(uid)),
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
            value_text(finding.value),
            value_text(finding.limit),
        )
        for finding in findings
    ]
    names = ("code", "effect", "finding", "value", "limit")
    return join(tag("h4", "Findings"), table(names, rows, class_="findings"))


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


def _result(result: ResultRecord | None) -> Html:
    """What the newest result is made of, how sure it is, and who has it."""
    if result is None:
        return Html("")
    rows = [tag("tr", tag("td", name), tag("td", value)) for name, value in result.rows()]
    return join(tag("h4", "Result"), tag("table", *rows, class_="facts result"))


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
    return tag("section", tag("h2", "Deliveries due"), table(names, rows))


def _log(events: Sequence[AuditEvent], verdict: ChainVerdict) -> Html:
    older = verdict.intact and verdict.rows > len(events)
    shown = f" The newest {len(events)} are listed here." if older else ""
    words = f"{verdict.sentence}.{shown} Hash of the last good row: "
    note = tag("p", words, tag("code", verdict.head), class_="" if verdict.intact else "bad")
    names = ("row", "time, UTC", "event", "subject, details", "hash")
    rows = table(names, [_row(event) for event in events])
    return tag("section", tag("h2", "Audit log"), note, rows, class_="log")


def _row(event: AuditEvent) -> Sequence[Content]:
    """Cells of one event; a table of slices is left out, `audit show` prints it in full."""
    details = {name: value for name, value in event.details.items() if name not in _TABLES}
    return (
        event.sequence,
        f"{event.recorded_at:%Y-%m-%d %H:%M:%S.%f}"[:-3],
        event.event,
        join(tag("code", event.subject), tag("code", value_text(details), class_="details")),
        tag("code", event.hash),
    )


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
