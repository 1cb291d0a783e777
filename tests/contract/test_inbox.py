"""Every inbox (port ``Inbox``) through the same test: the node's folder and the command's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.domain.job import Job
from rebrain_node.folder import read_folder
from rebrain_node.ports import Inbox
from rebrain_node.reception.inbox import InboxFolder, Spool
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.support import phantoms
from tests.support.arrivals import take
from tests.support.store_cases import fast_folder

Fill = Callable[[Sequence[bytes]], Inbox]


def _encoded(instances: Sequence[Dataset]) -> list[bytes]:
    """Return the DICOM files (PS3.10) of the instances."""
    files = []
    for instance in instances:
        stream = BytesIO()
        instance.save_as(stream, enforce_file_format=True)
        files.append(stream.getvalue())
    return files


def _series(seed: int, instances: int = 3) -> list[bytes]:
    distances = tuple(6.0 * k for k in range(instances))
    return _encoded(phantoms.head_ct(rows=16, columns=16, slice_distances_mm=distances, seed=seed))


SERIES, OTHER = _series(seed=1), _series(seed=2)


def _job(files: Sequence[bytes]) -> Job:
    first = dcmread(BytesIO(files[0]))
    return Job(
        study_instance_uid=first.StudyInstanceUID, series_instance_uid=first.SeriesInstanceUID
    )


@pytest.fixture(params=["node", "folder"])
def fill(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fill]:
    """Put files, in this order, into a new inbox of one kind."""
    if request.param == "folder":

        def write(files: Sequence[bytes]) -> Inbox:
            for number, content in enumerate(files):
                (tmp_path / f"{number:03}.dcm").write_bytes(content)
            return read_folder(tmp_path)

        yield write
        return
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        ledger = Ledger(database)
        spool = Spool(folder / "inbox", ledger, hard_mark_bytes=0)

        def receive(files: Sequence[bytes]) -> Inbox:
            for content in files:
                take(spool, content, "CT1")
            return InboxFolder(folder / "inbox", ledger)

        yield receive


def _uids(instances: Sequence[Dataset]) -> list[str]:
    return sorted(str(instance.SOPInstanceUID) for instance in instances)


def test_a_job_reads_all_instances_of_its_series_and_no_other(fill: Fill) -> None:
    inbox = fill([*SERIES, *OTHER])
    for files in (SERIES, OTHER):
        assert _uids(inbox.read(_job(files))) == _uids([dcmread(BytesIO(f)) for f in files])


def test_the_instances_are_read_as_they_were_received(fill: Fill) -> None:
    inbox = fill(SERIES)
    received = {str(d.SOPInstanceUID): d for d in (dcmread(BytesIO(f)) for f in SERIES)}
    for instance in inbox.read(_job(SERIES)):
        original = received[str(instance.SOPInstanceUID)]
        assert instance == original
        assert instance.file_meta == original.file_meta
        assert instance.PixelData == original.PixelData


def test_the_input_digest_is_the_one_of_its_definition(fill: Fill) -> None:
    digests = sorted(hashlib.sha256(content).hexdigest() for content in SERIES)
    expected = hashlib.sha256("".join(digests).encode()).hexdigest()
    assert fill([*OTHER, *SERIES]).input_digest(_job(SERIES)) == expected


def test_the_order_of_arrival_does_not_change_the_input_digest(fill: Fill) -> None:
    backwards = fill(SERIES[::-1]).input_digest(_job(SERIES))
    digests = sorted(hashlib.sha256(content).hexdigest() for content in SERIES)
    assert backwards == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_an_instance_that_arrives_twice_counts_once(fill: Fill) -> None:
    inbox = fill([*SERIES, SERIES[0]])
    assert len(inbox.read(_job(SERIES))) == len(SERIES)
    digests = sorted(hashlib.sha256(content).hexdigest() for content in SERIES)
    expected = hashlib.sha256("".join(digests).encode()).hexdigest()
    assert inbox.input_digest(_job(SERIES)) == expected


def test_another_instance_changes_the_input_digest(fill: Fill) -> None:
    before = fill(SERIES[:2]).input_digest(_job(SERIES))
    assert fill(SERIES).input_digest(_job(SERIES)) != before


def test_a_series_that_was_never_received_has_no_instances(fill: Fill) -> None:
    assert fill(SERIES).read(_job(OTHER)) == ()
