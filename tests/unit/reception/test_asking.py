"""The verdict of completeness: what the answers of a source say of a series, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rebrain_node.domain.completeness import (
    CompletenessVerdict,
    Inquiry,
    SourceAnswer,
    as_completeness,
    least,
)
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.reception.asking import AskingRules, is_due, judge_answers, judge_completeness

RULES = AskingRules(pause_s=10, wait_s=600)
REQUIRED = replace(RULES, required=True)
#: the source has said twice what is here
WHOLE = Inquiry(
    series_instance_uid="1.2.1.1", study_instance_uid="1.2.1", revision=1, source="pacs",
    calling_ae_title="PACS", received=34, began_s=1000.0, asked_s=1010.0, rounds=2, equal=2,
    count=34, missing=0,
)  # fmt: skip
DOWN = replace(
    WHOLE, equal=0, count=None, missing=None, failed=2, failure="source pacs answered 0xA700"
)


def verdict(inquiry: Inquiry, after_s: float = 20.0, rules: AskingRules = RULES) -> str | None:
    found = judge_answers(inquiry, inquiry.began_s + after_s, rules)
    return found and found.completeness


@pytest.mark.hazard("H18")
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "VERIFIED"),
        ({"missing": None}, "VERIFIED"),  # a source that counts and does not list
        ({"equal": 1}, None),  # the number may still grow
        ({"count": 40, "missing": 6}, None),  # the rest may still come
        ({"count": 34, "missing": 1}, None),  # as many, but others
        ({"count": 30}, "UNVERIFIED"),  # deleted there, or not from there
        ({"count": 0}, "UNVERIFIED"),
        ({"source": None}, "UNVERIFIED"),
        ({"rounds": 0, "equal": 0, "count": None, "asked_s": None}, None),
    ],
)
def test_the_answers_give_a_verdict_or_are_awaited(answers, expected) -> None:
    assert verdict(replace(WHOLE, **answers)) == expected


@pytest.mark.hazard("H18")
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "VERIFIED"),
        ({"equal": 1}, "UNVERIFIED"),
        ({"count": 40, "missing": None}, "INCOMPLETE"),
        ({"count": 34, "missing": 1}, "INCOMPLETE"),
        ({"count": 30}, "UNVERIFIED"),
    ],
)
@pytest.mark.parametrize("rules", [RULES, REQUIRED])
def test_the_wait_has_an_end(answers, expected, rules) -> None:
    assert verdict(replace(WHOLE, **answers), after_s=600.0, rules=rules) == expected


def test_a_source_that_does_not_answer_is_given_up_after_some_tries() -> None:
    assert verdict(DOWN) is None
    assert verdict(replace(DOWN, failed=3)) == "UNVERIFIED"


@pytest.mark.hazard("H18")
def test_where_a_verified_series_is_required_the_whole_wait_is_used() -> None:
    fewer = replace(WHOLE, count=30)
    for inquiry in (replace(DOWN, failed=30), fewer):
        assert verdict(inquiry, after_s=599.9, rules=REQUIRED) is None
        assert verdict(inquiry, after_s=600.0, rules=REQUIRED) == "UNVERIFIED"


def test_a_number_and_a_failure_after_it_say_nothing() -> None:
    """The newest question counts: the source may have gone down while its number grew."""
    assert verdict(replace(WHOLE, failed=1, failure="down", equal=0)) is None


@pytest.mark.parametrize(
    ("inquiry", "words"),
    [
        (WHOLE, "pacs has 34 instances and all arrived, compared each by its UID"),
        (replace(WHOLE, missing=None), "compared by number"),
        (replace(WHOLE, count=40, missing=None), "40 instances, 34 arrived and 6"),
        (replace(WHOLE, missing=2), "34 instances, 34 arrived and 2"),
        (replace(WHOLE, count=30), "pacs has 30 instances and 34 arrived"),
        (replace(WHOLE, count=0), "does not have the series"),
        (replace(DOWN, failed=3), "could not be asked in 2 tries: source pacs answered 0xA700"),
        (replace(WHOLE, source=None), "no source is set for the sender PACS"),
        (replace(WHOLE, equal=1), "did not agree"),
    ],
)
def test_a_verdict_says_what_it_rests_on(inquiry: Inquiry, words: str) -> None:
    found = judge_answers(inquiry, inquiry.began_s + 600, RULES)
    assert found is not None
    assert words in found.reason


def test_a_source_is_asked_at_once_and_then_after_each_pause() -> None:
    assert is_due(replace(WHOLE, asked_s=None), 1000.0, RULES)
    assert not is_due(WHOLE, 1019.9, RULES)
    assert is_due(WHOLE, 1020.0, RULES)
    assert not is_due(replace(WHOLE, source=None, asked_s=None), 1000.0, RULES)


def record(completeness: str | None, reason: str | None = "why") -> SeriesRecord:
    return SeriesRecord(
        series_instance_uid="1.2.1.1", study_instance_uid="1.2.1", state="complete", revision=1,
        instance_count=34, completeness=completeness, findings=(), explanation=(),
        changed_at=datetime(2026, 1, 1, tzinfo=UTC), completeness_reason=reason,
    )  # fmt: skip


@pytest.mark.parametrize("severity", ["refuse", "flag"])
def test_an_incomplete_series_is_refused_or_flagged_as_the_policy_says(severity) -> None:
    found = judge_completeness(record("INCOMPLETE"), required=False, severity=severity)
    assert found is not None
    assert (found.code, found.severity) == ("SOURCE-HAS-MORE", severity)
    assert "why" in found.sentence


def test_an_unverified_series_is_refused_only_where_the_site_requires_it() -> None:
    unverified = record("UNVERIFIED", None)
    assert judge_completeness(unverified, required=False, severity="flag") is None
    found = judge_completeness(unverified, required=True, severity="flag")
    assert found is not None
    assert (found.code, found.severity) == ("NOT-VERIFIED", "refuse")
    assert "queue retry 1.2.1.1" in found.sentence
    for good in ("VERIFIED", None):
        assert judge_completeness(record(good), required=True, severity="refuse") is None


def test_a_list_says_which_instances_are_missing_unless_it_is_cut() -> None:
    held = frozenset("ab")
    assert SourceAnswer(count=2, uids=frozenset("ab")).missing(held) == 0
    assert SourceAnswer(count=2, uids=frozenset("ac")).missing(held) == 1
    assert SourceAnswer(count=2, uids=frozenset("a")).missing(held) is None
    assert SourceAnswer(count=9, uids=frozenset("c")).missing(held) == 1


def test_a_study_is_as_complete_as_its_least_complete_series() -> None:
    def of(*verdicts):
        return least(
            {str(n): CompletenessVerdict(completeness=v, reason="") for n, v in enumerate(verdicts)}
        )

    assert of() == "UNVERIFIED"
    assert of("VERIFIED") == "VERIFIED"
    assert of("VERIFIED", "UNVERIFIED") == "UNVERIFIED"
    assert of("UNVERIFIED", "INCOMPLETE", "VERIFIED") == "INCOMPLETE"
    assert as_completeness("what an unknown version wrote") == as_completeness(None) == "UNVERIFIED"
