"""What was made from a bundle or an exemplar is found again, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import Answer
from rebrain_node.domain.guidance import guidance
from rebrain_node.domain.job import Job
from rebrain_node.domain.volume import Guide, Target
from rebrain_node.errors import StateError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.recall import Recall
from tests.support.store_cases import accept, derived_set, received

ANNA, BERT = "a" * 32, "b" * 32


def _guide(number: int, exemplar: str | None) -> Guide:
    target = Target(distance_mm=float(number), below=0, above=1, alpha=0.5)
    if exemplar is None:
        return Guide(target=target, kind="interpolated", reason="nobody is like it")
    return Guide(
        target=target,
        kind="retrieved",
        reason="an exemplar is like it",
        similarity=0.9,
        tau=0.8,
        exemplar=exemplar,
        position_difference_mm=1.0,
    )


def _made(database: Database, folder: Path, series: str, exemplars: list[str | None]) -> Job:
    """A series with one MR slice for each exemplar, and a KOS, in the outbox."""
    ledger = Ledger(database)
    ledger.record_received(received(1, series=series, study=f"{series}.9"))
    job = accept(ledger, series, f"{series}.9")
    told = guidance([_guide(k, one) for k, one in enumerate(exemplars)], None, "d" * 64)
    AuditLog(database).record(Event.SERIES_GUIDED, series, {"revision": job.revision, **told})
    Outbox(database, folder / "outbox").put(derived_set(job, len(exemplars) + 1), ("pacs",), job)
    return job


@pytest.fixture
def recall(database: Database, folder: Path) -> Recall:
    _made(database, folder, "1.2.1.1", [ANNA + "1" * 16, None, BERT + "2" * 16])
    _made(database, folder, "1.2.2.1", [None, ANNA + "3" * 16])
    _made(database, folder, "1.2.3.1", [None, None])
    return Recall(database)


def test_a_person_is_found_in_every_series_she_guided(recall: Recall) -> None:
    first, second = recall.by_exemplar(ANNA)
    assert (first.source_series_uid, first.slices) == ("1.2.1.1", (1,))
    assert (second.source_series_uid, second.slices) == ("1.2.2.1", (2,))
    assert [one.kind for one in first.objects] == ["MR", "KOS"]
    assert first.objects[0].sop_instance_uid.endswith(".3")  # sent first: the first slice
    assert second.objects[0].sop_instance_uid.endswith(".1")


def test_one_slice_is_found_by_its_whole_hash(recall: Recall) -> None:
    (only,) = recall.by_exemplar(BERT + "2" * 16)
    assert only.slices == (3,)
    assert recall.by_exemplar(BERT + "3" * 16) == ()


def test_a_bundle_is_found_with_everything_it_made(recall: Recall) -> None:
    found = recall.by_bundle("1" * 64)
    assert [each.source_series_uid for each in found] == ["1.2.1.1", "1.2.2.1", "1.2.3.1"]
    assert [len(each.objects) for each in found] == [4, 3, 3]
    assert recall.by_bundle("1" * 16) == found
    assert recall.by_bundle("2" * 64) == ()


def test_the_destinations_of_an_object_are_told(recall: Recall, database: Database) -> None:
    first = recall.by_exemplar(BERT)[0]
    image = first.objects[0].sop_instance_uid
    assert first.objects[0].destinations == {"pacs": "pending"}
    answer = Answer(sop_instance_uid=image, outcome="taken", status=0)
    Deliveries(database).record(first.set_id, "pacs", [answer])
    assert recall.by_exemplar(BERT)[0].objects[0].destinations == {"pacs": "taken"}


@pytest.mark.parametrize("digits", ["", "a" * 15, "a" * 65, "A" * 32, "%" * 16, "1.2.3" * 5])
def test_what_is_no_hash_is_refused(recall: Recall, digits: str) -> None:
    with pytest.raises(StateError, match="16 to 64 digits"):
        recall.by_exemplar(digits)
    with pytest.raises(StateError, match="16 to 64 digits"):
        recall.by_bundle(digits)
