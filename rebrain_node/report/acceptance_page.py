"""The acceptance report: what shadow mode has shown, against what the site requires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from rebrain_node.domain.acceptance import AcceptanceFacts, ShadowResult, ninetieth
from rebrain_node.domain.stop_rules import DriftStatistic
from rebrain_node.domain.text import reference, utc
from rebrain_node.report.histogram import histogram
from rebrain_node.report.markup import Content, Html, document, join, table, tag

_WARNING: Final = "Synthetic images: research software, not for diagnosis"


def acceptance_page(facts: AcceptanceFacts) -> str:
    """Write the page; it loads nothing, holds no script and no patient data."""
    body = join(
        _header(facts),
        _tiles(facts),
        _rules(facts),
        _codes("Refusals by code", facts.refused, "No series was refused."),
        _codes("Failures by code", facts.failed, "No series failed."),
        _codes("Refused by the gate", facts.gate, "The gate refused no result."),
        _latency(facts),
        _distributions(facts),
        drift_section(facts.drift),
        _verdicts(facts),
        _results(facts),
    )
    return document("rebrain-node acceptance report", body)


def drift_section(drift: Sequence[DriftStatistic]) -> Html:
    """Show each drift statistic with its limit; the farthest first."""
    heading = tag("h2", "Drift against the reference of the bundle")
    if not drift:
        words = "No result with a measure that the bundle has a reference for."
        return tag("section", heading, tag("p", words))
    rows = [
        (
            one.words, f"{one.value:+.2f}",
            f"{one.limit:g}" + (" on either side" if one.two_sided else ""), one.unit,
            one.results, "beyond" if one.load > 1.0 else "within",
        )
        for one in drift
    ]  # fmt: skip
    names = ("measure", "median", "limit", "unit", "results", "stands")
    return tag("section", heading, table(names, rows))


def _header(facts: AcceptanceFacts) -> Html:
    spans = "; ".join(f"{utc(a)} to {utc(b)}" for a, b in facts.active)
    words = f"Shadow mode was active: {spans or 'never in this period'}"
    period = f"rebrain-node, {utc(facts.begin)} to {utc(facts.end)}"
    title = tag("div", tag("h1", "Acceptance report"), tag("p", period), tag("p", words))
    return tag("header", title, tag("p", _WARNING, class_="warning"))


def _tiles(facts: AcceptanceFacts) -> Html:
    judged = facts.judged
    accepted = sum(bool(one.accepted) for one in judged)
    tiles: list[tuple[str, str | int, str]] = [
        ("studies complete", facts.studies, ""),
        ("results of shadow mode", len(facts.results), ""),
        ("refusals", sum(facts.refused.values()), ""),
        ("failed, or refused by the gate", facts.failures, "bad" if facts.failures else ""),
        ("accepted by readers", accepted, "good"),
        ("rejected by readers", len(judged) - accepted, "bad" if len(judged) > accepted else ""),
        ("made outside shadow mode, not counted", facts.outside, ""),
        ("criteria", "all met" if facts.met else "NOT MET", "good" if facts.met else "bad"),
    ]
    cells = (tag("div", tag("b", value), tag("span", name), class_=c) for name, value, c in tiles)
    return tag("section", *cells, class_="tiles")


def _rules(facts: AcceptanceFacts) -> Html:
    rows = [
        (tag("b", "met" if one.met else "NOT MET"), one.found, one.required,
         tag("code", one.setting), one.name)
        for one in facts.rules
    ]  # fmt: skip
    unmet = [one.name for one in facts.rules if not one.met]
    words = (
        "Every criterion of the site is met."
        if not unmet
        else f"Not met: {'; '.join(unmet)}. Stay in shadow mode, or change the criteria with a "
        "reason that you record."
    )
    names = ("", "found", "required", "setting", "criterion")
    content = table(names, rows, class_="short")
    return tag("section", tag("h2", "Criteria"), tag("p", words), content)


def _codes(title: str, codes: Mapping[str, int], none: str) -> Html:
    rows = [
        (tag("code", code), n) for code, n in sorted(codes.items(), key=lambda c: (-c[1], c[0]))
    ]
    content = table(("code", "series"), rows) if rows else tag("p", none)
    return tag("section", tag("h2", title), content)


def _latency(facts: AcceptanceFacts) -> Html:
    heading, seconds = tag("h2", "From complete study to result"), facts.latencies_s
    if not seconds:
        return tag("section", heading, tag("p", "No result."))
    found = (median(seconds), ninetieth(seconds) or 0.0, seconds[-1])
    row: Sequence[Content] = (len(seconds), *(f"{value:.0f} s" for value in found))
    return tag("section", heading, table(("results", "median", "90 %", "longest"), [row]))


def _distributions(facts: AcceptanceFacts) -> Html:
    measures = [one.measures for one in facts.results]
    means = [one.uncertainty for one in measures if one.uncertainty is not None]
    scores = [one.ood_score for one in measures if one.ood_score is not None]
    return join(
        _distribution("Mean uncertainty, ratio of the display range", means, 0.02),
        _distribution("OOD score", scores, 0.2),
    )


def _distribution(title: str, values: Sequence[float], step: float) -> Html:
    if not values:
        return tag("section", tag("h2", title), tag("p", "Not recorded for any result."))
    words = (
        f"{len(values)} results, median {median(values):.3g}, least {min(values):.3g}, largest "
        f"{max(values):.3g}."
    )
    content = histogram(values, step, title)
    return tag("section", tag("h2", title), tag("p", words, class_="faint"), content)


def _verdicts(facts: AcceptanceFacts) -> Html:
    rows = [
        (tag("code", reference(one.series_instance_uid)), each.verdict, utc(each.recorded_at),
         f"{each.operator}: {each.reason}")
        for one in facts.results
        for each in one.verdicts
    ]  # fmt: skip
    heading = tag("h2", "Verdicts of readers")
    if not rows:
        words = "None. `rebrain-node queue verdict SERIES accept --reason TEXT` records one."
        return tag("section", heading, tag("p", words))
    names = ("series", "verdict", "when", "who and why")
    return tag("section", heading, table(names, rows, class_="short"))


def _results(facts: AcceptanceFacts) -> Html:
    rows = [_row(one) for one in facts.results]
    names = (
        "series", "made", "latency", "uncertainty", "slices not to be trusted", "OOD score",
        "brain, HU", "verdict",
    )  # fmt: skip
    content = table(names, rows) if rows else tag("p", "No result.")
    return tag("section", tag("h2", "Results of shadow mode"), content)


def _row(one: ShadowResult) -> Sequence[Content]:
    found = one.measures
    verdict = {None: "", True: "accepted", False: "rejected"}[one.accepted]
    return (
        tag("code", reference(one.series_instance_uid)), utc(one.made_at),
        "" if one.latency_s is None else f"{one.latency_s:.0f} s", _number(found.uncertainty, 3),
        f"{found.untrusted} of {found.slices}", _number(found.ood_score, 2),
        _number(found.brain_hu, 1), verdict,
    )  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
