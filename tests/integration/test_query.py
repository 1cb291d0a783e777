"""What a destination holds: asked of a real Orthanc, and of a peer that cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.network.sender import PacsDestination
from rebrain_node.settings import DestinationSettings
from tests.support.orthanc import ORTHANC, Orthanc
from tests.support.scripted_pacs import a_peer, encoded, instance, settings_for

needs_orthanc = pytest.mark.skipif(ORTHANC is None, reason="Debian package orthanc")


def mr(n: int, **changes: object) -> DerivedInstance:
    """A small MR slice of a study with a patient and an accession number."""
    dataset = dcmread(BytesIO(instance(n).content))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.77", "2.25.78"
    dataset.PatientID, dataset.AccessionNumber = "P1", "A1"
    dataset.Modality = "MR"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    content = encoded(dataset, dataset.file_meta.TransferSyntaxUID)
    return replace(instance(n), series_instance_uid="2.25.78", content=content)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc") / "archive", 104).running() as archive:
        yield archive


@pytest.fixture
def destination(archive: Orthanc) -> PacsDestination:
    for study in archive.get("/studies"):
        archive.delete(f"/studies/{study}")
    settings = settings_for(archive.dicom_port, ae_title="ORTHANC")
    return PacsDestination(settings, "REBRAIN")


@needs_orthanc
def test_what_was_sent_is_held_unchanged(destination: PacsDestination) -> None:
    sent = [mr(1), mr(2)]
    destination.send(sent)
    found = destination.held(sent, [sent[0].sop_instance_uid])
    assert [(one.held, one.changed) for one in found] == [(True, ()), (True, None)]


@needs_orthanc
def test_another_object_under_our_uid_is_found(destination: PacsDestination) -> None:
    """Orthanc answers 0x0000 to the second object and keeps the first."""
    destination.send([mr(1, PatientName="Other^Name")])
    (answer,) = destination.send([mr(1)])
    assert answer.status == 0x0000
    (found,) = destination.held([mr(1)], [mr(1).sop_instance_uid])
    assert (found.held, found.changed) == (True, ("PatientName",))


@needs_orthanc
def test_what_was_deleted_there_is_missing(destination: PacsDestination, archive: Orthanc) -> None:
    destination.send([mr(1), mr(2)])
    (first,) = [
        one for one in archive.get("/instances?expand")
        if one["MainDicomTags"]["SOPInstanceUID"] == mr(1).sop_instance_uid
    ]  # fmt: skip
    archive.delete(f"/instances/{first['ID']}")
    assert [one.held for one in destination.held([mr(1), mr(2)], [])] == [False, True]


@needs_orthanc
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"PatientID": "P2"}, "another Patient ID than"),
        ({"AccessionNumber": "A2"}, "another Accession Number than"),
        ({"PatientID": "P2", "AccessionNumber": "A2"}, "another Accession Number and Patient ID"),
    ],
)
def test_a_study_that_was_corrected_there_is_a_conflict(
    destination: PacsDestination, changes: dict[str, str], words: str | None
) -> None:
    destination.send([mr(1, **changes)])
    conflict = destination.identity_conflict(mr(2))
    assert (conflict is None) is (words is None)
    assert words is None or words in str(conflict)
    assert "P2" not in str(conflict)


@needs_orthanc
def test_a_study_that_is_not_there_is_no_conflict(destination: PacsDestination) -> None:
    assert destination.identity_conflict(mr(1)) is None


def test_a_peer_without_query_is_said_to_offer_none() -> None:
    with a_peer(sop_classes=(MRImageStorage,)) as (_, settings):
        peer = PacsDestination(settings, "REBRAIN")
        with pytest.raises(QueryNotOfferedError, match="C-FIND"):
            peer.held([mr(1)], [])
        with pytest.raises(QueryNotOfferedError, match="C-FIND"):
            peer.identity_conflict(mr(1))


def test_a_peer_that_is_down_is_not_reached() -> None:
    settings: DestinationSettings
    with a_peer() as (_, settings):
        pass
    with pytest.raises(DeliveryError):
        PacsDestination(settings, "REBRAIN").identity_conflict(mr(1))
