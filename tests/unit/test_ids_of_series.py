"""`audit list` and `audit show`, and series named by the ids that tables and logs show."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.text import reference
from rebrain_node.settings import load_settings
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

ROOT = Path(__file__).parents[2]
SERIES = "1.2.1.1"
ID = reference(SERIES)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("site") / "node.toml"
    with fast_folder() as folder:
        path.write_text(f'[storage]\nfolder = "{folder}/state"\n')
        with open_state(load_settings(path)) as state:
            for k in range(1, 40):
                state.ledger.record_received(received(k))
            job = accept(state.ledger)
            table = {"revision": 1, "kinds": {"measured": 2}, "slices": [[None] * 8] * 161}
            state.audit.record(Event.SERIES_GUIDED, SERIES, table)
            derived = derived_set(job)
            set_id = state.outbox.put(derived, ["pacs"], job)
            state.deliveries.record(set_id, "pacs", answers(derived.instances))
        yield path


def said(config, *words, code=0):
    result = CliRunner().invoke(program, [*words, "--config", str(config)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_receptions_of_one_series_are_one_row_of_the_list(config):
    lines = said(config, "audit", "list").splitlines()
    (row,) = [line for line in lines if "instance.received" in line]
    assert "39 instances" in row
    assert len(json.loads(said(config, "audit", "list", "--json"))["events"]) > 39


def test_everything_about_a_series_is_shown_by_its_id_in_few_rows(config):
    lines = said(config, "audit", "show", ID[:6]).splitlines()
    assert len(lines) < 15
    for event in ("study.complete", "series.guided", "delivery.taken", "series.published"):
        assert sum(event in line for line in lines) == 1


def test_an_event_with_a_table_of_slices_is_shown_in_a_screen(config):
    events = json.loads(said(config, "audit", "list", "--json"))["events"]
    (guided,) = [one["sequence"] for one in events if one["event"] == "series.guided"]
    shown = said(config, "audit", "show", str(guided))
    assert len(shown.splitlines()) < 20
    assert "(161 rows)" in shown
    details = json.loads(said(config, "audit", "show", str(guided), "--json"))["details"]
    assert len(details["slices"]) == 161


@pytest.mark.parametrize(
    "words",
    [
        ("queue", "show", ID[:6]),
        ("queue", "show", "1.2.1."),
        ("audit", "list", "--subject", ID),
        ("audit", "show", ID),
        ("recall", "--series", ID[:5]),
    ],
)
def test_commands_take_the_id_of_a_series(config, words):
    assert SERIES in said(config, *words)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("queue", "list", "--state", "nope"), "There are: receiving"),
        (("queue", "list", "--state", "publishd"), "did you mean published?"),
        (("audit", "list", "--event", "series.refusd"), "did you mean series.refused?"),
    ],
)
def test_a_filter_value_that_does_not_exist_is_exit_code_2_with_the_right_ones(config, words, hint):
    assert hint in " ".join(said(config, *words, code=2).split())


def test_queue_show_has_the_result_in_the_table_and_as_json(config):
    assert "# Result" in said(config, "queue", "show", ID)
    result = json.loads(said(config, "queue", "show", ID, "--json"))["result"]
    assert result["set_id"] == 1
    assert result["bundle"] == "tiny 1"


def test_times_end_in_z(config):
    rows = said(config, "audit", "list").splitlines()[2:]
    assert all(row.split("\t")[1].endswith("Z") for row in rows)


@pytest.mark.parametrize("command", [("queue", "list"), ("queue", "show", ID), ("audit", "list")])
def test_on_a_terminal_of_100_columns_no_line_is_longer_and_no_id_broken(config, command):
    text = on_a_terminal(*command, "--config", str(config))
    assert ID in text
    assert max(map(len, text.splitlines())) <= 100


def on_a_terminal(*words):
    """Run the program on a pseudo terminal and return what stands on it."""
    mine, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rebrain_node.cli", *words],
        cwd=ROOT, stdout=its, stderr=its, env={**os.environ, "COLUMNS": "100"},
    ):  # fmt: skip
        os.close(its)
        seen = b""
        try:
            while part := os.read(mine, 65536):
                seen += part
        except OSError:  # the end of a terminal
            pass
    os.close(mine)
    return seen.decode()
