"""A quiet study whose sources are asked: through database, threads, watcher and restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset

from rebrain_node.app.compose import State, open_state
from rebrain_node.domain.audit import Event
from rebrain_node.domain.completeness import CompletenessVerdict, SourceAnswer
from rebrain_node.errors import DeliveryError
from rebrain_node.limits_file import load_limits, shipped_limits
from rebrain_node.pipeline import Configuration
from rebrain_node.reception.asking import AskingRules
from rebrain_node.reception.completeness import QuietPeriodTracker
from rebrain_node.reception.inbox import InboxFolder
from rebrain_node.settings import Settings, Storage
from rebrain_node.worker import sources
from rebrain_node.worker.sources import SourceInquiry
from rebrain_node.worker.watcher import Watcher
from rebrain_node.worker.work import Work
from tests.integration.test_rejections_received import take
from tests.support.dicom_peers import settles
from tests.support.quick_node import quick_study
from tests.support.store_cases import accept, fast_folder, received

pytestmark = pytest.mark.hazard("H18")
STUDY, SERIES = "1.2.1", "1.2.1.1"
RULES = AskingRules(pause_s=0.5, wait_s=600)


@dataclass
class Archive:
    """A source: how many instances it has of each series, or what is wrong with it."""

    counts: dict[str, int] = field(default_factory=dict)
    failure: Exception | None = None
    busy: threading.Event | None = None  #: it answers once this is set
    questions: int = 0

    def ask(self, study: str, held: Mapping[str, int]) -> Mapping[str, SourceAnswer]:
        assert study
        self.questions += 1
        if self.busy is not None:
            assert self.busy.wait(30)
        if self.failure is not None:
            raise self.failure
        return {series: SourceAnswer(count=self.counts.get(series, 0)) for series in held}


@dataclass
class Node:
    """The state of a node, its sources and the clock of its receiver."""

    state: State
    archives: dict[str, Archive]
    listened_s: float = 1000.0

    def inquiry(self, rules: AskingRules = RULES) -> SourceInquiry:
        """What a worker that has just started asks with."""
        return SourceInquiry(
            inquiries=self.state.inquiries,
            sources=self.archives,
            source_of={"CT1": "first", "CT2": "second", "PACS": "first"},
            rules=rules,
            clock=lambda: self.listened_s,
        )

    def rounds(self, series: str = SERIES) -> int:
        found = self.state.inquiries.of_series(series)
        return 0 if found is None else found.rounds

    def ask(
        self, asking: SourceInquiry, rounds: int, series: str = SERIES
    ) -> Mapping[str, CompletenessVerdict] | None:
        """Let time pass until the source was asked so often; the verdicts then."""
        while (before := self.rounds(series)) < rounds:
            self.listened_s += 1.0
            assert settles(partial(self._asked, asking, series, before))
        return asking.verdicts(STUDY)

    def _asked(self, asking: SourceInquiry, series: str, before: int) -> bool:
        study = series.rpartition(".")[0]
        assert asking.verdicts(study) is None or self.rounds(series) > before
        return self.rounds(series) > before


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(sources, "LOOK_S", 0.0)
    with fast_folder() as folder, open_state(a_node(folder)) as state:
        yield Node(state, {"first": Archive(), "second": Archive()})


def a_node(folder: Path) -> Settings:
    return Settings(storage=Storage(folder=folder / "state", soft_mark_bytes=0, hard_mark_bytes=0))


def receive(node: Node, count: int, **changes: str) -> None:
    for n in range(1, count + 1):
        node.state.ledger.record_received(received(n, **changes))


def only(found: Mapping[str, CompletenessVerdict] | None) -> CompletenessVerdict:
    assert found is not None
    (verdict,) = found.values()
    return verdict


def test_two_equal_answers_verify_a_series(node: Node) -> None:
    receive(node, 3)
    node.archives["first"].counts[SERIES] = 3
    asking = node.inquiry()
    assert node.ask(asking, 1) is None
    verdict = only(node.ask(asking, 2))
    assert (verdict.completeness, node.archives["first"].questions) == ("VERIFIED", 2)
    (study,) = node.state.ledger.studies_in_reception()
    assert node.state.ledger.complete(study, {"reason": "QUIET"}, {SERIES: verdict})
    record = node.state.ledger.series_one(SERIES)
    assert record is not None
    assert (record.completeness, record.completeness_reason) == ("VERIFIED", verdict.reason)
    (event,) = node.state.audit.events(9, event=Event.SERIES_VERIFIED)
    assert event.details["completeness"] == "VERIFIED"
    assert event.details["instances"] == 3
    (event,) = node.state.audit.events(9, event=Event.STUDY_COMPLETE)
    assert event.details["completeness"] == "VERIFIED"


def test_a_restart_between_two_answers_neither_loses_nor_repeats_one(node: Node) -> None:
    receive(node, 3)
    archive = node.archives["first"]
    archive.counts[SERIES] = 3
    assert node.ask(node.inquiry(), 1) is None
    again = node.inquiry()
    for _ in range(9):
        assert again.verdicts(STUDY) is None  # the pause of the first question has not passed
    assert archive.questions == 1
    assert only(node.ask(again, 2)).completeness == "VERIFIED"
    assert archive.questions == 2


def test_a_number_that_grows_is_asked_until_it_stands(node: Node) -> None:
    """The source receives from the scanner while it sends to the node."""
    receive(node, 2)
    archive, asking = node.archives["first"], node.inquiry()
    archive.counts[SERIES] = 2
    assert node.ask(asking, 1) is None
    archive.counts[SERIES] = 3
    assert node.ask(asking, 2) is None
    receive(node, 3)
    assert node.ask(asking, 3) is None
    assert only(node.ask(asking, 4)).completeness == "VERIFIED"


def test_an_instance_that_arrives_between_two_answers_begins_anew(node: Node) -> None:
    receive(node, 2)
    archive, asking = node.archives["first"], node.inquiry()
    archive.counts[SERIES] = 3
    assert node.ask(asking, 2) is None
    receive(node, 3)
    assert asking.verdicts(STUDY) is None  # the two answers were given over two instances
    assert node.ask(asking, 3) is None
    assert only(node.ask(asking, 4)).completeness == "VERIFIED"


def test_what_does_not_come_within_the_wait_is_incomplete(node: Node) -> None:
    receive(node, 2)
    node.archives["first"].counts[SERIES] = 3
    asking = node.inquiry()
    assert node.ask(asking, 3) is None
    node.listened_s += 600
    verdict = only(asking.verdicts(STUDY))
    assert verdict.completeness == "INCOMPLETE"
    assert "3 instances, 2 arrived and 1" in verdict.reason


def test_the_wait_passes_only_while_the_receiver_listens(node: Node) -> None:
    receive(node, 2)
    node.archives["first"].failure = DeliveryError("down")
    required = replace(RULES, required=True)
    asking = node.inquiry(required)
    node.ask(asking, 4)
    for _ in range(100):
        assert node.inquiry(required).verdicts(STUDY) is None
    node.listened_s += 600
    assert only(node.inquiry(required).verdicts(STUDY)).completeness == "UNVERIFIED"


def test_a_source_that_fails_is_named_with_its_reason(node: Node) -> None:
    receive(node, 2)
    node.archives["first"].failure = DeliveryError("source first answered 0xA700 to C-FIND")
    verdict = only(node.ask(node.inquiry(), 3))
    assert verdict.completeness == "UNVERIFIED"
    assert "0xA700" in verdict.reason


def test_an_answer_that_breaks_the_node_counts_as_none_and_is_told_without_its_text(
    node: Node,
) -> None:
    receive(node, 2)
    node.archives["first"].failure = KeyError("Name^Of^Somebody")
    verdict = only(node.ask(node.inquiry(), 3))
    assert "KeyError at test_completeness_asked.py" in verdict.reason
    assert "Somebody" not in verdict.reason


def test_a_source_that_was_taken_out_of_the_settings_is_said_to_be_missing(node: Node) -> None:
    receive(node, 2)
    asking = replace(node.inquiry(), sources={})
    assert "no longer have a source 'first'" in only(node.ask(asking, 3)).reason


def test_without_a_source_nobody_is_asked(node: Node) -> None:
    receive(node, 2)
    asking = replace(node.inquiry(), source_of={})
    verdict = only(asking.verdicts(STUDY))
    assert (verdict.completeness, node.rounds()) == ("UNVERIFIED", 0)
    assert "receiver.peers" in verdict.reason


def test_a_source_that_hangs_holds_up_no_other(node: Node) -> None:
    receive(node, 2)
    for n in range(2):
        second = received(n, series="1.2.9.1", study="1.2.9")
        node.state.ledger.record_received(replace(second, calling_ae_title="CT2"))
    node.archives["first"].busy = threading.Event()
    node.archives["second"].counts["1.2.9.1"] = 2
    asking = node.inquiry()
    try:
        assert asking.verdicts(STUDY) is None
        node.ask(asking, 2, "1.2.9.1")
        assert only(asking.verdicts("1.2.9")).completeness == "VERIFIED"
        assert (node.archives["first"].questions, node.rounds()) == (1, 0)
    finally:
        node.archives["first"].busy.set()


def test_only_series_of_ct_are_asked_about(node: Node) -> None:
    receive(node, 1)
    report = received(1, series="1.2.1.9")
    sop_class = "1.2.840.10008.5.1.4.1.1.88.33"
    node.state.ledger.record_received(replace(report, sop_class_uid=sop_class))
    node.archives["first"].counts[SERIES] = 1
    found = node.ask(node.inquiry(), 2)
    assert found is not None
    assert set(found) == {SERIES}


def test_a_late_instance_has_the_source_asked_anew(node: Node) -> None:
    receive(node, 2)
    archive = node.archives["first"]
    archive.counts[SERIES] = 2
    verdict = only(node.ask(node.inquiry(), 2))
    (study,) = node.state.ledger.studies_in_reception()
    node.state.ledger.complete(study, {}, {SERIES: verdict})
    accept(node.state.ledger)
    receive(node, 3)
    record = node.state.ledger.series_one(SERIES)
    assert record is not None
    assert (record.revision, record.completeness, record.completeness_reason) == (2, None, None)
    archive.counts[SERIES] = 3
    assert only(node.ask(node.inquiry(), 2)).completeness == "VERIFIED"
    assert archive.questions == 4


def watcher(node: Node, rules: AskingRules, policy: str = "refuse") -> Watcher:
    """A watcher that judges and starts no synthesis."""
    nothing = cast(Any, None)
    text = Path("conf/limits.toml").read_text(encoding="utf-8")
    limits = load_limits(
        text.replace('SOURCE-HAS-MORE = "refuse"', f'SOURCE-HAS-MORE = "{policy}"')
    )
    configuration = Configuration(
        bundle=nothing, limits=limits, objects=nothing, software_version="", digest=""
    )
    inbox = InboxFolder(node.state.inbox, node.state.ledger)
    return Watcher(
        work=Work(
            ledger=node.state.ledger, outbox=node.state.outbox, ports=nothing,
            configuration=lambda: configuration, destinations=(),
        ),
        workflows=cast(Any, NoWorkflows()),
        inbox=lambda: inbox,
        settling=QuietPeriodTracker(quiet_period_s=0, maximum_wait_s=1, resume_wait_s=0),
        listening=node.state.listening,
        folder=node.state.folder,
        soft_mark_bytes=0,
        recall=node.state.recall,
        sources=node.inquiry(rules),
    )  # fmt: skip


class NoWorkflows:
    def start_synthesis(self, *_: object) -> None:
        pass

    def has_given_up(self, *_: object) -> bool:
        return False


def judged(node: Node, rules: AskingRules, policy: str = "refuse") -> tuple[str, list[str]]:
    """Poll until every series is judged; state and codes of the CT series."""
    watching = watcher(node, rules, policy)
    watching.poll()

    def ended() -> bool:
        node.listened_s += 1.0
        node.state.listening.add(1.0)
        watching.poll()
        return node.state.ledger.series()[0].state in {"accepted", "refused"}

    assert settles(ended)
    (record,) = node.state.ledger.series()
    return record.state, [finding.code for finding in record.findings]


@pytest.fixture
def study(node: Node) -> list[Dataset]:
    instances = quick_study()
    take(node.state, *instances)
    return instances


def series_of(study: list[Dataset]) -> str:
    return str(study[0].SeriesInstanceUID)


def test_a_verified_series_is_accepted(node: Node, study: list[Dataset]) -> None:
    node.archives["first"].counts[series_of(study)] = len(study)
    state, codes = judged(node, replace(RULES, required=True))
    assert state == "accepted"
    assert "NOT-VERIFIED" not in codes
    assert node.state.ledger.series()[0].completeness == "VERIFIED"


@pytest.mark.parametrize(("policy", "state"), [("refuse", "refused"), ("flag", "accepted")])
def test_an_incomplete_series_goes_on_only_where_the_policy_says_so(
    node: Node, study: list[Dataset], policy: str, state: str
) -> None:
    node.archives["first"].counts[series_of(study)] = len(study) + 1
    found, codes = judged(node, replace(RULES, wait_s=3), policy)
    assert (found, "SOURCE-HAS-MORE" in codes) == (state, True)
    (event,) = node.state.audit.events(9, event=f"series.{state}")
    assert event.details["completeness"] == "INCOMPLETE"


def test_a_series_that_must_be_verified_and_is_not_is_refused_until_it_is(
    node: Node, study: list[Dataset]
) -> None:
    archive, series = node.archives["first"], series_of(study)
    archive.failure = DeliveryError("source first does not accept C-FIND")
    required = replace(RULES, required=True, wait_s=3)
    assert judged(node, required) == ("refused", ["NOT-VERIFIED"])
    (record,) = node.state.ledger.series()
    assert "does not accept C-FIND" in record.findings[0].sentence
    archive.failure, archive.counts[series] = None, len(study)
    node.state.ledger.retry(series, operator="mtra", reason="repaired")
    assert node.state.ledger.series()[0].state == "receiving"
    state, _ = judged(node, required)
    assert (state, node.state.ledger.series()[0].completeness) == ("accepted", "VERIFIED")


def test_an_unverified_series_goes_on_where_the_site_only_asks(
    node: Node, study: list[Dataset]
) -> None:
    node.archives["first"].failure = DeliveryError("down")
    state, codes = judged(node, RULES)
    assert (state, "NOT-VERIFIED" in codes) == ("accepted", False)
    assert node.state.ledger.series()[0].completeness == "UNVERIFIED"
    assert shipped_limits().severity("SOURCE-HAS-MORE") == "refuse"
