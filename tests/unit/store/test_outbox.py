"""The outbox: written once and sent as written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rebrain_node.domain.job import Job
from rebrain_node.errors import (
    AlteredBytesError,
    StateError,
    StoreUnavailableError,
    SupersededError,
)
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.store_cases import accept, derived_set, received


def state_of(ledger: Ledger) -> str:
    record = ledger.series_one("1.2.1.1")
    assert record is not None
    return record.state


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "outbox").iterdir())


def test_a_set_is_read_back_byte_for_byte_in_the_order_of_sending(
    outbox: Outbox, ledger: Ledger, job: Job
) -> None:
    derived = derived_set(job)
    set_id = outbox.put(derived, ["pacs"], job)
    assert outbox.instances_of(set_id) == derived.instances
    assert outbox.outstanding(set_id, "pacs") == derived.instances
    assert outbox.set_of("1.2.1.1", 1) == set_id
    assert state_of(ledger) == "synthesised"


def test_files_are_named_by_their_content_and_private(
    outbox: Outbox, folder: Path, job: Job
) -> None:
    derived = derived_set(job)
    outbox.put(derived, ["pacs"], job)
    assert files(folder) == sorted(one.sha256 for one in derived.instances)
    assert {path.stat().st_mode & 0o777 for path in (folder / "outbox").iterdir()} == {0o600}
    assert (folder / "node.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.hazard("H20")
def test_the_same_set_again_changes_nothing(
    outbox: Outbox, database: Database, folder: Path, job: Job
) -> None:
    set_id = outbox.put(derived_set(job), ["pacs"], job)
    head, held = AuditLog(database).head(), files(folder)
    assert outbox.put(derived_set(job), ["pacs"], job) == set_id
    assert (AuditLog(database).head(), files(folder)) == (head, held)


def test_other_bytes_under_a_derived_uid_are_refused(
    outbox: Outbox, folder: Path, job: Job
) -> None:
    outbox.put(derived_set(job), ["pacs"], job)
    held = files(folder)
    with pytest.raises(StateError, match="other bytes"):
        outbox.put(derived_set(job, content=b"another run"), ["pacs"], job)
    assert files(folder) == held


@pytest.mark.hazard("H20")
def test_a_second_set_of_one_revision_is_refused(outbox: Outbox, job: Job) -> None:
    outbox.put(derived_set(job), ["pacs"], job)
    with pytest.raises(StateError, match="already has a set"):
        outbox.put(derived_set(job, instances=2), ["pacs"], job)


def test_a_set_of_an_older_revision_is_superseded(
    outbox: Outbox, ledger: Ledger, database: Database, job: Job
) -> None:
    ledger.record_received(received(2))
    with pytest.raises(SupersededError):
        outbox.put(derived_set(job), ["pacs"], job)
    assert Deliveries(database).pending() == ()


@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_an_altered_file_is_never_given_out(
    outbox: Outbox, folder: Path, job: Job, harm: str
) -> None:
    derived = derived_set(job)
    set_id = outbox.put(derived, ["pacs"], job)
    path = folder / "outbox" / derived.instances[1].sha256
    content = path.read_bytes()
    if harm == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with pytest.raises(AlteredBytesError, match=derived.instances[1].sha256):
        outbox.outstanding(set_id, "pacs")


def test_without_a_destination_nothing_is_published(
    outbox: Outbox, ledger: Ledger, database: Database, job: Job
) -> None:
    outbox.put(derived_set(job), [], job)
    assert (state_of(ledger), Deliveries(database).of()) == ("synthesised", ())


def test_what_a_dead_writer_left_is_swept_and_a_full_folder_is_said(
    outbox: Outbox, database: Database, folder: Path, job: Job
) -> None:
    (folder / "outbox" / "0123.99.writing").write_bytes(b"half an inst")
    Outbox(database, folder / "outbox")
    assert files(folder) == []
    (folder / "outbox").rmdir()
    with pytest.raises(StoreUnavailableError, match="outbox"):
        outbox.put(derived_set(job), ["pacs"], job)


def test_the_predecessor_of_a_revision_is_the_newest_set_before_it(
    outbox: Outbox, ledger: Ledger, job: Job
) -> None:
    series = job.series_instance_uid
    assert outbox.predecessor(series, 1) is None
    first = derived_set(job)
    report = replace(first.instances[0], kind="SR", sop_instance_uid="2.25.7")
    outbox.put(replace(first, instances=(report, *first.instances[1:])), [], job)
    assert outbox.predecessor(series, 1) is None
    found = outbox.predecessor(series, 2)
    assert found is not None
    assert (found.revision, found.report_uid) == (1, "2.25.7")
    assert found.mr_series_uid == first.instances[1].series_instance_uid
    ledger.record_received(received(2))
    ledger.record_received(received(3))
    newer = accept(ledger)
    outbox.put(derived_set(newer), [], newer)  # a site that wants no report any more
    last = outbox.predecessor(series, newer.revision + 1)
    assert last is not None
    assert (last.revision, last.report_uid) == (newer.revision, None)
