"""The report of a site over a period: how many, refused for what, how fast, how sure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median, quantiles
from typing import Final

from rebrain_node.domain.audit import ChainVerdict
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.domain.result import ResultRecord
from rebrain_node.domain.stop_rules import DeliveryStop, DriftStatistic, RuleReading
from rebrain_node.domain.text import reference, utc
from rebrain_node.report.acceptance_page import drift_section
from rebrain_node.report.histogram import histogram
from rebrain_node.report.markup import Content, Html, document, join, table, tag

#: width of a bar of the histogram, ratio of the display range
_STEP: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class PeriodFacts:
    """What a node did from ``begin`` to ``end`` (aware, UTC, both included)."""

    begin: datetime
    end: datetime
    series: Sequence[SeriesRecord]  #: that came to their state in the period
    results: Mapping[str, ResultRecord]  #: by series
    waited_s: Mapping[str, float]  #: from complete to published, by series
    deliveries: Mapping[str, Mapping[str, int]]  #: number of each delivery event, by destination
    verdict: ChainVerdict
    shadow: bool = False  #: whether shadow mode is active now
    stops: Sequence[DeliveryStop] = ()  #: in force now
    readings: Sequence[RuleReading] = ()  #: where each rule stands now
    drift: Sequence[DriftStatistic] = ()  #: of the newest results
    #: when, rule, stopped or released, reason
    stop_events: Sequence[tuple[datetime, str, str, str]] = ()


def site_page(facts: PeriodFacts) -> str:
    """Write the page; it loads nothing, holds no script and no patient data."""
    body = join(
        _header(facts),
        _tiles(facts),
        _refusals(facts),
        _latency(facts),
        _uncertainty(facts),
        _stops(facts),
        drift_section(facts.drift),
        _bundles(facts),
        _destinations(facts),
        _series(facts),
    )
    return document("rebrain-node site report", body)


def _header(facts: PeriodFacts) -> Html:
    period = f"rebrain-node, {utc(facts.begin)} to {utc(facts.end)}"
    warning = "Synthetic images: research software, not for diagnosis"
    title = tag("div", tag("h1", "Site report"), tag("p", period))
    return tag("header", title, tag("p", warning, class_="warning"))


def _tiles(facts: PeriodFacts) -> Html:
    states = Counter(one.state for one in facts.series)
    untrusted = sum(bool(one.untrusted) for one in facts.results.values())
    intact = facts.verdict.intact
    tiles = [
        ("series", len(facts.series), ""),
        ("published", states["published"], "good"),
        ("published, not confirmed", sum(one.confirmed is False for one in facts.series), ""),
        ("refused", states["refused"], ""),
        ("failed", states["failed"], "bad" if states["failed"] else ""),
        ("held", states["held"], "bad" if states["held"] else ""),
        ("results with slices not to be trusted", untrusted, ""),
        ("audit log", "intact" if intact else "BROKEN", "good" if intact else "bad"),
    ]
    cells = (tag("div", tag("b", value), tag("span", name), class_=c) for name, value, c in tiles)
    return tag("section", *cells, class_="tiles")


def _refusals(facts: PeriodFacts) -> Html:
    codes = Counter(
        code
        for one in facts.series
        if one.state in ("refused", "failed")
        for code in dict.fromkeys(f.code for f in one.findings if f.severity == "refuse")
    )
    rows = [(tag("code", code), count) for code, count in codes.most_common()]
    content = table(("code", "series"), rows) if rows else tag("p", "No series was refused.")
    return tag("section", tag("h2", "Refusals by code"), content)


def _latency(facts: PeriodFacts) -> Html:
    seconds = sorted(facts.waited_s.values())
    heading = tag("h2", "From complete to published")
    if not seconds:
        return tag("section", heading, tag("p", "Nothing was published."))
    ninth = quantiles(seconds, n=10, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    row: Sequence[Content] = (
        len(seconds),
        *(f"{value:.0f} s" for value in (median(seconds), ninth, seconds[-1])),
    )
    return tag("section", heading, table(("results", "median", "90 %", "longest"), [row]))


def _uncertainty(facts: PeriodFacts) -> Html:
    means = [one.uncertainty for one in facts.results.values() if one.uncertainty is not None]
    heading = tag("h2", "Mean uncertainty of the results")
    if not means:
        return tag("section", heading, tag("p", "No result with a recorded uncertainty."))
    words = (
        f"{len(means)} results, median {median(means):.3g} of the display range, least "
        f"{min(means):.3g}, largest {max(means):.3g}."
    )
    content = histogram(means, _STEP, "mean uncertainty")
    return tag("section", heading, tag("p", words, class_="faint"), content)


def _stops(facts: PeriodFacts) -> Html:
    """Show where each stop rule stands now, and what stopped and released it in the period."""
    since = {one.rule: utc(one.since) for one in facts.stops}
    rows: list[Sequence[Content]] = [
        (one.rule, f"STOPPED since {since[one.rule]}" if one.rule in since else "within limit",
         tag("code", one.setting), one.words)
        for one in facts.readings
    ]  # fmt: skip
    rows += [
        (one.rule, f"STOPPED since {utc(one.since)}", "", one.reason)
        for one in facts.stops
        if one.rule == "operator"
    ]
    happened = [(utc(at), rule, what, reason) for at, rule, what, reason in facts.stop_events]
    names = ("rule", "stands now", "setting", "value and limit")
    return tag(
        "section", tag("h2", "Stop rules of delivery"),
        tag("p", f"Shadow mode is {'active' if facts.shadow else 'not active'} now."),
        table(names, rows, class_="short"),
        tag("h4", "In this period"),
        table(("when", "rule", "what", "reason"), happened, class_="short")
        if happened else tag("p", "No rule stopped delivery, and none was released."),
    )  # fmt: skip


def _bundles(facts: PeriodFacts) -> Html:
    made = Counter((one.bundle, one.bundle_digest[:16]) for one in facts.results.values())
    rows = [(name, tag("code", digest), count) for (name, digest), count in made.most_common()]
    if not rows:
        return Html("")
    return tag("section", tag("h2", "Bundles"), table(("bundle", "digest", "results"), rows))


def _destinations(facts: PeriodFacts) -> Html:
    rows = [
        (name, ", ".join(f"{count} {event}" for event, count in sorted(events.items())))
        for name, events in sorted(facts.deliveries.items())
    ]
    if not rows:
        return Html("")
    return tag("section", tag("h2", "Deliveries"), table(("destination", "events"), rows))


def _series(facts: PeriodFacts) -> Html:
    rows: list[Sequence[Content]] = []
    for one in facts.series:
        result = facts.results.get(one.series_instance_uid)
        mean = None if result is None else result.uncertainty
        rows.append(
            (
                tag("code", reference(one.series_instance_uid)), one.state_text,
                utc(one.changed_at), one.findings[0].code if one.findings else "",
                "" if mean is None else f"{mean:.3f}",
            )
        )  # fmt: skip
    names = ("series", "state", "since", "first finding", "mean uncertainty")
    return tag("section", tag("h2", "Series"), table(names, rows))
