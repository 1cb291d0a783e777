"""`storage fsck`: bytes without rows, rows without bytes, altered bytes; in inbox and outbox."""

from __future__ import annotations

import fcntl
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from rebrain_node.blobs import inbox_blobs
from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import ReceivedInstance
from rebrain_node.errors import InstanceConflictError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.fsck import LOST_FOUND, StorageCheck, StorageDifference
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.store_cases import accept, derived_set, fast_folder

UNKNOWN = b"bytes that no row names"


@dataclass
class Kept:
    """A node's folder with one instance, one quarantined one and one derived set."""

    folder: Path
    database: Database
    received: ReceivedInstance
    quarantined: ReceivedInstance
    derived_uid: str
    derived_sha256: str

    def found(self) -> list[tuple[str, Path, str | None]]:
        return [(d.kind, d.path, d.table) for d in self.differences()]

    def differences(self) -> tuple[StorageDifference, ...]:
        return StorageCheck(self.database, self.folder).differences()

    def repair(self) -> None:
        storage_check = StorageCheck(self.database, self.folder)
        storage_check.repair(storage_check.differences())

    def path(self, place: str) -> Path:
        if place == "derived_instance":
            return Path("outbox", self.derived_sha256)
        one = self.received if place == "instance" else self.quarantined
        return Path("inbox", one.sha256[:2], one.sha256)

    def events(self) -> dict[str, object]:
        return {row.event: row.details for row in AuditLog(self.database).events(99)}


def _received(folder: Path, content: bytes) -> ReceivedInstance:
    blobs = inbox_blobs(folder / "inbox")
    blobs.prepare()
    sha256 = blobs.put(content)
    return ReceivedInstance(
        sop_instance_uid="1.2.1.1.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        series_instance_uid="1.2.1.1",
        study_instance_uid="1.2.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=sha256,
        size_bytes=len(content),
        path=str(blobs.path(sha256)),
        calling_ae_title="CT1",
    )


@pytest.fixture
def kept():
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        ledger = Ledger(database)
        first, second = _received(folder, b"as sent"), _received(folder, b"sent otherwise")
        ledger.record_received(first)
        job = accept(ledger)
        derived = derived_set(job, instances=1)
        Outbox(database, folder / "outbox").put(derived, ["pacs"], job)
        with pytest.raises(InstanceConflictError):
            ledger.record_received(second)
        (name,) = [path.name for path in (folder / "outbox").iterdir()]
        yield Kept(folder, database, first, second, derived.instances[0].sop_instance_uid, name)


PLACES = pytest.mark.parametrize("place", ["instance", "quarantine", "derived_instance"])


def test_a_node_without_damage_has_no_difference(kept):
    assert kept.found() == []
    kept.repair()
    assert Event.STORAGE_REPAIRED not in kept.events()


@pytest.mark.parametrize(
    "name", ["inbox/00/" + 64 * "0", "inbox/00/stray.dcm", "outbox/" + 64 * "1"]
)
def test_bytes_that_no_row_names_are_listed_and_moved_to_lost_found(kept, name):
    (kept.folder / name).write_bytes(UNKNOWN)
    assert kept.found() == [("unknown", Path(name), None)]
    kept.repair()
    assert (kept.folder / LOST_FOUND / name).read_bytes() == UNKNOWN
    assert kept.found() == []
    assert kept.events()[Event.STORAGE_REPAIRED] == {"moved": 1, "rows": 0, "counts": 0}


@PLACES
def test_rows_whose_bytes_are_missing_are_listed_and_named_in_the_audit_log(kept, place):
    (kept.folder / kept.path(place)).unlink()
    assert kept.found() == [("missing", kept.path(place), place)]
    kept.repair()
    lost = kept.events()[Event.STORAGE_LOST]
    uid = kept.derived_uid if place == "derived_instance" else kept.received.sop_instance_uid
    assert lost == {"instance": [], "quarantine": [], "derived_instance": []} | {place: [uid]}
    still = [("missing", kept.path(place), place)] if place == "quarantine" else []
    assert kept.found() == still  # a quarantined instance has no mark


@PLACES
def test_altered_bytes_are_listed_and_moved_to_lost_found(kept, place):
    (kept.folder / kept.path(place)).write_bytes(b"altered")
    assert kept.found() == [("altered", kept.path(place), place)]
    kept.repair()
    assert (kept.folder / LOST_FOUND / kept.path(place)).read_bytes() == b"altered"
    assert Event.STORAGE_LOST in kept.events()


def test_an_instance_that_was_marked_as_lost_is_taken_when_it_is_sent_again(kept):
    (kept.folder / kept.path("instance")).unlink()
    kept.repair()
    (held,) = Ledger(kept.database).instances(series="1.2.1.1")
    assert held.purged_at is not None
    assert Ledger(kept.database).record_received(_received(kept.folder, b"as sent")) == "same"
    (held,) = Ledger(kept.database).instances(series="1.2.1.1")
    assert held.purged_at is None
    assert kept.found() == []


def test_without_a_database_all_bytes_are_unknown_and_are_kept(kept):
    places = ("instance", "quarantine", "derived_instance")
    storage_check = StorageCheck(None, kept.folder)
    found = storage_check.differences()
    assert {(d.kind, d.path) for d in found} == {("unknown", kept.path(p)) for p in places}
    storage_check.repair(found)
    assert all((kept.folder / LOST_FOUND / kept.path(place)).is_file() for place in places)
    assert storage_check.differences() == ()


@pytest.mark.parametrize(
    "name", ["inbox/00/0f.writing", "outbox/0f.writing", "inbox/00/0f.receiving"]
)
def test_a_file_that_is_being_written_is_no_difference_until_its_writer_is_dead(kept, name):
    path = kept.folder / name
    path.write_bytes(b"half of an inst")
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert kept.found() == []
    assert kept.found() == [("unfinished", Path(name), None)]
    kept.repair()
    assert (kept.folder / LOST_FOUND / name).read_bytes() == b"half of an inst"
    assert kept.found() == []


def contradict(kept, statement: str) -> list[tuple[str, str, str]]:
    """Change rows behind the node's back; what is found then."""
    connection = sqlite3.connect(kept.folder / "node.sqlite")
    connection.executescript(statement)
    connection.close()
    found = StorageCheck(kept.database, kept.folder).row_differences()
    return [(each.kind, each.table, each.subject) for each in found]


@pytest.mark.parametrize(("table", "uid"), [("study", "1.2.1"), ("series", "1.2.1.1")])
def test_a_wrong_number_of_instances_is_listed_and_corrected(kept, table, uid):
    assert contradict(kept, f"UPDATE {table} SET instance_count = 7") == [("count", table, uid)]
    storage_check = StorageCheck(kept.database, kept.folder)
    storage_check.repair((), storage_check.row_differences())
    assert storage_check.row_differences() == ()
    assert kept.events()[Event.STORAGE_REPAIRED] == {"moved": 0, "rows": 0, "counts": 1}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "DELETE FROM instance",
            [("count", "study", "1.2.1"), ("count", "series", "1.2.1.1"),
             ("no-instance", "series", "1.2.1.1")],
        ),
        (
            "UPDATE derived_set SET revision = 9; UPDATE series SET state = 'published'",
            [("no-result", "series", "1.2.1.1")],
        ),
        (
            "DELETE FROM derived_instance",
            [("no-object", "derived_set", "1"), ("no-object", "delivery", "1")],
        ),
        ("UPDATE delivery SET derived_instance_id = 9", [("no-object", "delivery", "1")]),
    ],
    ids=["no instance", "no result", "no object", "a delivery of nothing"],
)  # fmt: skip
def test_rows_that_contradict_each_other_are_listed_and_left_to_a_person(kept, statement, found):
    assert contradict(kept, statement) == found
    storage_check = StorageCheck(kept.database, kept.folder)
    storage_check.repair((), storage_check.row_differences())
    left = [each.kind for each in storage_check.row_differences()]
    assert left == [kind for kind, _, _ in found if kind != "count"]


def test_without_a_database_there_are_no_rows_to_contradict(kept):
    assert StorageCheck(None, kept.folder).row_differences() == ()
