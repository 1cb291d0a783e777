"""`outbox` and `peers unknown`: what an operator sees of deliveries and rejected senders."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.text import reference
from rebrain_node.domain.workitem import ScheduledWorkitem
from rebrain_node.errors import StateError
from rebrain_node.settings import load_settings
from tests.support.store_cases import accept, answers, derived_set, fast_folder, received

DESTINATION = """
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
"""


@dataclass
class Site:
    """A node's settings and state folder with one set that the PACS has refused."""

    config: Path
    set_id: int

    def run(self, *words: str, code: int = 0) -> str:
        result = CliRunner().invoke(program, [*words, "--config", str(self.config)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout

    def json(self, *words: str, code: int = 0) -> dict:
        return json.loads(self.run(*words, "--json", code=code))

    def events(self) -> list[tuple[str, object, object]]:
        with open_state(load_settings(self.config)) as state:
            rows = state.audit.events(99)
        return [(row.event, row.subject, row.details.get("reason")) for row in rows]


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "node.toml"
    with fast_folder() as folder:
        config.write_text(f'[storage]\nfolder = "{folder}/state"\n{DESTINATION}')
        with open_state(load_settings(config)) as state:
            state.ledger.record_received(received(1))
            job = accept(state.ledger)
            derived = derived_set(job)
            set_id = state.outbox.put(derived, ["pacs"], job)
            first, *others = derived.instances
            state.deliveries.record(set_id, "pacs", answers(others))
            state.deliveries.record(set_id, "pacs", answers([first], "refused", 0xC000))
        yield Site(config, set_id)


def test_a_refused_delivery_is_listed_and_ends_with_exit_code_1(site):
    assert "1 refused, 2 taken" in site.run("outbox", "list", code=1)
    (delivery,) = site.json("outbox", "list", code=1)["deliveries"]
    assert delivery["states"] == {"refused": 1, "taken": 2}
    assert delivery["reason"] == "answered refused"


def test_status_counts_a_refused_delivery_and_ends_with_exit_code_1(site):
    assert "Not delivered" in site.run("status", code=1)
    answer = site.json("status", code=1)
    assert answer["checks"]["deliveries"].startswith("1 deliveries need you")
    assert [one["set_id"] for one in answer["deliveries_refused"]] == [site.set_id]


def test_the_table_of_status_stays_short_and_says_where_the_rest_is(site):
    with open_state(load_settings(site.config)) as state:
        for number in range(3, 25):
            series, study = f"1.2.{number}.1", f"1.2.{number}"
            state.ledger.record_received(received(1, series, study))
            job = accept(state.ledger, series, study)
            state.outbox.put(derived_set(job), ["pacs"], job)
    text = site.run("status", "--late-after", "0", code=1)
    assert "and 3 more: `rebrain-node outbox list` lists all" in text
    assert text.count(" more: `rebrain-node") == 2
    answer = site.json("status", "--late-after", "0", code=1)
    assert len(answer["deliveries_waiting"]) == 22


def test_every_object_of_a_set_is_shown_with_its_status(site):
    assert "0xC000" in site.run("outbox", "show", str(site.set_id))
    objects = site.json("outbox", "show", str(site.set_id))["objects"]
    assert [one["state"] for one in objects] == ["refused", "taken", "taken"]


def test_a_retry_makes_it_pending_again_and_stands_in_the_audit_log(site):
    answer = site.json("outbox", "retry", str(site.set_id), "--reason", "the PACS is repaired")
    assert answer == {"objects": {"pacs": 1}}
    assert (Event.DELIVERY_RETRIED, "pacs", "the PACS is repaired") in site.events()
    assert site.json("outbox", "list")["deliveries"][0]["outstanding"] == 1


def test_what_is_taken_is_sent_again_only_with_resend(site):
    site.run("outbox", "retry", str(site.set_id), "--reason", "x", "--resend")
    assert site.json("outbox", "list")["deliveries"][0]["outstanding"] == 3


def test_a_cancelled_delivery_is_listed_with_all_only(site):
    site.run("outbox", "retry", str(site.set_id), "--reason", "a try")
    answer = site.json("outbox", "cancel", str(site.set_id), "--to", "pacs", "--reason", "wrong")
    assert answer == {"objects": {"pacs": 1}}
    assert site.json("outbox", "list")["deliveries"] == []
    (delivery,) = site.json("outbox", "list", "--all")["deliveries"]
    assert delivery["states"] == {"cancelled": 1, "taken": 2}


def test_a_destination_is_paused_and_resumed_with_a_reason(site):
    site.run("outbox", "pause", "pacs", "--reason", "maintenance")
    assert "pacs is paused since" in site.run("outbox", "list", code=1)
    assert site.json("status", code=1)["paused_destinations"] == ["pacs"]
    site.run("outbox", "resume", "pacs", "--reason", "done")
    assert site.json("outbox", "list", code=1)["paused"] == []
    assert [one[0] for one in site.events()][-2:] == ["delivery.paused", "delivery.resumed"]


def test_a_destination_that_left_the_settings_is_named_with_the_remedy(site):
    site.run("outbox", "retry", str(site.set_id), "--reason", "a try")
    site.config.write_text(site.config.read_text().replace(DESTINATION, ""))
    (delivery,) = site.json("outbox", "list")["deliveries"]
    assert f"outbox cancel {site.set_id} --to pacs" in delivery["reason"]


RECEIVER = """
[[notifications]]
name = "ris"
ae_title = "RIS"
host = "127.0.0.1"
"""


@pytest.fixture
def notified(site):
    """The same node with a second set, confirmed by the PACS; its notification was refused."""
    site.config.write_text(site.config.read_text() + RECEIVER)
    with open_state(load_settings(site.config)) as state:
        state.ledger.record_received(received(1, "1.2.2.1", "1.2.2"))
        job = accept(state.ledger, "1.2.2.1", "1.2.2")
        derived = derived_set(job)
        set_id = state.outbox.put(derived, ["pacs"], job, load_settings(site.config).notified)
        waits = state.notifications.of(set_id)[0].text
        state.deliveries.record(set_id, "pacs", answers(derived.instances))
        found = [
            HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
            for one in derived.instances
        ]
        state.confirmations.verify(set_id, "pacs", found)
        (due,) = state.notifications.pending("ris")
        state.notifications.refused(due, "answered refused", 0x0124)
    assert waits == "waits until pacs has confirmed every object of the set"
    return Site(site.config, set_id)


def test_a_refused_notification_is_shown_listed_and_counted(notified):
    assert "0x0124" in notified.run("outbox", "show", str(notified.set_id))
    assert "answered refused" in notified.run("outbox", "list", code=1)
    (one,) = notified.json("outbox", "show", str(notified.set_id))["notifications"]
    assert (one["receiver"], one["state"], one["status"]) == ("ris", "refused", 0x0124)
    sentences = notified.json("status", code=1)["checks"]
    assert sentences["notifications"].startswith("1 notifications were refused")


def test_a_notification_is_retried_and_cancelled_by_the_name_of_its_receiver(notified):
    words = (str(notified.set_id), "--to", "ris", "--reason")
    assert notified.json("outbox", "retry", *words, "repaired") == {"objects": {"ris": 1}}
    (one,) = notified.json("outbox", "list", code=1)["notifications"]
    assert (one["state"], one["attempts"]) == ("pending", 0)
    assert notified.json("outbox", "cancel", *words, "not wanted") == {"objects": {"ris": 1}}
    assert notified.json("outbox", "list", code=1)["notifications"] == []
    assert [each for each in notified.events() if each[1] == "ris"][-2:] == [
        (Event.NOTIFICATION_RETRIED, "ris", "repaired"),
        (Event.NOTIFICATION_CANCELLED, "ris", "not wanted"),
    ]
    notified.run("outbox", "pause", "ris", "--reason", "maintenance")


MANAGER = """
[[workflow_managers]]
name = "flow"
url = "http://127.0.0.1:1"
workitem_code = "SYNMR"
"""


def test_a_refused_workitem_is_shown_with_its_series_and_counted(site):
    site.config.write_text(site.config.read_text() + MANAGER)
    scheduled = ScheduledWorkitem(workitem_uid="1.9.1", study_instance_uid="1.2.1")
    with open_state(load_settings(site.config)) as state:
        state.workitems.choose("flow", scheduled)
        (chosen,) = state.workitems.open("flow")
        state.workitems.refused(chosen, "answered HTTP 409", 409)
    assert "1.9.1 refused: answered HTTP 409" in site.run("queue", "show", "1.2.1.1")
    (one,) = site.json("queue", "show", "1.2.1.1")["workitems"]
    assert (one["manager"], one["state"], one["status"]) == ("flow", "refused", 409)
    assert chosen.transaction_uid not in json.dumps(one)  # whoever knows it can end the workitem
    sentences = site.json("status", code=1)["checks"]
    assert sentences["workitems"].startswith("1 workitems were refused")
    site.run("outbox", "pause", "flow", "--reason", "maintenance")


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (("show", "9"), StateError, "no set 9"),
        (("retry", "1", "--to", "other", "--reason", "x"), StateError, "'other'"),
        (("resume", "pacs", "--reason", "x"), StateError, "not paused"),
    ],
)
def test_a_mistake_is_answered_with_what_there_is(site, words, error, text):
    with pytest.raises(error, match=text):
        site.run("outbox", *words)


def test_a_rejected_sender_is_listed_once_with_the_settings_that_admit_it(site):
    admit = '[[receiver.peers]]\nae_title = "CT2"\naddresses = ["10.0.0.7"]'
    details = {"reason": "UNKNOWN-AE", "address": "10.0.0.7", "called_ae_title": "REBRAIN"}
    with open_state(load_settings(site.config)) as state:
        for untold in (0, 4):
            state.audit.record(
                Event.ASSOCIATION_REFUSED,
                "CT2",
                {**details, "not_told": untold, "would_admit": admit},
            )
        state.audit.record(
            Event.ASSOCIATION_REFUSED, "CT3", {**details, "reason": "ASSOCIATIONS", "not_told": 0}
        )
    (sender,) = site.json("peers", "unknown")["unknown"]
    assert (sender["ae_title"], sender["rejections"], sender["settings"]) == ("CT2", 6, admit)
    assert admit in site.run("peers", "unknown")


def test_a_pause_of_an_unknown_destination_names_the_known_ones(site):
    result = CliRunner().invoke(
        program, ["outbox", "pause", "other", "--reason", "x", "--config", str(site.config)]
    )
    assert result.exit_code == 2
    assert "the settings name pacs" in " ".join(result.output.split())


def test_the_table_of_status_says_sizes_with_a_unit_and_a_far_forecast_as_such(site):
    table = site.run("status", code=1)
    assert "100 bytes" in table
    assert "more than 3650" in table
    assert "_bytes" not in table


def test_the_table_of_status_names_paused_destinations(site):
    site.run("outbox", "pause", "pacs", "--reason", "maintenance")
    table = site.run("status", code=1)
    assert "paused destinations" in table
    assert "['pacs']" not in table


def test_a_recall_of_nothing_says_that_no_note_was_made(site):
    said = site.run(
        "recall", "--since", "2099-01-01", "--issue", "quality", "--reason", "wrong side"
    )
    assert "no rejection note was made" in said


def test_a_state_that_no_series_has_is_refused_with_those_it_can_have(site):
    said = CliRunner().invoke(
        program, ["queue", "list", "--state", "done", "--config", str(site.config)]
    )
    assert said.exit_code == 2
    assert "published" in said.output


def test_a_series_without_a_dispute_is_refused_with_where_to_look(site):
    with pytest.raises(StateError, match="queue list"):
        site.run("queue", "dispute", "1.2.3")


@pytest.fixture
def accepted(site):
    """The same node after the PACS has taken all of the set and confirmed none of it."""
    with open_state(load_settings(site.config)) as state:
        state.deliveries.retry(site.set_id, "pacs", "repaired", "someone")
        instances = state.outbox.instances_of(site.set_id)
        state.deliveries.record(site.set_id, "pacs", answers(instances))
    return site


def test_a_published_series_is_shown_as_not_confirmed_until_it_is(accepted):
    status = accepted.json("status", code=1)  # the node does not run
    assert (status["published_confirmed"], status["published_unconfirmed"]) == (0, 1)
    assert status["checks"]["deliveries"] is None
    assert status["series"]["published"] == 1
    assert "published, not confirmed" in accepted.run("queue", "list")
    assert accepted.json("queue", "list")["series"][0]["confirmed"] is False
    assert accepted.json("queue", "show", "1.2.1.1")["confirmed"] is False
    confirm(accepted)
    status = accepted.json("status", code=1)
    assert (status["published_confirmed"], status["published_unconfirmed"]) == (1, 0)
    assert "published, confirmed" in accepted.run("queue", "list")
    assert accepted.json("queue", "show", "1.2.1.1")["confirmed"] is True


def test_what_is_accepted_and_not_confirmed_is_listed_on_request(accepted):
    assert accepted.json("outbox", "list")["deliveries"] == []
    (delivery,) = accepted.json("outbox", "list", "--unconfirmed")["deliveries"]
    assert (delivery["states"], delivery["unconfirmed"]) == ({"taken": 3}, 3)
    confirm(accepted)
    assert accepted.json("outbox", "list", "--unconfirmed")["deliveries"] == []


def confirm(site):
    with open_state(load_settings(site.config)) as state:
        held = [
            HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
            for one in state.outbox.instances_of(site.set_id)
        ]
        state.confirmations.verify(site.set_id, "pacs", held)


def test_a_dry_run_of_the_purge_lists_what_would_go_and_deletes_nothing(accepted):
    accepted.config.write_text(accepted.config.read_text() + "[retention]\ndelivered_days = 0\n")
    assert accepted.json("storage", "purge", "--dry-run") == {"deleted": False, "series": []}
    confirm(accepted)
    (listed,) = accepted.json("storage", "purge", "--dry-run")["series"]
    with open_state(load_settings(accepted.config)) as state:
        assert len(state.outbox.instances_of(accepted.set_id)) == 3
    answer = accepted.json("storage", "purge")
    assert (answer["deleted"], answer["series"]) == (True, [listed])


def test_a_set_is_listed_with_a_short_id_and_its_time(site):
    title, columns, row = site.run("outbox", "list", code=1).splitlines()[:3]
    assert title == "# Deliveries"
    values = dict(zip(columns.split("\t"), row.split("\t"), strict=True))
    assert values["id"] == reference(values["source series"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", values["since"])
