"""A rejection note of another system for one of our objects is recorded, counted and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

from rebrain_node.app.compose import State, open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.instance.rejection_note import KEY_OBJECT_SELECTION
from rebrain_node.limits_file import shipped_limits
from rebrain_node.pipeline import Configuration
from rebrain_node.reception.completeness import QuietPeriodTracker
from rebrain_node.reception.inbox import InboxFolder, Spool
from rebrain_node.settings import load_settings
from rebrain_node.worker.watcher import Watcher
from rebrain_node.worker.work import Work
from tests.support import arrivals
from tests.support.scripted_pacs import encoded
from tests.support.store_cases import accept, answers, complete_all, derived_set, fast_folder

BUNDLE = "1" * 64


def source() -> Dataset:
    """The CT of which the set was made."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.1.1.1"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.1", "1.2.1.1"
    image.Modality = "CT"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.PixelRepresentation = 4, 6, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.add_new(0x7FE00010, "OW", bytes(48))
    return image


def key_objects(title: str, uids: Sequence[str], scheme: str = "DCM") -> Dataset:
    """A Key Object Selection as another maker writes it."""
    note = Dataset()
    note.SOPClassUID, note.SOPInstanceUID = KEY_OBJECT_SELECTION, generate_uid()
    note.StudyInstanceUID, note.SeriesInstanceUID = "1.2.1", generate_uid()
    note.Modality, note.Manufacturer = "KO", "Another"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = title, scheme, "a title"
    note.ConceptNameCodeSequence = [code]
    note.ContentSequence = []
    for uid in uids:
        item, reference = Dataset(), Dataset()
        reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        reference.ReferencedSOPInstanceUID = uid
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ReferencedSOPSequence = [reference]
        note.ContentSequence.append(item)
    return note


@dataclass
class Site:
    """A node that has delivered one set of three objects to the PACS."""

    config: Path
    uids: list[str]

    def receive(self, *notes: Dataset) -> None:
        """Receive instances, and judge their study."""
        with open_state(load_settings(self.config)) as state:
            take(state, *notes)
            complete_all(state.ledger)
            watcher_of(state).poll()

    def run(self, *words: str) -> dict[str, Any]:
        result = CliRunner().invoke(program, [*words, "--config", str(self.config), "--json"])
        assert result.exit_code == 0, result.output
        return cast("dict[str, Any]", json.loads(result.stdout))

    def rejections(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self.run("recall", "--rejected")["rejections"])


def take(state: State, *instances: Dataset) -> None:
    """Receive instances as the receiver does."""
    spool = Spool(state.inbox, state.ledger, hard_mark_bytes=0)
    for each in instances:
        arrivals.take(spool, encoded(each, ExplicitVRLittleEndian), "PACS")


def watcher_of(state: State) -> Watcher:
    """A watcher that only judges: nothing is accepted here, so no workflow is started."""
    nothing = cast(Any, None)
    inbox = InboxFolder(state.inbox, state.ledger)
    configuration = Configuration(
        bundle=nothing, limits=shipped_limits(), objects=nothing, software_version="", digest=""
    )
    return Watcher(
        work=Work(
            ledger=state.ledger,
            outbox=state.outbox,
            ports=nothing,
            configuration=lambda: configuration,
            destinations=("pacs",),
        ),
        workflows=nothing,
        inbox=lambda: inbox,
        settling=QuietPeriodTracker(quiet_period_s=1, maximum_wait_s=1, resume_wait_s=1),
        listening=state.listening,
        folder=state.folder,
        soft_mark_bytes=0,
        recall=state.recall,
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    config = tmp_path / "node.toml"
    with fast_folder() as folder:
        config.write_text(f'[storage]\nfolder = "{folder}/state"\n')
        with open_state(load_settings(config)) as state:
            take(state, source())
            job = accept(state.ledger)
            derived = derived_set(job)
            set_id = state.outbox.put(derived, ["pacs"], job)
            state.deliveries.record(set_id, "pacs", answers(derived.instances))
        yield Site(config, [one.sop_instance_uid for one in derived.instances])


@pytest.mark.parametrize("title", ["113001", "113037", "113038", "113039"])
def test_a_rejection_of_our_objects_is_counted_by_bundle_and_nothing_is_deleted(
    site: Site, title: str
) -> None:
    note = key_objects(title, [*site.uids[:2], "1.2.3.4"])
    site.receive(note)
    (shown,) = site.rejections()
    assert (shown["title"], shown["bundles"]) == (title, {BUNDLE: 2})
    objects = site.run("recall", "--bundle", BUNDLE)["sets"][0]["objects"]
    assert [one["rejected"] for one in objects] == [title, title, None]
    with open_state(load_settings(site.config)) as state:
        (event,) = state.audit.events(9, event=Event.REJECTION_RECEIVED)
        records = {one.series_instance_uid: one.state for one in state.ledger.series()}
        refused = state.ledger.series_one(str(note.SeriesInstanceUID))
        counts = state.ledger.counts()
    assert event.subject == note.SOPInstanceUID
    assert (event.details["objects"], event.details["others"]) == (site.uids[:2], 1)
    assert records == {"1.2.1.1": "published", str(note.SeriesInstanceUID): "refused"}
    assert refused is not None
    assert refused.findings[0].code == "MODALITY"
    assert (counts.quarantined, counts.disputed) == (0, 0)


def test_the_same_note_counts_once(site: Site) -> None:
    note = key_objects("113001", site.uids)
    site.receive(note)
    site.receive(note, key_objects("113000", site.uids))
    assert [one["sop_instance_uid"] for one in site.rejections()] == [note.SOPInstanceUID]


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(key_objects("113001", ["1.2.3.4"]), id="of others' objects"),
        pytest.param(key_objects("113001", []), id="without references"),
    ],
)
def test_a_note_that_names_none_of_our_objects_is_not_recorded(site: Site, note: Dataset) -> None:
    site.receive(note)
    assert site.rejections() == []


@pytest.mark.parametrize(("title", "scheme"), [("113000", "DCM"), ("113001", "99OTHER")])
def test_key_objects_with_another_title_are_no_rejection(
    site: Site, title: str, scheme: str
) -> None:
    site.receive(key_objects(title, site.uids, scheme))
    assert site.rejections() == []


def test_evidence_alone_names_the_rejected_objects_too(site: Site) -> None:
    note, study, series = key_objects("113037", []), Dataset(), Dataset()
    reference = Dataset()
    reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    reference.ReferencedSOPInstanceUID = site.uids[0]
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2", [reference]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2.1", [series]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    site.receive(note)
    assert site.rejections()[0]["bundles"] == {BUNDLE: 1}


def test_key_objects_that_cannot_be_read_do_not_keep_other_notes_from_being_recorded(
    site: Site,
) -> None:
    broken = key_objects("113001", site.uids)
    site.receive(broken)
    with open_state(load_settings(site.config)) as state:
        (lost,) = state.ledger.instances(series=str(broken.SeriesInstanceUID))
        (state.inbox / lost.path).unlink()
    other = key_objects("113037", site.uids[:1])
    site.receive(other)
    assert other.SOPInstanceUID in {one["sop_instance_uid"] for one in site.rejections()}


def test_a_note_of_this_node_that_comes_back_is_not_recorded(site: Site) -> None:
    note = key_objects("113001", site.uids[1:])
    note.SOPInstanceUID = site.uids[0]
    site.receive(note)
    assert site.rejections() == []


def test_a_rejection_is_recorded_years_after_the_source_was_deleted(site: Site) -> None:
    with open_state(load_settings(site.config)) as state:
        (image,) = state.ledger.instances(series="1.2.1.1")
        (state.inbox / image.path).unlink()
    site.receive(key_objects("113001", site.uids))
    assert site.rejections()[0]["bundles"] == {BUNDLE: 3}


def test_the_note_that_is_stored_is_the_one_that_came(site: Site) -> None:
    note = key_objects("113001", site.uids)
    site.receive(note)
    with open_state(load_settings(site.config)) as state:
        (stored,) = state.ledger.instances(series=str(note.SeriesInstanceUID))
        content = (state.inbox / stored.path).read_bytes()
    assert dcmread(BytesIO(content)).SOPInstanceUID == note.SOPInstanceUID
