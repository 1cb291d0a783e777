"""`recall --issue`: what was delivered is rejected at every destination that holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.job import DerivedSet
from rebrain_node.instance.synthetic import synthetic_mark
from rebrain_node.settings import load_settings
from rebrain_node.steps.write import ObjectOptions, write
from tests.support import phantoms
from tests.support.store_cases import accept, answers, fast_folder, received
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.support.validators import dciodvfy_errors, missing_attributes

DESTINATIONS = """
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"

[[destinations]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
"""


@dataclass
class Site:
    """A node that has delivered one written set to the PACS, not to the archive."""

    config: Path
    set_id: int
    derived: DerivedSet

    def run(self, *words: str, code: int = 0) -> dict:
        result = CliRunner().invoke(program, [*words, "--config", str(self.config), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if code == 0 else {}

    def issue(self, title: str = "safety", reason: str = "wrong bundle") -> dict:
        return self.run(
            "recall", "--series", "1.2.1.1", "--issue", title, "--reason", reason, "--yes"
        )

    def note(self) -> tuple[bytes, Dataset]:
        with open_state(load_settings(self.config)) as state:
            (note,) = state.outbox.outstanding(self.set_id, "pacs")
        return note.content, dcmread(BytesIO(note.content))


@pytest.fixture(scope="module")
def written() -> DerivedSet:
    source = phantoms.head_ct(slice_distances_mm=(-18.0, -6.0, 6.0, 18.0))
    return write(synthetic_volume(source), source, provenance(), (), ObjectOptions())


@pytest.fixture
def site(tmp_path, monkeypatch, written):
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "node.toml"
    with fast_folder() as folder:
        config.write_text(f'[storage]\nfolder = "{folder}/state"\n{DESTINATIONS}')
        with open_state(load_settings(config)) as state:
            state.ledger.record_received(received(1))
            job = accept(state.ledger)
            set_id = state.outbox.put(written, ["pacs", "archive"], job)
            state.deliveries.record(set_id, "pacs", answers(written.instances))
        yield Site(config, set_id, written)


@pytest.mark.parametrize(("title", "code"), [("quality", "113001"), ("safety", "113037")])
def test_the_note_names_reason_and_every_object_the_destination_holds(site, title, code):
    assert site.issue(title)["notes"] == {str(site.set_id): 1}
    _, note = site.note()
    assert note.ConceptNameCodeSequence[0].CodeValue == code
    referenced = {
        item.ReferencedSOPInstanceUID
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert referenced == {one.sop_instance_uid for one in site.derived.instances}
    sent = dcmread(BytesIO(site.derived.instances[0].content))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
        assert note.get(keyword) == sent.get(keyword)
    assert "wrong bundle" in str(note)


def test_the_note_is_valid_and_known_as_synthetic(site, tmp_path):
    site.issue()
    content, note = site.note()
    assert dciodvfy_errors(content, tmp_path) == []
    assert missing_attributes(note) == []
    assert synthetic_mark(note)


def test_the_same_note_is_issued_once_and_recorded(site):
    site.issue()
    assert site.issue()["notes"] == {str(site.set_id): 0}
    with open_state(load_settings(site.config)) as state:
        (row,) = state.audit.events(9, event=Event.SERIES_RECALLED)
        states = [one.states for one in state.deliveries.of()]
    assert (row.details["reason"], row.details["destinations"]) == ("wrong bundle", ["pacs"])
    assert {"pending": 1, "taken": len(site.derived.instances)} in states


def test_a_note_that_was_delivered_is_not_rejected_by_the_next(site):
    site.issue()
    with open_state(load_settings(site.config)) as state:
        note = state.outbox.outstanding(site.set_id, "pacs")
        state.deliveries.record(site.set_id, "pacs", answers(note))
    assert site.issue()["notes"] == {str(site.set_id): 0}


def test_what_waits_for_delivery_is_cancelled_by_a_recall(site):
    """Else a destination that is down now would get the recalled objects when it returns."""
    count = len(site.derived.instances)
    assert site.issue()["cancelled"] == {str(site.set_id): count}
    with open_state(load_settings(site.config)) as state:
        assert state.deliveries.pending("archive") == ()
        (waiting,) = state.deliveries.pending("pacs")
        assert waiting.states == {"pending": 1, "taken": count}
    assert site.issue()["cancelled"] == {str(site.set_id): 0}
    assert site.note()


def test_what_no_destination_holds_needs_no_note(site):
    with open_state(load_settings(site.config)) as state:
        state.ledger.record_received(received(1, "1.2.9.1", "1.2.9"))
    assert (
        site.run("recall", "--series", "1.2.9.1", "--issue", "safety", "--reason", "x", "--yes")[
            "notes"
        ]
        == {}
    )


def test_a_set_can_be_recalled_years_after_its_images_were_deleted(site):
    with open_state(load_settings(site.config)) as state:
        held = [
            HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
            for one in site.derived.instances
        ]
        state.confirmations.verify(site.set_id, "pacs", held)
        state.deliveries.cancel(site.set_id, "archive", "gone", "someone")
    site.config.write_text(
        site.config.read_text() + "\n[retention]\ndelivered_days = 0\nrefused_days = 0\n"
    )
    assert site.run("storage", "purge")["series"]
    assert site.issue()["notes"] == {str(site.set_id): 1}


def test_an_issue_needs_a_reason_and_one_choice(site):
    site.run("recall", "--series", "1.2.1.1", "--issue", "safety", code=2)
    site.run("recall", code=2)


def test_everything_made_since_a_time_is_found(site):
    found = site.run("recall", "--since", "2020-01-01")["sets"]
    assert [each["set_id"] for each in found] == [site.set_id]
    assert site.run("recall", "--since", "2999-01-01")["sets"] == []
