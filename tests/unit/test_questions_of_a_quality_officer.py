"""Somebody who does not know the node answers what a quality officer asks, from three commands.

What was made from whom, by which model, from which exemplars, how sure, delivered to whom, and can
it be proved: each question has one field, of `queue show --json`, of `audit show --json`, and on
the page of `audit report`; `audit verify` proves it. Each command is run once.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from html import unescape
from typing import Any

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import make_audit_key, open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.guidance import COLUMNS
from rebrain_node.domain.text import reference
from rebrain_node.settings import load_settings
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

SERIES = "1.2.1.1"
SUBJECT = "a" * 32
EXEMPLAR = f"{SUBJECT}{'0' * 16}"


@dataclass(frozen=True)
class Answers:
    """What the commands said, and how long they took."""

    queue: dict[str, Any]
    log: list[dict[str, Any]]
    page: str
    verified: dict[str, Any]
    seconds: float
    made: Any

    def event(self, name: str) -> dict[str, Any]:
        return next(each for each in self.log if each["event"] == name)


def write_history(state) -> Any:
    """Write what a series with a result leaves: received, guided, published, confirmed."""
    make_audit_key(state)
    state.ledger.record_received(received(1))
    job = accept(state.ledger)
    slices = [
        [0.0, "measured", 0.0, None, None, None, 0, None],
        [1.0, "retrieved", 0.5, 0.99, EXEMPLAR, 0.4, 1, None],
    ]
    kinds = {"measured": 1, "retrieved": 1, "interpolated": 0}
    record = state.audit.record
    signed = {"name": "tiny", "version": "1", "signed_by": {"name": "site", "key": "0"}}
    record(Event.BUNDLE_VERIFIED, "1" * 64, signed)
    guided = {"revision": 1, "kinds": kinds, "slices": slices, "reasons": ["measured", "similar"]}
    record(Event.SERIES_GUIDED, SERIES, guided)
    sure = {"revision": 1, "mean": 0.225, "label": "UNCALIBRATED", "slices": [0.1, 0.35]}
    record(Event.SERIES_UNCERTAINTY, SERIES, sure | {"untrusted": [2]})
    derived = derived_set(job)
    set_id = state.outbox.put(derived, ["pacs"], job)
    state.deliveries.record(set_id, "pacs", answers(derived.instances))
    held = [
        HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
        for one in derived.instances
    ]
    state.confirmations.verify(set_id, "pacs", held)
    state.audit.checkpoint()
    return derived


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> Answers:
    folder = tmp_path_factory.mktemp("questions")
    config, page = folder / "node.toml", folder / "page.html"
    with fast_folder() as state_folder:
        config.write_text(
            f'[storage]\nfolder = "{state_folder}/state"\n'
            '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        )
        with open_state(load_settings(config)) as state:
            made = write_history(state)

        def run(*words: str) -> str:
            result = CliRunner().invoke(program, [*words, "--config", str(config)])
            assert result.exit_code == 0, (result.output, result.exception)
            return result.stdout

        begun = time.perf_counter()
        short = reference(SERIES)[:8]
        queue = json.loads(run("queue", "show", short, "--json"))
        log = json.loads(run("audit", "show", short, "--json"))["events"]
        run("audit", "report", short, "--out", str(page))
        verified = json.loads(run("audit", "verify", "--json"))
        seconds = time.perf_counter() - begun
    text = unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))
    return Answers(queue, log, text, verified, seconds, made)


def test_what_was_made_from_whom(said):
    result = said.queue["result"]
    assert result["source_series_uid"] == said.queue["series_instance_uid"] == SERIES
    assert result["mr_series_uid"] == said.made.instances[0].series_instance_uid
    assert result["objects"] == {"MR": 2, "KOS": 1}
    assert result["made_at"].endswith("Z")
    assert SERIES in said.page
    assert result["mr_series_uid"] in said.page


def test_by_which_model_and_who_released_it(said):
    result = said.queue["result"]
    assert (result["bundle"], result["signed_by"]) == ("tiny 1", "site")
    assert len(result["bundle_digest"]) == 64
    assert result["engine"]
    assert "tiny 1, signed by site" in said.page


def test_from_which_exemplars(said):
    (subject,) = said.queue["result"]["subjects"]
    assert (subject["subject"], subject["exemplars"], subject["slices"]) == (SUBJECT, 1, [2])
    guided = said.event("series.guided")["details"]
    assert guided["slices"][1][COLUMNS.index("exemplar")] == EXEMPLAR
    assert SUBJECT[:16] in said.page


def test_how_sure(said):
    result = said.queue["result"]
    assert (result["uncertainty"], result["uncertainty_label"]) == (0.225, "UNCALIBRATED")
    assert result["untrusted"] == [2]
    assert said.event("series.uncertainty")["details"]["mean"] == 0.225
    assert "0.225 of the display range, UNCALIBRATED" in said.page


def test_delivered_to_whom_and_whether_it_arrived(said):
    (destination,) = said.queue["result"]["destinations"]
    assert (destination["destination"], destination["states"]) == ("pacs", {"confirmed": 3})
    assert destination["accepted_at"].endswith("Z")
    assert destination["confirmed_at"].endswith("Z")
    assert said.event("delivery.verified")["subject"] == "pacs"
    assert "delivered to pacs" in said.page


def test_can_it_be_proved(said):
    assert said.verified["intact"] is True
    # that the report was made is told by the one row after the checkpoint
    assert (said.verified["unsigned"], said.verified["checkpoints"]) == (1, 1)
    assert said.verified["head"] in said.page
    assert said.event("series.synthesised")["details"]["sha256"] in said.page


def test_the_answers_take_less_than_the_minute(said):
    assert said.seconds < 60.0
