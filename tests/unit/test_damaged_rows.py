"""Damaged rows of the audit log: what can be shown is shown, and nothing is a traceback."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.stop_rules import StopLimits
from rebrain_node.errors import StateError
from rebrain_node.settings import load_settings
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

SERIES = "1.2.1.1"


@pytest.fixture(params=["x", "{}", "[]"])
def config(request, tmp_path):
    """Settings of a node with a published series, of whose log every row has other details."""
    with fast_folder() as folder:
        path = tmp_path / "node.toml"
        path.write_text(f'[storage]\nfolder = "{folder}"\nsoft_mark_bytes = 0\n')
        with open_state(load_settings(path)) as state:
            state.audit.record(Event.BUNDLE_VERIFIED, "0" * 64, {"name": "demo", "version": "1"})
            state.ledger.record_received(received(1))
            job = accept(state.ledger)
            number = state.outbox.put(derived_set(job), ["pacs"], job)
            state.deliveries.record(number, "pacs", answers(state.outbox.instances_of(number)))
        with open_state(load_settings(path)) as state, state.database.writing() as session:
            triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for name in session.scalars(text(triggers)).all():
                session.execute(text(f"DROP TRIGGER {name}"))
            session.execute(text("UPDATE audit_event SET details = :d"), {"d": request.param})
        yield path


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("audit", "list"),
        ("audit", "show", "2"),
        ("audit", "show", SERIES),
        ("audit", "export", "--format", "jsonl"),
        ("audit", "verify"),
        ("queue", "list"),
        ("queue", "show", SERIES),
        ("stop", "list"),
        ("recall", "--series", SERIES),
    ],
)
def test_no_command_ends_with_a_traceback(config, words):
    run = CliRunner().invoke(program, [*words, "--config", str(config)])
    assert isinstance(run.exception, SystemExit | StateError | None), run.exception
    if isinstance(run.exception, StateError):
        assert "`rebrain-node audit verify`" in str(run.exception)


def test_the_log_is_listed_all_the_same_and_results_go_on(config):
    run = CliRunner().invoke(program, ["audit", "list", "--json", "--config", str(config)])
    assert len(json.loads(run.stdout)["events"]) > 3
    with open_state(load_settings(config)) as state:
        state.stops.judge(StopLimits())
        assert state.stops.active() == ()
