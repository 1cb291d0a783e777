"""Everything stored of a study is erased at the wish of the site, and nothing that is still due."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from rebrain_node.blobs import inbox_blobs, outbox_blobs, stored_files
from rebrain_node.domain.ledger import ReceivedInstance
from rebrain_node.errors import InstanceConflictError, StateError
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.erasure import ErasedStudy, Erasure
from rebrain_node.store.fsck import StorageCheck
from rebrain_node.store.outbox import ResultOptions
from rebrain_node.store.results import Results
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.store_cases import accept, answers, derived_set

STUDY, SERIES = "1.2.1", "1.2.1.1"


@pytest.fixture
def node() -> Iterator[OutboxNode]:
    """A node with a study of two instances, one of them also in quarantine; it is accepted."""
    with outbox_node() as node:
        for number, content in ((1, b"one"), (2, b"two"), (2, b"another")):
            try:
                node.ledger.record_received(_stored(node, number, content))
            except InstanceConflictError:
                node.ledger.decide(SERIES, "keep-first", operator="mtra", reason="checked")
        yield node


def _stored(node: OutboxNode, number: int, content: bytes) -> ReceivedInstance:
    sha256 = inbox_blobs(node.folder / "inbox").put(content)
    return ReceivedInstance(
        sop_instance_uid=f"{SERIES}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        series_instance_uid=SERIES,
        study_instance_uid=STUDY,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=sha256,
        size_bytes=len(content),
        path=f"{sha256[:2]}/{sha256}",
        calling_ae_title="CT1",
    )


def erasure(node: OutboxNode) -> Erasure:
    folder = node.folder
    return Erasure(node.database, inbox_blobs(folder / "inbox"), outbox_blobs(folder / "outbox"))


def published(node: OutboxNode) -> None:
    job = accept(node.ledger, SERIES, STUDY)
    options = ResultOptions(manifest="the manifest")
    number = node.outbox.put(derived_set(job), ["pacs"], job, options=options)
    node.deliveries.record(number, "pacs", answers(node.outbox.outstanding(number, "pacs")))


def erase(node: OutboxNode) -> ErasedStudy:
    return erasure(node).erase(STUDY, operator="someone", reason="asked for")


def test_all_bytes_of_a_study_are_erased_and_all_checks_agree(node: OutboxNode) -> None:
    published(node)
    assert len(list(stored_files(node.folder))) == 6

    erased = erase(node)

    assert (erased.instances, erased.objects, erased.quarantined) == (2, 3, 1)
    assert list(stored_files(node.folder)) == []
    assert StorageCheck(node.database, node.folder).differences() == ()
    assert AuditCheck(node.database, node.folder, ()).verify().intact


def test_the_manifest_goes_with_the_study_and_not_before(node: OutboxNode) -> None:
    published(node)
    results = Results(node.database)
    assert results.manifest_of(1) == "the manifest"
    assert results.manifest_with(node.outbox.instances_of(1)[0].sop_instance_uid)
    erase(node)
    with pytest.raises(StateError, match="its patient was erased"):
        results.manifest_of(1)
    assert AuditCheck(node.database, node.folder, ()).verify().intact


@pytest.mark.parametrize("other", ["'another manifest'", "NULL"])
def test_a_manifest_that_was_exchanged_or_removed_contradicts_the_log(
    node: OutboxNode, other: str
) -> None:
    published(node)
    with node.database.writing() as session:
        session.execute(text(f"UPDATE derived_set SET manifest = {other}"))
    (found,) = AuditCheck(node.database, node.folder, ()).verify().differences
    assert "manifest" in found.sentence
    with node.database.writing() as session:
        session.execute(text("UPDATE derived_set SET manifest = 'the manifest'"))


def test_a_study_that_was_erased_is_not_found_again_save_its_quarantine(node: OutboxNode) -> None:
    published(node)
    (before,) = erasure(node).studies()
    assert (len(before.inbox), len(before.outbox)) == (2, 1)
    erase(node)
    assert [each.outbox for each in erasure(node).studies()] == [()]


def test_what_is_still_to_be_made_is_not_erased(node: OutboxNode) -> None:
    with pytest.raises(StateError, match="is receiving"):
        erase(node)
    accept(node.ledger, SERIES, STUDY)
    with pytest.raises(StateError, match="is accepted: something is still to be made"):
        erase(node)
    assert len(list(stored_files(node.folder))) == 3


def test_what_still_waits_for_delivery_is_not_erased(node: OutboxNode) -> None:
    job = accept(node.ledger, SERIES, STUDY)
    number = node.outbox.put(derived_set(job), ["pacs", "archive"], job)
    due = node.outbox.outstanding(number, "pacs")
    node.deliveries.record(number, "pacs", answers(due))
    node.deliveries.cancel(number, "archive", "not wanted", "someone")
    node.deliveries.retry(number, "archive", "wanted", "someone")
    with pytest.raises(StateError, match=f"outbox cancel {number}"):
        erase(node)


def test_an_unknown_study_is_not_erased(node: OutboxNode) -> None:
    with pytest.raises(StateError, match=r"no study 1\.2\.9"):
        erasure(node).erase("1.2.9", operator="someone", reason="asked for")
