"""Whatever happens in whatever order, no series is lost and the audit tells all of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rebrain_node.domain.delivery import Delivery, Outcome
from rebrain_node.domain.job import Job
from rebrain_node.domain.ledger import DisputeDecision, Judgement
from rebrain_node.errors import InstanceConflictError, StateError, SupersededError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.store_cases import answers, derived_set, fast_folder, received

SERIES = {"1.2.1.1": "1.2.1", "1.2.1.2": "1.2.1", "1.2.2.1": "1.2.2"}
DESTINATIONS = ("pacs", "archive")
series = st.sampled_from(sorted(SERIES))
studies = st.sampled_from(sorted(set(SERIES.values())))


class Node(RuleBasedStateMachine):
    """A receiver and a worker, and beside them a model of what must have come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = folder = self.stack.enter_context(fast_folder())
        self.database = self.stack.enter_context(Database.open(f"sqlite:///{folder}/n.sqlite"))
        self.ledger = Ledger(self.database)
        self.outbox = Outbox(self.database, folder / "outbox")
        self.deliveries = Deliveries(self.database)
        self.held: set[tuple[str, int]] = set()
        self.states: dict[str, str] = {}
        self.revisions: dict[str, int] = {}
        self.stale: list[Job] = []
        self.other: set[tuple[str, int]] = set()  #: sent again with other content
        self.taken: set[tuple[str, int]] = set()  #: the other content is the instance now
        self.disputed: set[str] = set()  #: series about which the site has not decided
        self.refused: set[str] = set()  #: series that the site refused
        self.sets: dict[tuple[str, int], str] = {}  #: waits, sent or withdrawn, by revision

    @rule(uid=series, n=st.integers(1, 4))
    def receive(self, uid: str, n: int) -> None:
        if (uid, n) in self.taken:
            return
        outcome = self.ledger.record_received(received(n, uid, SERIES[uid]))
        assert outcome == ("same" if (uid, n) in self.held else "new")
        if outcome == "same":
            return
        self.held.add((uid, n))
        if self.states.get(uid, "receiving") != "receiving":
            self.stale.append(self._job(uid))
            self.revisions[uid] += 1
        self.states[uid] = "receiving"
        self.revisions.setdefault(uid, 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def receive_other_bytes(self, data: Any) -> None:
        uid, n = data.draw(st.sampled_from(sorted(self.held)))
        if (uid, n) in self.taken:
            return
        try:
            self.ledger.record_received(received(n, uid, SERIES[uid], "other"))
        except InstanceConflictError:
            pass
        else:
            raise AssertionError("other bytes under a known UID were taken")
        if (uid, n) in self.other:
            return
        self.other.add((uid, n))
        self.disputed.add(uid)
        here, ended = (uid, self.revisions[uid]), self.states[uid] in {"published", "failed"}
        if self.states[uid] == "accepted":
            self.stale.append(self._job(uid))
        if self.states[uid] == "accepted" or (
            self.states[uid] == "synthesised" and self.sets[here] == "waits"
        ):
            self.revisions[uid] += 1
            self.states[uid] = "held"
        for made, state in self.sets.items():
            if made[0] == uid and state == "waits" and not ended:
                self.sets[made] = "withdrawn"

    @rule(uid=series, decision=st.sampled_from(get_args(DisputeDecision)))
    def decide(self, uid: str, decision: DisputeDecision) -> None:
        state = self.states.get(uid, "receiving")
        ended = state in {"synthesised", "published", "failed"} and decision != "keep-first"
        sent = any(made[0] == uid and state == "sent" for made, state in self.sets.items())
        impossible = decision == "take-second" and sent
        if uid not in self.disputed | self.refused or ended or impossible:
            with pytest.raises(StateError):
                self.ledger.decide(uid, decision, operator="mtra", reason="checked")
            return
        self.ledger.decide(uid, decision, operator="mtra", reason="checked")
        was_refused = uid in self.refused
        self.disputed.discard(uid)
        self.refused.discard(uid)
        if decision == "take-second":
            self.revisions[uid] += 1
            self.taken |= {one for one in self.other if one[0] == uid}
            for made in self.sets:
                if made[0] == uid:
                    self.sets[made] = "withdrawn"
        if decision == "refuse":
            self.refused.add(uid)
            self.states[uid] = "refused" if state == "held" else state
        elif state == "held" or (state == "refused" and (was_refused or decision != "keep-first")):
            self.states[uid] = "complete"

    @rule(study=studies)
    def complete(self, study: str) -> None:
        for one in self.ledger.studies_in_reception():
            if one.study_instance_uid == study:
                assert self.ledger.complete(one, {})
                self._move(study, "receiving", "complete")

    @rule(study=studies, accepted=series)
    def judge(self, study: str, accepted: str) -> None:
        if study not in self.ledger.studies_to_judge():
            return
        members = [uid for uid in self.states if SERIES[uid] == study]
        decide = {uid: "accepted" if uid == accepted else "refused" for uid in members}
        self.ledger.judge(
            study,
            [
                Judgement(
                    series_instance_uid=uid,
                    revision=self.revisions[uid],
                    decision=decide[uid],  # type: ignore[arg-type]
                )
                for uid in members
            ],
        )
        for uid in members:
            if self.states[uid] == "complete" or (
                self.states[uid] == "refused" and decide[uid] == "accepted"
            ):
                self.states[uid] = self._judged(uid, decide[uid])

    @rule(uid=series)
    def refuse_in_the_path(self, uid: str) -> None:
        if self.states.get(uid) == "accepted":
            self.ledger.transition(uid, self.revisions[uid], "refused", "series.refused", {})
            self.states[uid] = "refused"

    @rule(uid=series)
    def fail(self, uid: str) -> None:
        if self.states.get(uid) == "accepted":
            self.ledger.transition(uid, self.revisions[uid], "failed", "series.failed", {})
            self.states[uid] = "failed"

    @rule(uid=series)
    def synthesise(self, uid: str) -> None:
        if self.states.get(uid) == "accepted":
            job = self._job(uid)
            self.outbox.put(derived_set(job), DESTINATIONS, job)
            self.states[uid] = "synthesised"
            self.sets[uid, job.revision] = "waits"

    @precondition(lambda self: self.stale)
    @rule()
    def finish_stale_work(self) -> None:
        job = self.stale.pop()
        if self.outbox.set_of(job.series_instance_uid, job.revision) is not None:
            return
        try:
            self.outbox.put(derived_set(job), DESTINATIONS, job)
        except SupersededError:
            return
        raise AssertionError("a result of superseded instances entered the outbox")

    @rule(name=st.sampled_from(DESTINATIONS), share=st.integers(1, 3))
    def deliver(self, name: str, share: int) -> None:
        for pending in self.deliveries.pending(name)[:1]:
            due = self.outbox.outstanding(pending.set_id, name)
            self.deliveries.record(pending.set_id, name, answers(due[:share]))
            self.sets[pending.source_series_uid, pending.revision] = "sent"
            self._end(pending)

    @rule(name=st.sampled_from(DESTINATIONS), outcome=st.sampled_from(["refused", "retry"]))
    def answer_with_a_failure(self, name: str, outcome: Outcome) -> None:
        for pending in self.deliveries.pending(name)[:1]:
            due = self.outbox.outstanding(pending.set_id, name)
            self.deliveries.record(pending.set_id, name, answers(due[:1], outcome, 0xC000))
            self._end(pending)

    @rule(name=st.sampled_from(DESTINATIONS))
    def cancel(self, name: str) -> None:
        for pending in self.deliveries.pending(name)[:1]:
            assert self.deliveries.cancel(pending.set_id, name, "a test", "operator")
            self._end(pending)

    @rule(name=st.sampled_from(DESTINATIONS))
    def retry(self, name: str) -> None:
        for one in self.deliveries.of(name):
            if set(one.states) & {"refused", "cancelled"}:
                uid = one.source_series_uid
                withdrawn = self.sets[uid, one.revision] == "withdrawn"
                if withdrawn or uid in self.disputed:
                    with pytest.raises(StateError):
                        self.deliveries.retry(one.set_id, name, "a test", "operator")
                    continue
                self.deliveries.retry(one.set_id, name, "a test", "operator")
                if self.revisions[uid] == one.revision and self.states[uid] == "failed":
                    self.states[uid] = "synthesised"
                return

    def _end(self, delivery: Delivery) -> None:
        """Expect the end of a series with the last of its deliveries."""
        uid, states = delivery.source_series_uid, set[str]()
        for one in self.deliveries.of(set_id=delivery.set_id):
            states |= one.states.keys()
        if "pending" in states or self.revisions[uid] != delivery.revision:
            return
        if self.states[uid] == "synthesised":
            ended = "refused" not in states and "taken" in states
            self.states[uid] = "published" if ended else "failed"

    @invariant()
    def every_series_is_where_it_must_be(self) -> None:
        found = {one.series_instance_uid: one for one in self.ledger.series()}
        assert {uid: one.state for uid, one in found.items()} == self.states
        assert {uid: one.revision for uid, one in found.items()} == self.revisions

    @invariant()
    def what_was_received_is_published_or_refused_or_pending(self) -> None:
        counts = self.ledger.counts()
        assert counts.conserved
        assert counts.received == len(self.states)
        assert counts.instances == len(self.held)
        assert counts.quarantined == len(self.other)
        assert counts.disputed == len(self.disputed)

    def teardown(self) -> None:
        log = AuditLog(self.database)
        assert log.verify().intact
        assert AuditCheck(self.database, self.folder, ()).verify().differences == ()
        assert len(log.events(9999, event="instance.received")) == len(self.held)
        self.stack.close()

    def _judged(self, uid: str, decision: str) -> str:
        if uid in self.refused:
            return "refused"
        return "held" if decision == "accepted" and uid in self.disputed else decision

    def _job(self, uid: str) -> Job:
        return Job(
            study_instance_uid=SERIES[uid],
            series_instance_uid=uid,
            revision=self.revisions[uid],
        )

    def _move(self, study: str, here: str, there: str) -> None:
        for uid, state in self.states.items():
            if SERIES[uid] == study and state == here:
                self.states[uid] = there


TestConservation = Node.TestCase
TestConservation.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
