"""Report of a series and of a site: every question has its place, and no text becomes markup."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from rebrain_node.cli.terminal import aligned_table, detail_words, plain, tabbed_table
from rebrain_node.domain.acceptance import (
    AcceptanceFacts,
    AcceptanceLimits,
    ReaderVerdict,
    ShadowResult,
)
from rebrain_node.domain.audit import AuditEvent, ChainVerdict
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.domain.result import DestinationRecord, ResultRecord, SubjectSummary
from rebrain_node.domain.stop_rules import ResultMeasures, StopLimits, drift_of
from rebrain_node.report.acceptance_page import acceptance_page
from rebrain_node.report.result_pictures import pictures_of
from rebrain_node.report.series_page import SeriesFacts, series_page
from rebrain_node.report.site_page import PeriodFacts, site_page
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.injections import INJECTIONS
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

AT = datetime(2026, 1, 2, 10, 20, tzinfo=UTC)
UID = "1.2.826.0.1.7"
#: fields that come from outside, or from a file that somebody else wrote
FIELDS = (
    "explanation", "finding sentence", "detail name", "completeness", "bundle", "digest",
    "signer", "engine", "exemplar", "label", "destination", "event", "subject", "detail", "reason",
)  # fmt: skip


def an_event(sequence, event, subject=UID, **details):
    return AuditEvent(
        sequence=sequence, recorded_at=AT, monotonic_ns=sequence, event=event, subject=subject,
        details=details, hash=f"{sequence:064x}",
    )  # fmt: skip


def facts(field="", text="x"):
    """What the page shows, with a text in one field, or (``*``) in all."""

    def at(name, otherwise):
        return text if field in (name, "*") else otherwise

    slices = [
        [0.0, "measured", 0.0, None, None, None, 0, None],
        [1.0, "retrieved", 0.5, 0.99, at("exemplar", "ab" * 24), 0.4, 1, None],
    ]
    record = SeriesRecord(
        series_instance_uid=UID, study_instance_uid="1.2", state="published", revision=1,
        instance_count=33, completeness=at("completeness", "VERIFIED"),
        findings=(Finding(code="METAL", severity="flag",
                          sentence=at("finding sentence", "metal was seen")),),
        explanation=(at("explanation", "rank 1 of 1"),), changed_at=AT, confirmed=True,
    )  # fmt: skip
    result = ResultRecord(
        set_id=1, source_series_uid=UID, revision=1, made_at=AT, mr_series_uid="2.25.7",
        objects={"MR": 2, "SR": 1}, bundle=at("bundle", "demo 1.2.0"),
        bundle_digest=at("digest", "8" * 64), signed_by=at("signer", "site"),
        engine=at("engine", "openvino"), software_version="0.1.0",
        kinds={"measured": 1, "retrieved": 1},
        subjects=(SubjectSummary(subject="ab" * 16, exemplars=1, slices=(2,)),),
        uncertainty=0.2, uncertainty_label=at("label", "UNCALIBRATED"), untrusted=(2,),
        ood_score=0.8, ood_threshold=2.2,
        destinations=(DestinationRecord(destination=at("destination", "pacs"),
                                        states={"confirmed": 3}, accepted_at=AT, confirmed_at=AT),),
    )  # fmt: skip
    events = [
        an_event(1, "instance.received", "1.2.3", series=UID),
        an_event(2, "series.guided", revision=1, kinds={"measured": 1, "retrieved": 1},
                 reasons=["measured", at("reason", "an exemplar is near")], slices=slices),
        an_event(3, "series.uncertainty", revision=1, slices=[0.1, 0.4], untrusted=[2]),
        an_event(4, "series.synthesised", sha256="f" * 64, provenance="e" * 64),
        an_event(5, at("event", "delivery.taken"), at("subject", "pacs"),
                 **{at("detail name", "taken"): at("detail", "3")}),
    ]  # fmt: skip
    verdict = ChainVerdict(intact=True, rows=5, head="a" * 64)
    return SeriesFacts(record=record, study=[record], result=result, pictures=None, events=events,
                       verdict=verdict)  # fmt: skip


class Skeleton(HTMLParser):
    """The elements of a page with their attributes, without text."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.elements.append(("comment", ()))


@pytest.mark.parametrize("field", FIELDS)
def test_no_text_in_any_field_becomes_markup_of_the_page(field):
    expected = Counter(Skeleton(series_page(facts(field))).elements)
    for text in INJECTIONS:
        page = (
            series_page(facts(field, text))
            .encode("utf-8", "surrogatepass")
            .decode("utf-8", "replace")
        )
        found = Skeleton(page)
        assert Counter(found.elements) == expected, text


@pytest.mark.parametrize("field", FIELDS)
def test_no_text_in_any_field_breaks_a_row_or_reaches_the_terminal(field):
    for text in INJECTIONS:
        one = facts(field, text)
        rows = [[plain(v) for v in row] for row in one.result.rows()]
        rows += [[plain(e.event), plain(detail_words(e.details))] for e in one.events]
        rows += [[plain(f.code), plain(f.sentence)] for f in one.record.findings]
        lines = tabbed_table("Rows", ("field", "value"), rows).splitlines()
        assert len(lines) == 2 + len(rows)
        assert all(line.count("\t") == 1 for line in lines[1:])
        shown = aligned_table("Rows", ("field", "value"), rows, 100)
        assert shown.replace("\n", "").isprintable()


def test_there_are_as_many_strings_as_are_promised():
    assert len(set(INJECTIONS)) == 60
    assert len(FIELDS) == 15


def test_the_page_of_a_series_answers_every_question():
    text = Skeleton(series_page(facts())).text
    for answer in ("demo 1.2.0, signed by site", "1 of 1 subjects", "0.2 of the display range",
                   "1: 2", "0.8 (limit 2.2)", "2.25.7", "accepted 2026-01-02T10:20:00Z",
                   "confirmed 2026-01-02T10:20:00Z", "NOT TO BE TRUSTED", "rank 1 of 1",
                   "All 5 rows of the audit log are as they were written", "f" * 64,
                   "not for diagnosis"):  # fmt: skip
        assert answer in text


def test_a_broken_log_is_said_on_the_page():
    verdict = ChainVerdict(intact=False, rows=2, head="b" * 64, broken_sequence=3, reason="changed")
    text = Skeleton(series_page(replace(facts(), verdict=verdict))).text
    assert "Row 3 of the audit log is not as it was written (changed)" in text


def test_a_series_of_which_nothing_was_made_has_a_page_too():
    text = Skeleton(series_page(replace(facts(), result=None, events=[]))).text
    assert "Nothing was made of this series" in text
    assert "Nothing was sent" in text


@pytest.mark.parametrize(("mr", "precision"), [("classic", "uint16"), ("enhanced", "float32")])
def test_pictures_show_mr_and_uncertainty_in_three_planes_from_the_stored_objects(mr, precision):
    source = head_ct()
    volume = synthetic_volume(source)
    options = ObjectOptions(mr=mr, companions=("PM",), map_precision=precision)
    drawn = pictures_of(write(volume, source, provenance(), (), options).instances)
    assert [(one.what, one.view) for one in drawn.pictures] == [
        (what, view)
        for what in ("synthetic MR", "uncertainty")
        for view in ("axial", "coronal", "sagittal")
    ]
    assert all(one.png.startswith(b"\x89PNG") for one in drawn.pictures)
    assert dict(drawn.geometry)["slices"].startswith(f"{len(volume.guides)} of ")
    inside = volume.uncertainty[volume.uncertainty > 0]
    assert drawn.largest == pytest.approx(float(np.percentile(inside, 99.7)), rel=0.01)
    page = series_page(replace(facts(), pictures=drawn))
    assert page.count("data:image/png;base64,") == 6
    assert "http" not in page.replace("http-equiv", "")


def test_a_set_without_readable_mr_has_no_picture():
    assert pictures_of([]) is None
    unreadable = DerivedInstance(
        kind="MR", sop_class_uid="1.2", sop_instance_uid="1.3", series_instance_uid="1.4",
        content=b"x" * 200,
    )  # fmt: skip
    assert pictures_of([unreadable]) is None


def test_the_site_report_counts_refusals_latency_and_uncertainty():
    one = facts()
    refusal = Finding(code="METAL", sentence="metal was seen")
    refused = replace(one.record, series_instance_uid="1.9", state="refused", confirmed=None,
                      findings=(refusal,))  # fmt: skip
    period = PeriodFacts(
        begin=AT, end=AT, series=[one.record, refused], results={UID: one.result},
        waited_s={UID: 167.0}, deliveries={"pacs": {"delivery.taken": 4}}, verdict=one.verdict,
    )  # fmt: skip
    page = site_page(period)
    text = Skeleton(page).text
    for answer in ("METAL", "167 s", "0.20 to 0.22", "demo 1.2.0", "4 delivery.taken", "intact"):
        assert answer in text
    assert site_page(replace(period, series=[], results={}, waited_s={}, deliveries={}))


def acceptance_facts(text="x"):
    """What the acceptance report shows, with a text in every field that comes from outside."""
    verdict = ReaderVerdict(operator=text, verdict="reject", reason=text, recorded_at=AT)
    measures = ResultMeasures(uncertainty=0.2, slices=3, ood_score=0.8, deviations={text: 4.0})
    result = ShadowResult(
        series_instance_uid=UID, set_id=1, made_at=AT, latency_s=61.0, measures=measures,
        verdicts=(verdict,),
    )  # fmt: skip
    return AcceptanceFacts(
        begin=AT, end=AT, active=((AT, AT),), limits=AcceptanceLimits(), studies=1,
        results=(result,), outside=0, refused={text: 1}, failed={text: 1}, gate={text: 1},
        failures=2, stops=(text,), drift=drift_of([measures], StopLimits()),
    )  # fmt: skip


def test_no_text_becomes_markup_of_the_acceptance_report():
    expected = Counter(Skeleton(acceptance_page(acceptance_facts())).elements)
    for text in INJECTIONS:
        page = acceptance_page(acceptance_facts(text)).encode("utf-8", "surrogatepass")
        assert Counter(Skeleton(page.decode("utf-8", "replace")).elements) == expected, text


def test_the_acceptance_report_names_each_criterion_and_the_verdict():
    page = acceptance_page(acceptance_facts())
    for rule in acceptance_facts().rules:
        assert rule.name in page
        assert rule.setting in page
    assert "0 of 1, 95 % interval 0 % to 79.3 %" in page
    assert "61 s" in page
