"""Small values for the store's tests: received instances, derived sets, a fast folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rebrain_node.domain.delivery import Answer, Outcome
from rebrain_node.domain.job import DerivedInstance, DerivedSet, Job, Provenance
from rebrain_node.domain.ledger import Judgement, ReceivedInstance
from rebrain_node.store.ledger import Ledger

_MEMORY = Path("/dev/shm")


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder where fsync costs nothing: for tests of many small transactions."""
    folder = tempfile.mkdtemp(prefix="rebrain-", dir=_MEMORY if _MEMORY.is_dir() else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def received(
    instance: int = 1, series: str = "1.2.1.1", study: str = "1.2.1", content: str = "as sent"
) -> ReceivedInstance:
    """One received instance; ``content`` stands for its bytes."""
    uid = f"{series}.{instance}"
    return ReceivedInstance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        series_instance_uid=series,
        study_instance_uid=study,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=hashlib.sha256(f"{uid} {content}".encode()).hexdigest(),
        size_bytes=100,
        path=f"inbox/{uid}",
        calling_ae_title="CT1",
    )


def complete_all(ledger: Ledger) -> None:
    """Take every study in reception as complete."""
    for study in ledger.studies_in_reception():
        assert ledger.complete(study, {"quiet_s": 30.0})


def accept(ledger: Ledger, series: str = "1.2.1.1", study: str = "1.2.1") -> Job:
    """Complete the study and accept one series of it, refusing the others."""
    complete_all(ledger)
    judgements = [
        Judgement(
            series_instance_uid=one.series_instance_uid,
            revision=one.revision,
            decision="accepted" if one.series_instance_uid == series else "refused",
        )
        for one in ledger.series(study=study)
    ]
    ledger.judge(study, judgements)
    record = ledger.series_one(series)
    assert record is not None
    return Job(study_instance_uid=study, series_instance_uid=series, revision=record.revision)


def answers(
    instances: Sequence[DerivedInstance], outcome: Outcome = "taken", status: int | None = 0
) -> list[Answer]:
    """The same answer of a destination for each instance."""
    reason = None if outcome == "taken" else f"answered {outcome}"
    return [
        Answer(sop_instance_uid=one.sop_instance_uid, outcome=outcome, status=status, reason=reason)
        for one in instances
    ]


def derived_set(job: Job, instances: int = 3, content: bytes = b"synthetic") -> DerivedSet:
    """A set of small objects for ``job``; its UIDs are a function of series and revision."""
    digest = hashlib.sha256(f"{job.series_instance_uid} {job.revision}".encode()).digest()
    root = f"2.25.{int.from_bytes(digest[:8], 'big')}"
    return DerivedSet(
        provenance=Provenance(
            source_series_uid=job.series_instance_uid,
            input_digest="0" * 64,
            bundle_name="tiny",
            bundle_version="1",
            bundle_digest="1" * 64,
            engine_identity="none",
            configuration_digest="2" * 64,
            software_version="0",
            revision=job.revision,
        ),
        instances=tuple(
            DerivedInstance(
                kind="MR" if n else "KOS",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
                sop_instance_uid=f"{root}.{n}",
                series_instance_uid=root,
                content=content + str((job.series_instance_uid, job.revision, n)).encode(),
            )
            for n in reversed(range(instances))
        ),
    )
