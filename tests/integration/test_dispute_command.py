"""From a received instance to the decision of the site: inbox, ledger and `queue dispute`."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program
from rebrain_node.domain.job import Job
from rebrain_node.errors import InstanceConflictError, StateError
from rebrain_node.reception.inbox import InboxFolder, Spool
from rebrain_node.settings import Settings
from tests.support.arrivals import take
from tests.support.phantoms import head_ct
from tests.support.store_cases import accept, fast_folder

pytestmark = pytest.mark.hazard("H2")
CT = head_ct(rows=16, columns=16, slice_distances_mm=(0.0, 6.0, 12.0))
SERIES, STUDY = str(CT[0].SeriesInstanceUID), str(CT[0].StudyInstanceUID)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch):
    with fast_folder() as folder:
        monkeypatch.setenv("REBRAIN_STORAGE__FOLDER", str(folder))
        yield Settings()


def file_of(instance: Dataset, **changes: str) -> bytes:
    copied = copy.deepcopy(instance)
    for keyword, value in changes.items():
        setattr(copied, keyword, value)
    stream = BytesIO()
    copied.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def implicit(instance: Dataset) -> bytes:
    copied = copy.deepcopy(instance)
    copied.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    stream = BytesIO()
    copied.save_as(stream, enforce_file_format=True, implicit_vr=True, little_endian=True)
    return stream.getvalue()


def receive(settings: Settings, *files: bytes) -> list[str]:
    """What became of each file: new, same, or the reason of the conflict."""
    with open_state(settings) as state:
        spool = Spool(state.inbox, state.ledger, hard_mark_bytes=0)
        answers = []
        for content in files:
            try:
                answers.append(take(spool, content, "CT1"))
            except InstanceConflictError as error:
                answers.append(error.reason)
        return answers


def names(settings: Settings) -> set[str]:
    with open_state(settings) as state:
        job = Job(study_instance_uid=STUDY, series_instance_uid=SERIES)
        read = InboxFolder(state.inbox, state.ledger).read(job)
    return {str(instance.PatientName) for instance in read}


def command(*words: str) -> dict:
    done = CliRunner().invoke(program, [*words, "--json"])
    assert done.exit_code == (1 if words == ("status",) else 0), done.output  # no node runs
    return json.loads(done.stdout)


def disputed(settings: Settings) -> None:
    corrected = [file_of(one, PatientName="Right^Name", PatientID="7") for one in CT]
    receive(settings, *(file_of(one) for one in CT))
    assert set(receive(settings, *corrected)) == {"SAME-UID-OTHER-BYTES"}
    with open_state(settings) as state:
        accept(state.ledger, series=SERIES, study=STUDY)


def test_another_encoding_is_acknowledged_and_makes_no_work(settings: Settings) -> None:
    files = [file_of(CT[0]), implicit(CT[0]), file_of(CT[0], RetrieveAETitle="PACS2")]
    assert receive(settings, *files) == ["new", "same", "same"]
    assert command("status")["quarantined"] == 0


def test_an_altered_first_file_is_never_taken_for_the_same(settings: Settings) -> None:
    receive(settings, file_of(CT[0]))
    with open_state(settings) as state:
        (stored,) = state.ledger.instances(series=SERIES)
        Path(state.inbox, stored.path).write_bytes(b"altered")
    assert receive(settings, implicit(CT[0])) == ["SAME-UID-OTHER-BYTES"]


def test_a_dispute_is_visible_and_tells_which_elements_differ(settings: Settings) -> None:
    disputed(settings)
    status = command("status")
    assert (status["disputed"], status["series"]["held"]) == (1, 1)
    (listed,) = command("queue", "list")["series"]
    assert (listed["state"], listed["findings"][0]["code"]) == ("held", "ID-DISPUTED")
    for uid in (SERIES, STUDY):
        (found,) = command("queue", "dispute", uid)["disputes"]
        assert found["instances"] == 3
        assert found["calling_ae_titles"] == ["CT1"]
        assert found["different_elements"] == ["Patient's Name (0010,0010)",
                                               "Patient ID (0010,0020)"]  # fmt: skip
    said = CliRunner().invoke(program, ["queue", "dispute", SERIES]).output
    assert "Right" not in said
    assert "Patient ID" in said


def test_the_second_set_is_what_the_work_reads(settings: Settings) -> None:
    disputed(settings)
    assert "Right^Name" not in names(settings)
    answer = command("queue", "dispute", STUDY, "--take-second", "--reason", "corrected",
                     "--operator", "mtra")  # fmt: skip
    assert [each["state"] for each in answer["series"]] == ["complete"]
    assert names(settings) == {"Right^Name"}
    (event,) = command("audit", "list", "--event", "dispute.decided")["events"]
    assert event["details"]["operator"] == "mtra"


def test_a_version_that_was_decided_is_not_disputed_again_in_another_encoding(
    settings: Settings,
) -> None:
    disputed(settings)
    command("queue", "dispute", SERIES, "--take-second", "--reason", "corrected")
    first = implicit(CT[0])  # once more what the site did not take
    assert receive(settings, first) == ["SAME-UID-OTHER-BYTES"]
    status = command("status")
    assert (status["disputed"], status["quarantined"]) == (0, 3)


@pytest.mark.parametrize("words", [["--keep-first"], ["--keep-first", "--refuse", "--reason", "x"]])
def test_a_decision_needs_a_reason_and_is_one(settings: Settings, words: list[str]) -> None:
    disputed(settings)
    assert CliRunner().invoke(program, ["queue", "dispute", SERIES, *words]).exit_code == 2
    assert command("status")["disputed"] == 1


def test_what_is_not_disputed_is_said(settings: Settings) -> None:
    receive(settings, file_of(CT[0]))
    done = CliRunner().invoke(program, ["queue", "dispute", SERIES])
    assert isinstance(done.exception, StateError)
