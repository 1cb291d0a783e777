"""`queue retry` and `queue cancel`: what an operator decides about one series."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import State, open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import Job
from rebrain_node.domain.ledger import Judgement
from rebrain_node.errors import InstanceConflictError, StateError
from rebrain_node.settings import load_settings
from rebrain_node.store.retention import RetentionRules
from tests.support.store_cases import accept, complete_all, derived_set, fast_folder, received

SERIES, STUDY = "1.2.1.1", "1.2.1"
BROKEN = Finding(code="FAILED", sentence="The disk was gone.")
FLAG = Finding(code="GEOM-GAP", sentence="One slice is missing.", severity="flag")
BY = {"operator": "someone", "reason": "disk replaced"}


@dataclass
class Site:
    """A node of which every command opens the state anew."""

    config: Path

    def state(self) -> AbstractContextManager[State]:
        return open_state(load_settings(self.config))

    def run(self, *words: str) -> dict:
        command = ["queue", *words, "--config", str(self.config), "--json"]
        result = CliRunner().invoke(program, command)
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout)

    def judge_again(self, *findings: Finding) -> str:
        """Judge the study if it waits for that; the state of the series."""
        with self.state() as state:
            for study in state.ledger.studies_to_judge():
                judged = [
                    Judgement(
                        series_instance_uid=one.series_instance_uid,
                        revision=one.revision,
                        decision="accepted",
                        findings=findings,
                    )
                    for one in state.ledger.series(study=study)
                ]
                state.ledger.judge(study, judged)
            return state.ledger.series_one(SERIES).state


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    config = tmp_path / "node.toml"
    with fast_folder() as folder:
        config.write_text(f'[storage]\nfolder = "{folder}/state"\n')
        yield Site(config)


@pytest.fixture
def job(site: Site) -> Job:
    """An accepted series."""
    with site.state() as state:
        state.ledger.record_received(received(1))
        return accept(state.ledger)


@pytest.fixture
def failed(site: Site, job: Job) -> Job:
    with site.state() as state:
        state.ledger.transition(SERIES, 1, "failed", Event.SERIES_FAILED, {}, (BROKEN,))
    return job


def test_a_failed_series_is_judged_again_and_carries_its_flags(site: Site, failed: Job) -> None:
    assert site.run("retry", SERIES, "--reason", "disk replaced")["state"] == "complete"
    assert site.judge_again(FLAG) == "accepted"
    with site.state() as state:
        record = state.ledger.series_one(SERIES)
        (event,) = state.audit.events(9, event=Event.SERIES_RETRIED)
    assert (record.findings, record.revision) == ((FLAG,), 1)
    assert event.details["reason"] == "disk replaced"
    assert (event.details["state_before"], event.details["state"]) == ("failed", "complete")


def test_a_series_that_failed_twice_is_work_of_another_name(site: Site, failed: Job) -> None:
    with site.state() as state:
        before = state.ledger.series_one(SERIES).changed_at
        state.ledger.retry(SERIES, **BY)
    site.judge_again()
    with site.state() as state:
        assert state.ledger.series_one(SERIES).changed_at > before


@pytest.mark.parametrize("waits", ["accepted", "complete"])
def test_a_series_that_waits_is_refused_and_stays_refused(site: Site, waits: str) -> None:
    with site.state() as state:
        state.ledger.record_received(received(1))
        complete_all(state.ledger)
        if waits == "accepted":
            accept(state.ledger)
    answer = site.run("cancel", SERIES, "--reason", "wrong protocol")
    assert (answer["state"], answer["findings"][0]["code"]) == ("refused", "CANCELLED")
    assert "wrong protocol" in answer["findings"][0]["sentence"]
    with site.state() as state:
        state.ledger.record_received(received(1, series="1.2.1.2"))
        complete_all(state.ledger)
    assert site.judge_again() == "refused"
    with site.state() as state:
        (event,) = state.audit.events(9, event=Event.SERIES_CANCELLED)
    assert (event.details["state_before"], event.details["state"]) == (waits, "refused")


def test_a_cancelled_series_is_judged_again_on_request(site: Site, job: Job) -> None:
    site.run("cancel", SERIES, "--reason", "wrong protocol")
    site.run("retry", SERIES, "--reason", "it was the right one")
    assert site.judge_again() == "accepted"


def test_a_late_instance_ends_a_cancellation(site: Site, job: Job) -> None:
    site.run("cancel", SERIES, "--reason", "wrong protocol")
    with site.state() as state:
        state.ledger.record_received(received(2))
        complete_all(state.ledger)
    assert site.judge_again() == "accepted"


def test_the_result_of_a_cancelled_series_does_not_enter_the_outbox(site: Site, job: Job) -> None:
    site.run("cancel", SERIES, "--reason", "wrong protocol")
    with site.state() as state, pytest.raises(StateError, match="is refused and cannot become"):
        state.outbox.put(derived_set(job), ["pacs"], job)


def test_a_result_that_was_refused_by_a_destination_is_sent_again_instead(
    site: Site, job: Job
) -> None:
    with site.state() as state:
        set_id = state.outbox.put(derived_set(job), ["pacs"], job)
        state.deliveries.refused(set_id, "pacs", "refused")
        with pytest.raises(StateError, match=f"outbox retry {set_id}"):
            state.ledger.retry(SERIES, **BY)


def test_a_series_in_dispute_is_decided_first(site: Site, failed: Job) -> None:
    with site.state() as state:
        with pytest.raises(InstanceConflictError):
            state.ledger.record_received(received(1, content="other"))
        with pytest.raises(StateError, match="queue dispute"):
            state.ledger.retry(SERIES, **BY)


def test_a_series_whose_bytes_were_deleted_cannot_be_retried(site: Site, failed: Job) -> None:
    with site.state() as state:
        state.retention.purge(
            RetentionRules(delivered_days=1, refused_days=1), datetime.now(UTC) + timedelta(days=9)
        )
        with pytest.raises(StateError, match="send the whole study again"):
            state.ledger.retry(SERIES, **BY)


@pytest.mark.parametrize(
    ("state", "remedy"), [("receiving", "in reception"), ("synthesised", "outbox cancel")]
)
def test_what_does_not_wait_cannot_be_cancelled(site: Site, state: str, remedy: str) -> None:
    with site.state() as node:
        node.ledger.record_received(received(1))
        if state == "synthesised":
            job = accept(node.ledger)
            node.outbox.put(derived_set(job), ["pacs"], job)
        with pytest.raises(StateError, match=remedy):
            node.ledger.cancel(SERIES, **BY)


def test_a_series_that_goes_well_or_is_unknown_is_not_retried(site: Site, job: Job) -> None:
    with site.state() as state:
        with pytest.raises(StateError, match="is accepted"):
            state.ledger.retry(SERIES, **BY)
        with pytest.raises(StateError, match="no series"):
            state.ledger.retry("9.9", **BY)
