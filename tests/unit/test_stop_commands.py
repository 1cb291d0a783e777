"""`stop`, `queue verdict` and `audit acceptance`: what a person sees of stops and shadow mode."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import find_state, open_state, stop_limits
from rebrain_node.app.loops import (
    delivery_loops,
    notification_loops,
    record_mode,
    workitem_loops,
)
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.stop_rules import ResultMeasures
from rebrain_node.errors import SettingsError, StateError
from rebrain_node.settings import load_settings
from rebrain_node.store.outbox import ResultOptions
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

SETTINGS = """
[storage]
folder = "{folder}/state"
soft_mark_bytes = 0
hard_mark_bytes = 0
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
[[destinations]]
name = "test"
ae_title = "TEST"
host = "127.0.0.1"
[stop]
results = 4
least_results = 2
[acceptance]
results = 2
verdicts = 1
accepted_share = 0.2
"""
SHADOW = '[shadow]\nactive = true\ndestination = "test"\n'
PERIOD = "2000-01-01/2999-12-31"
USUAL = {"uncertainty": 0.2, "uncertainty_limit": 0.35, "ood_score": 1.0, "ood_threshold": 2.0}


@dataclass
class Site:
    """A node in shadow mode that has made some results."""

    config: Path
    count: int = 0

    def run(self, *words: str, code: int = 0) -> str:
        result = CliRunner().invoke(program, [*words, "--config", str(self.config)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout

    def json(self, *words: str, code: int = 0) -> dict:
        return json.loads(self.run(*words, "--json", code=code))

    def result(self, **measures: float) -> str:
        self.count += 1
        settings = load_settings(self.config)
        series, study = f"1.2.{self.count}.1", f"1.2.{self.count}"
        with open_state(settings) as state:
            state.ledger.record_received(received(1, series, study))
            job = accept(state.ledger, series, study)
            options = ResultOptions(
                kept=settings.kept_names,
                shadow=settings.shadow.active,
                measures=ResultMeasures(**USUAL | measures),  # type: ignore[arg-type] # numbers
                limits=stop_limits(settings),
            )
            state.outbox.put(derived_set(job), settings.due_names, job, options=options)
        return series

    def start(self, text: str) -> None:
        """Write the settings and record the mode, as a worker does when it starts."""
        self.config.write_text(text)
        settings = load_settings(self.config)
        with open_state(settings) as state:
            record_mode(settings, state)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with fast_folder() as folder:
        site = Site(tmp_path / "node.toml")
        site.start(SETTINGS.format(folder=folder) + SHADOW)
        yield site


def leave_shadow_mode(site: Site) -> None:
    site.start(site.config.read_text().replace(SHADOW, ""))


def test_the_rules_are_listed_with_value_limit_and_setting(site):
    site.result()
    answer = site.json("stop", "list")
    assert answer["stops"] == []
    rules = {one["rule"]: one for one in answer["rules"]}
    assert rules["uncertainty"]["value"] == pytest.approx(0.2)
    assert rules["uncertainty"]["limit"] == 0.35
    assert "0 of the last 1 series failed" in site.run("stop", "list")


def test_a_stop_makes_status_fail_with_the_remedy_until_it_is_released(site):
    for _ in range(2):
        site.result(uncertainty=0.5)
    assert site.json("stop", "list", code=1)["stops"][0]["rule"] == "uncertainty"
    why = site.json("status", code=1)["checks"]["stops"]
    assert "0.5 of the display range, at most 0.35 is usual (stop.uncertainty)" in why
    assert "`rebrain-node stop release uncertainty --reason TEXT`" in why
    assert "STOPPED by uncertainty" in site.run("status", code=1)
    done = site.json("stop", "release", "uncertainty", "--reason", "looked at")
    assert done == {"rule": "uncertainty", "state": "released", "results": 2, "stopped_by": []}
    assert site.json("status", code=1)["checks"]["stops"] is None


def test_a_stop_by_hand_is_listed_and_named_beside_a_rule(site):
    site.run("stop", "delivery", "--reason", "wrong protocol")
    assert "wrong protocol" in site.run("stop", "list", code=1)
    assert "delivery is stopped by operator since" in site.run("outbox", "list")
    assert site.json("outbox", "list")["stops"][0]["reason"] == "wrong protocol"
    for _ in range(2):
        site.result(uncertainty=0.5)
    assert "still kept, because uncertainty stops" in site.run(
        "stop", "release", "operator", "--reason", "corrected"
    )
    with pytest.raises(StateError, match="has not stopped delivery"):
        site.run("stop", "release", "operator", "--reason", "again")


def test_a_rule_that_does_not_exist_is_a_usage_error(site):
    site.run("stop", "release", "drifts", "--reason", "x", code=2)


def test_shadow_mode_keeps_results_for_every_destination_but_the_test_archive(site):
    site.result()
    (pacs, test) = site.json("outbox", "list")["deliveries"]
    assert (pacs["destination"], pacs["states"]) == ("pacs", {"kept": 3})
    assert (test["destination"], test["states"]) == ("test", {"pending": 3})
    status = site.json("status", code=1)
    assert status["shadow"] == {"active": True, "destination": "test"}
    assert status["results_kept"] == 1
    assert "results go to test alone" in site.run("status", code=1)


def test_what_the_test_archive_takes_is_not_published(site):
    series = site.result()
    with open_state(load_settings(site.config)) as state:
        state.deliveries.record(1, "test", answers(state.outbox.outstanding(1, "test")))
        assert state.deliveries.of("test")[0].states == {"taken": 3}
        assert state.ledger.series_one(series).state == "synthesised"


def test_in_shadow_mode_no_command_sends_to_a_clinical_destination(site):
    site.result()
    for words in ((), ("--to", "pacs")):
        with pytest.raises(StateError, match=r"shadow\.active.*give --to test|shadow\.active"):
            site.run("outbox", "retry", "1", "--reason", "now", *words)
    assert site.json("outbox", "list")["deliveries"][0]["states"] == {"kept": 3}
    with pytest.raises(StateError, match=r"shadow\.active.*nothing is sent to pacs, by hand"):
        site.run("send", str(site.config.parent), "--to", "pacs")


def test_leaving_shadow_mode_sends_nothing_by_itself_and_a_command_sends_chosen_results(site):
    site.result()
    site.result()
    leave_shadow_mode(site)
    assert [one["states"] for one in site.json("outbox", "list")["deliveries"]][::2] == [
        {"kept": 3}, {"kept": 3},
    ]  # fmt: skip
    site.run("outbox", "retry", "1", "--to", "pacs", "--reason", "accepted")
    states = [one["states"] for one in site.json("outbox", "list")["deliveries"]][::2]
    assert states == [{"pending": 3}, {"kept": 3}]
    with find_state(load_settings(site.config)) as state:
        changes = [row.details for row in state.audit.events(9, event=Event.SHADOW_CHANGED)]
    assert [one["active"] for one in changes] == [True, False]
    assert changes[0]["destination"] == "test"


def test_in_shadow_mode_nobody_but_the_test_archive_is_called(site):
    others = """
[[notifications]]
name = "ris"
ae_title = "RIS"
host = "127.0.0.1"
[[workflow_managers]]
name = "flow"
url = "http://127.0.0.1:9/rs"
workitem_code = "SYNMR"
"""
    everybody = [["pacs", "test"], ["ris"], ["flow"]]
    plain = site.config.read_text().replace(SHADOW, "") + others
    for text, names in ((plain + SHADOW, [["test"], [], []]), (plain, everybody)):
        site.config.write_text(text)
        settings = load_settings(site.config)
        with open_state(settings) as state:
            called = [
                [each.destination.name for each in delivery_loops(settings, state)],
                [each.receiver.name for each in notification_loops(settings, state)],
                [each.manager.name for each in workitem_loops(settings, state)],
            ]
        assert called == names


def test_a_kept_result_is_not_late(site):
    site.start(site.config.read_text().replace('destination = "test"\n', ""))
    site.result()
    answer = site.json("status", "--late-after", "0", code=1)
    assert answer["late"] == []
    assert answer["checks"]["late"] is None


def test_shadow_mode_for_a_destination_that_does_not_exist_is_refused_by_name(site):
    text = site.config.read_text().replace('destination = "test"', 'destination = "tset"')
    site.config.write_text(text)
    with pytest.raises(SettingsError, match=r"shadow\.destination names 'tset'.*pacs, test"):
        load_settings(site.config)


def test_verdicts_are_recorded_and_the_newest_of_each_person_counts(site):
    series = site.result()
    second = site.result()
    for person, verdict in (("a", "reject"), ("b", "accept"), ("a", "accept")):
        words = ("queue", "verdict", series, verdict, "--reason", "seen", "--operator", person)
        assert site.json(*words)["verdict"] == verdict
    site.run("queue", "verdict", second, "reject", "--reason", "blurred", "--operator", "b")
    made = site.json(
        "audit",
        "acceptance",
        "--period",
        PERIOD,
        "--out",
        str(site.config.with_suffix(".html")),
        code=1,
    )["results"]
    assert [one["accepted"] for one in made] == [True, False]
    assert [len(one["verdicts"]) for one in made] == [2, 1]
    assert "verdict of a" in site.run("queue", "show", series)
    shown = site.json("queue", "show", series)["result"]["verdicts"]
    assert [(one["operator"], one["verdict"]) for one in shown] == [
        ("a", "accept"), ("b", "accept"),
    ]  # fmt: skip
    with find_state(load_settings(site.config)) as state:
        assert len(state.audit.events(9, event=Event.SERIES_VERDICT)) == 4


def test_a_verdict_needs_a_result(site):
    series = site.result()
    with open_state(load_settings(site.config)) as state:
        state.ledger.record_received(received(1, "1.2.9.1", "1.2.9"))
    with pytest.raises(StateError, match=r"nothing was made of series 1\.2\.9\.1"):
        site.run("queue", "verdict", "1.2.9.1", "accept", "--reason", "x")
    site.run("queue", "verdict", series, "good", "--reason", "x", code=2)


def test_the_acceptance_report_counts_shadow_mode_alone_and_says_what_is_met(site, tmp_path):
    for _ in range(2):
        site.run("queue", "verdict", site.result(), "accept", "--reason", "fine")
    leave_shadow_mode(site)
    site.result()
    page = tmp_path / "acceptance.html"
    facts = site.json("audit", "acceptance", "--period", PERIOD, "--out", str(page))
    assert facts["met"] is True
    assert facts["results_outside"] == 1
    assert (facts["studies"], len(facts["results"])) == (2, 2)
    assert len(facts["criteria"]) == 7
    text = page.read_text()
    assert "Every criterion of the site is met." in text
    assert "2 of 2, 95 % interval 34.2 % to 100 %" in text
    table = site.run("audit", "acceptance", "--period", PERIOD, "--out", str(page))
    assert "acceptance.accepted_share" in table


def test_a_criterion_that_is_not_met_is_named_and_ends_with_1(site, tmp_path):
    site.result(ood_score=2.5)
    out = ("--period", PERIOD, "--out", str(tmp_path / "a.html"))
    facts = site.json("audit", "acceptance", *out, code=1)
    unmet = {one["setting"] for one in facts["criteria"] if not one["met"]}
    assert unmet == {
        "acceptance.results", "acceptance.verdicts", "acceptance.accepted_share",
        "acceptance.ood_share",
    }  # fmt: skip


def test_the_site_report_shows_stops_and_drift(site, tmp_path):
    for _ in range(2):
        site.result(brain_hu=20.0, expected_hu=34.0)
    page = tmp_path / "site.html"
    site.run("audit", "report", "--period", PERIOD, "--out", str(page))
    text = page.read_text()
    assert "STOPPED since" in text
    assert "-14.00" in text
    assert "stop.drift_hu" in text
    assert "Shadow mode is active now" in text
