"""The audit report tells everything, escapes everything and loads nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebrain_node.domain.audit import AuditEvent, ChainVerdict
from rebrain_node.domain.delivery import Delivery
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.report.audit import render
from rebrain_node.report.markup import tag

BEGUN = datetime(2026, 1, 2, 10, 20, tzinfo=UTC)
INJECTIONS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'--></style><iframe src='http://example.org'>",
    "</svg></td></table><b onmouseover=alert(1)>",
    "&lt;b&gt; & co",
)
INTACT = ChainVerdict(intact=True, rows=4, head="a" * 64)


def an_event(sequence, event, subject, **details):
    return AuditEvent(
        sequence=sequence,
        recorded_at=BEGUN + timedelta(seconds=sequence),
        monotonic_ns=sequence,
        event=event,
        subject=subject,
        details=details,
        hash=f"{sequence:064x}",
    )


def a_series(uid="1.2.3", state="published", words="", **changes):
    values = {
        "series_instance_uid": uid,
        "study_instance_uid": "1.2",
        "state": state,
        "revision": 1,
        "instance_count": 33,
        "completeness": "UNVERIFIED",
        "findings": (),
        "explanation": (f"most complete of two{words}",),
        "changed_at": BEGUN,
    }
    return SeriesRecord(**{**values, **changes})


def a_page(words=""):
    series = [
        a_series(
            "1.2.4",
            "refused",
            findings=(Finding(code="LOCALIZER", sentence=f"a scout{words}", value=1.5, limit="0"),),
        ),
        a_series(words=words),
    ]
    events = [
        an_event(1, "study.complete", "1.2", completeness="UNVERIFIED", instances=34),
        an_event(2, "step.completed", "1.2.3", step="synthesise", seconds=30.25),
        an_event(3, "step.completed", "1.2.3", step=f"write{words}", seconds=3.5),
        an_event(4, "series.synthesised", "1.2.3", sha256="f" * 64, objects={"MR": 5, words: 1}),
    ]
    delivery = Delivery(
        set_id=1,
        destination="pacs",
        study_instance_uid="1.2",
        source_series_uid="1.2.3",
        revision=1,
        states={"pending": 7},
        attempts=2,
        reason=f"no association{words}",
        since=BEGUN,
    )
    return render(series, events, INTACT, [delivery])


class Elements(HTMLParser):
    """Every element and attribute of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_tells_of_series_findings_steps_result_delivery_and_rows():
    text = "".join(Elements(a_page()).text)
    for words in (
        "1.2.3", "1.2.4", "published", "refused", "LOCALIZER", "a scout", "most complete of two",
        "synthesise", "30.25 s", "33.75 s", "f" * 64, '{"": 1, "MR": 5}', "no association",
        "2026-01-02 10:20:01.000", f"{4:064x}",
        "All 4 rows of the audit log are as they were written", "not for diagnosis",
    ):  # fmt: skip
        assert words in text, words


def test_what_was_made_stands_before_what_was_refused():
    page = a_page()
    assert page.index("most complete of two") < page.index("a scout")


@pytest.mark.parametrize("words", INJECTIONS)
def test_words_from_outside_stay_words(words):
    plain, attacked = Elements(a_page(" harmless")), Elements(a_page(words))
    assert attacked.elements == plain.elements
    assert attacked.attributes == plain.attributes
    assert words in "".join(attacked.text)


@settings(max_examples=50, deadline=None)
@given(words=st.text(max_size=40))
def test_any_text_survives_as_text(words):
    parsed = Elements(tag("p", words, title=words).text)
    assert parsed.elements == ["p"]
    assert [a for a in parsed.attributes if a[1] != "title"] == []
    # the parser reads a carriage return as any HTML reader does
    assert "".join(parsed.text) == words


def test_the_page_loads_nothing_and_runs_nothing():
    page = a_page()
    parsed = Elements(page)
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(parsed.elements)
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    assert {name for _, name, _ in parsed.attributes} & {"src", "href", "style"} == set()
    assert not re.search(r"https?://|url\(|@import", page)
    policies = [
        value for tag, name, value in parsed.attributes if (tag, name) == ("meta", "content")
    ]
    assert [value for value in policies if value.startswith("default-src 'none'")]


def test_a_page_that_lists_only_the_newest_rows_says_so():
    page = render([], [an_event(4, "node.started", "node")], INTACT, [])
    assert (
        "All 4 rows of the audit log are as they were written. The newest 1 are listed here."
        in page
    )
    assert "newest" not in a_page()


def test_every_cell_of_a_listing_has_the_name_of_its_column_for_narrow_screens():
    names = [value for _, name, value in Elements(a_page()).attributes if name == "data-name"]
    assert {"code", "finding", "limit", "subject, details", "hash", "attempts"} <= set(names)


def test_a_broken_chain_is_said_aloud():
    verdict = ChainVerdict(
        intact=False, rows=2, head="b" * 64, broken_sequence=3, reason="details were changed"
    )
    page = render([], [an_event(1, "node.started", "node")], verdict, [])
    text = "".join(Elements(page).text)
    assert "BROKEN" in text
    assert "Row 3 of the audit log is not as it was written (details were changed)" in text


def test_an_empty_store_gives_a_page():
    text = "".join(Elements(render([], [], INTACT, [])).text)
    assert "empty log" in text


def test_the_same_state_gives_the_same_page():
    assert a_page() == a_page()
