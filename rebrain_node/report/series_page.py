"""The audit report of one series on a page: what it was, what was made of it, who has it, proof."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rebrain_node.domain.audit import AuditEvent, ChainVerdict, Event
from rebrain_node.domain.guidance import COLUMNS
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.domain.result import ResultRecord
from rebrain_node.domain.text import reference, utc
from rebrain_node.pictures import KINDS
from rebrain_node.report.markup import Content, Html, document, join, table, tag, value_text
from rebrain_node.report.result_pictures import PictureSet

#: what the colours of the strip mean
_KIND_WORDS: Final = {
    "measured": "at an acquired CT slice position",
    "retrieved": "guided by an exemplar",
    "interpolated": "interpolated between acquired slices",
}
_STRIP_HEIGHT: Final = 60
#: details of an event that the page shows elsewhere
_TABLES: Final = ("slices", "reasons", "deviations")


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """Everything that the page shows of a series."""

    record: SeriesRecord
    study: Sequence[SeriesRecord]  #: every series of its study
    result: ResultRecord | None
    pictures: PictureSet | None  #: None where the bytes are not stored any more
    events: Sequence[AuditEvent]  #: everything about the series, in order
    verdict: ChainVerdict


def series_page(facts: SeriesFacts) -> str:
    """Write the page; it loads nothing and holds no script."""
    record = facts.record
    body = join(
        _header(record),
        tag("article", _state(record), _result(facts.result)),
        _pictures(facts),
        _strip(facts),
        _selection(facts),
        _deliveries(facts.events),
        _proof(facts),
        _log(facts.events),
    )
    return document(f"rebrain-node audit report of series {reference(record.series_instance_uid)}",
                    body)  # fmt: skip


def _header(record: SeriesRecord) -> Html:
    uid = record.series_instance_uid
    title = tag(
        "div",
        tag("h1", f"Series {reference(uid)}"),
        tag("p", "rebrain-node audit report, ", tag("code", uid)),
    )
    warning = "Synthetic images: research software, not for diagnosis"
    return tag("header", title, tag("p", warning, class_="warning"))


def _state(record: SeriesRecord) -> Html:
    badge = tag("span", record.state_text, class_=f"state {record.state}")
    facts = (
        f"{record.instance_count} instances, revision {record.revision}, completeness "
        f"{record.completeness or 'not judged yet'}, since {utc(record.changed_at)}"
    )
    rows = [(tag("code", f.code), f.severity, f.sentence) for f in record.findings]
    findings = table(("code", "effect", "finding"), rows) if rows else tag("p", "No finding.")
    return join(tag("h3", badge), tag("p", facts, class_="faint"), findings)


def _result(result: ResultRecord | None) -> Html:
    if result is None:
        return join(tag("h4", "Result"), tag("p", "Nothing was made of this series."))
    rows = [tag("tr", tag("td", name), tag("td", value)) for name, value in result.rows()]
    return join(tag("h4", "Result"), tag("table", *rows, class_="facts result"))


def _pictures(facts: SeriesFacts) -> Html:
    if facts.result is None:
        return Html("")
    heading = tag("h2", "Pictures")
    if facts.pictures is None:
        words = "The objects are not stored here any more, or cannot be read; the archive has them."
        return tag("section", heading, tag("p", words))
    figures = [
        tag(
            "figure",
            tag("img", src=_data(one.png), alt=f"{one.what}, {one.view}"),
            tag("figcaption", f"{one.what}, {one.view}"),
        )
        for one in facts.pictures.pictures
    ]
    scale = Html("")
    if facts.pictures.largest is not None:
        scale = tag(
            "p",
            f"Uncertainty from black, 0, to pale yellow, {facts.pictures.largest:.2f} of the "
            f"display range, {facts.result.uncertainty_label or 'calibration not recorded'}. "
            "Right of the patient on the left of axial and coronal pictures, the face on the "
            "left of sagittal ones.",
            class_="faint",
        )
    rows = [tag("tr", tag("td", n), tag("td", v)) for n, v in facts.pictures.geometry]
    geometry = join(tag("h4", "Geometry"), tag("table", *rows, class_="facts result"))
    return tag("section", heading, tag("div", *figures, class_="figures"), scale, geometry)


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _strip(facts: SeriesFacts) -> Html:
    """One bar for each slice, as high as it is uncertain, coloured by its kind, and a table."""
    guided, doubt = _newest(facts, Event.SERIES_GUIDED), _newest(facts, Event.SERIES_UNCERTAINTY)
    if guided is None:
        return Html("")
    slices = [dict(zip(COLUMNS, row, strict=True)) for row in guided["slices"]]
    means = list(doubt["slices"]) if doubt is not None else [None] * len(slices)
    untrusted = set(doubt["untrusted"]) if doubt is not None else set()
    largest = max([m for m in means if m] or [1.0])
    heights = [max(2, round(_STRIP_HEIGHT * (mean or 0.0) / largest)) for mean in means]
    bars = [
        tag("rect", x=10 * k, y=_STRIP_HEIGHT - height, width=9, height=height,
            fill=_colour(str(one["kind"])))
        for k, (one, height) in enumerate(zip(slices, heights, strict=True))
    ]  # fmt: skip
    box = f"0 0 {10 * len(slices)} {_STRIP_HEIGHT}"
    picture = tag("svg", *bars, viewBox=box, preserveAspectRatio="none", class_="strip")
    legend = [
        tag("span", tag("b", "", style=f"background:{_colour(kind)}"), f"{count} {kind}: ",
            _KIND_WORDS[kind])
        for kind, count in guided["kinds"].items()
    ]  # fmt: skip
    rows: list[Sequence[Content]] = [
        (
            k, one["kind"], f"{one['distance_mm']:.1f}",
            _doubt(mean, untrusted=k in untrusted),
            tag("code", str(one["exemplar"] or "")[:16]), value_text(one["similarity"]),
            str(guided["reasons"][one["reason"]]),
        )
        for k, (one, mean) in enumerate(zip(slices, means, strict=True), start=1)
    ]  # fmt: skip
    names = ("slice", "kind", "mm", "uncertainty", "exemplar", "similarity", "reason")
    return tag(
        "section",
        tag("h2", "Slices by kind"),
        tag("p", "First slice on the left; height: mean uncertainty.", class_="faint"),
        picture,
        tag("p", *legend, class_="legend"),
        tag(
            "details",
            tag("summary", f"All {len(slices)} slices"),
            table(names, rows, class_="short"),
        ),
    )


def _doubt(mean: float | None, *, untrusted: bool) -> str:
    """Write the mean uncertainty of a slice; it is 0 where the slice shows no head."""
    if mean is None:
        return ""
    if mean == 0.0:
        return "no head"
    return f"{mean:.3f}{' NOT TO BE TRUSTED' if untrusted else ''}"


def _colour(kind: str) -> str:
    red, green, blue = KINDS[kind]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _newest(facts: SeriesFacts, event: Event) -> Mapping[str, Any] | None:
    """Return the details of the newest such event about the revision of the result."""
    revision = facts.record.revision if facts.result is None else facts.result.revision
    for one in reversed(facts.events):
        if one.event == event and one.details.get("revision") == revision:
            return one.details
    return None


def _selection(facts: SeriesFacts) -> Html:
    """Every series of the study, and why it was chosen or not."""
    rows = [
        (
            tag("code", reference(one.series_instance_uid)),
            one.state_text,
            one.instance_count,
            join(
                *(tag("p", f"{f.code}: {f.sentence}") for f in one.findings),
                *(tag("p", line, class_="faint") for line in one.explanation),
            ),
        )
        for one in facts.study
    ]
    names = ("series", "state", "instances", "why")
    return tag("section", tag("h2", "Selection in the study"), table(names, rows, class_="short"))


def _deliveries(events: Sequence[AuditEvent]) -> Html:
    rows = [
        (utc(one.recorded_at), one.event, one.subject, value_text(dict(one.details)))
        for one in events
        if one.event.startswith(("delivery.", "commitment."))
    ]
    if not rows:
        return tag("section", tag("h2", "Deliveries"), tag("p", "Nothing was sent."))
    names = ("time", "event", "destination", "details")
    return tag("section", tag("h2", "Deliveries"), table(names, rows, class_="short"))


def _proof(facts: SeriesFacts) -> Html:
    verdict, events = facts.verdict, facts.events
    about = ""
    if verdict.intact and events:
        first, last = events[0].sequence, events[-1].sequence
        about = f", rows {first} to {last} about this series among them"
    words = f"{verdict.sentence}{about}. Hash of the last good row: "
    made = [one for one in events if one.event == Event.SERIES_SYNTHESISED]
    rows: list[Html] = []
    if made:
        newest = made[-1]
        rows = [
            tag("tr", tag("td", name), tag("td", tag("code", value)))
            for name, value in (
                ("SHA-256 over all objects", str(newest.details.get("sha256"))),
                ("digest of the provenance", str(newest.details.get("provenance"))),
                (f"hash of row {newest.sequence}", newest.hash),
            )
        ]
    note = tag("p", words, tag("code", verdict.head), class_="" if verdict.intact else "bad")
    return tag("section", tag("h2", "Proof"), note, tag("table", *rows, class_="facts result"))


def _log(events: Sequence[AuditEvent]) -> Html:
    received = [one for one in events if one.event == Event.INSTANCE_RECEIVED]
    rows: list[Sequence[Content]] = []
    if received:
        first, last = received[0], received[-1]
        count = f"{len(received)} instances"
        rows.append((f"{first.sequence}-{last.sequence}", utc(last.recorded_at), last.event,
                     "", count))  # fmt: skip
    rows += [
        (
            one.sequence, utc(one.recorded_at), one.event,
            tag("code", one.hash[:16]),
            value_text({n: v for n, v in one.details.items() if n not in _TABLES}),
        )
        for one in events
        if one.event != Event.INSTANCE_RECEIVED
    ]  # fmt: skip
    names = ("row", "time", "event", "hash begins", "details")
    return tag("section", tag("h2", "Audit log"), table(names, rows, class_="short"))
