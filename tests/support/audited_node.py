"""A small node with a long story: every fact table has rows, checkpoints and reports are signed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from rebrain_node.domain.audit import Checkpoint, Event
from rebrain_node.domain.delivery import CommitmentReport, HeldObject
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedInstance, DerivedSet, Job
from rebrain_node.domain.ledger import Judgement
from rebrain_node.domain.marks import CODING_SCHEME
from rebrain_node.errors import InstanceConflictError
from rebrain_node.model.keys import PUBLIC_FILE, make_node_key
from rebrain_node.steps.write import codes
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.confirmations import Confirmations
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.stops import Stops
from tests.support.store_cases import answers, complete_all, derived_set, received

#: names within the folder of the node
DATABASE = "node.sqlite"
REPORTS = "reports"
COPIES = "copies"


@dataclass
class AuditedNode:
    """The parts of a node that write facts; ``folder`` is that of its state."""

    database: Database
    folder: Path
    url: str

    def __post_init__(self) -> None:
        self.ledger, self.audit = Ledger(self.database), AuditLog(self.database, self.folder)
        self.outbox = Outbox(self.database, self.folder / "outbox")
        self.deliveries = Deliveries(self.database)
        self.stops = Stops(self.database)
        self.confirmations = Confirmations(self.database)
        (self.folder / REPORTS).mkdir(exist_ok=True)

    def receive(self, study: str, series: int, instances: int, content: str = "as sent") -> None:
        for n in range(1, instances + 1):
            with suppress(InstanceConflictError):
                self.ledger.record_received(received(n, f"{study}.{series}", study, content))

    def publish(self, job: Job, names: tuple[str, ...]) -> int:
        """Make a set with a signed report, deliver it, and keep the report as the PACS does."""
        signed = self.audit.checkpoint()
        assert signed is not None
        made = derived_set(job)
        report = _report(made.instances[0].sop_instance_uid + ".9", job.study_instance_uid, signed)
        put = DerivedSet(provenance=made.provenance, instances=(*made.instances, report))
        number = self.outbox.put(put, names, job)
        (self.folder / REPORTS / f"{number}.dcm").write_bytes(report.content)
        return number

    def judge(self, study: str, accepted: str) -> Job:
        """Accept one series of a study, refuse the others with a finding."""
        finding = Finding(code="NOT-PREFERRED", sentence="another series was chosen", value=1.0)
        complete_all(self.ledger)
        judgements = []
        for one in self.ledger.series(study=study):
            judgement = Judgement(
                series_instance_uid=one.series_instance_uid,
                revision=one.revision,
                decision="accepted" if one.series_instance_uid == accepted else "refused",
                explanation=("thin enough", "of the head"),
            )
            chosen = judgement.decision == "accepted"
            judgements.append(judgement if chosen else replace(judgement, findings=(finding,)))
        self.ledger.judge(study, judgements)
        record = self.ledger.series_one(accepted)
        assert record is not None
        return Job(study_instance_uid=study, series_instance_uid=accepted, revision=record.revision)

    def copy(self, name: str) -> None:
        """Keep a copy of database and witness, as a backup does (SQLite)."""
        target = self.folder / COPIES / name
        target.mkdir(parents=True)
        for path in self.folder.iterdir():
            if path.is_file() and not path.name.startswith(DATABASE):
                shutil.copy2(path, target / path.name)
        if self.url.startswith("sqlite"):
            with (
                closing(sqlite3.connect(self.folder / DATABASE)) as now,
                closing(sqlite3.connect(target / DATABASE)) as kept,
            ):
                now.backup(kept)


def live(node: AuditedNode) -> None:
    """Let the node live: receive, judge, publish, confirm, dispute, fail, cancel, pause."""
    node.audit.record(Event.NODE_STARTED, "REBRAIN", {"version": "1", "port": 104})
    node.receive("1.2.1", 1, 4)
    node.receive("1.2.1", 2, 2)
    first = node.publish(node.judge("1.2.1", "1.2.1.1"), ("pacs", "archive"))
    node.copy("early")
    for name in ("pacs", "archive"):
        node.deliveries.failed(first, name, "no connection")
        node.deliveries.record(first, name, answers(node.outbox.outstanding(first, name)))
    uids = [one.sop_instance_uid for one in node.outbox.instances_of(first)]
    found = [HeldObject(sop_instance_uid=uid, held=True, changed=()) for uid in uids]
    node.confirmations.verify(first, "pacs", found)
    node.confirmations.request_commitment(first, "archive", "1.2.9.1")
    report = CommitmentReport(transaction_uid="1.2.9.1", committed=tuple(uids), failed={})
    node.confirmations.commit(report)
    node.confirmations.request_commitment(first, "archive", "1.2.9.2")
    node.audit.checkpoint()
    _dispute(node)
    _fail(node)
    node.copy("late")
    node.receive("1.2.5", 1, 3)
    last = node.publish(node.judge("1.2.5", "1.2.5.1"), ("pacs",))
    node.deliveries.record(last, "pacs", answers(node.outbox.outstanding(last, "pacs")[:2]))
    node.deliveries.pause("archive", "it is moved", "someone")
    node.stops.stop("the monitor is out of order", "someone")
    node.receive("1.2.6", 1, 2)
    node.audit.checkpoint()
    node.audit.record(Event.STEP_COMPLETED, "1.2.6.1", {"step": "assemble", "seconds": 0.1})


def _dispute(node: AuditedNode) -> None:
    node.receive("1.2.2", 1, 3)
    node.receive("1.2.2", 1, 2, "other")
    node.ledger.decide("1.2.2.1", "take-second", operator="mtra", reason="the right name")
    node.judge("1.2.2", "1.2.2.1")
    node.receive("1.2.3", 1, 3)
    node.judge("1.2.3", "1.2.3.1")
    node.receive("1.2.3", 1, 1, "other")  # held
    node.audit.checkpoint()


def _fail(node: AuditedNode) -> None:
    node.receive("1.2.4", 1, 2)
    set_id = node.publish(node.judge("1.2.4", "1.2.4.1"), ("pacs", "archive"))
    due = node.outbox.outstanding(set_id, "pacs")
    node.deliveries.record(set_id, "pacs", answers(due, "refused", 0xA900))
    node.deliveries.cancel(set_id, "archive", "not wanted", "someone")
    node.receive("1.2.7", 1, 2)
    complete_all(node.ledger)
    node.ledger.cancel("1.2.7.1", operator="someone", reason="a test")


def _report(uid: str, study: str, signed: Checkpoint) -> DerivedInstance:
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = Comprehensive3DSRStorage, uid
    report.PatientID, report.StudyInstanceUID, report.SeriesInstanceUID = "P1", study, f"{uid}.0"
    report.SeriesDescription = "SYNTH provenance of MR T1"
    report.Modality, report.ValueType = "SR", "CONTAINER"
    report.ContentSequence = [
        _item(codes.AUDIT_HEAD[0], f"{signed.sequence} {signed.hash}"),
        _item(codes.AUDIT_SIGNATURE[0], signed.anchor_text),
    ]
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    report.save_as(stream, enforce_file_format=True)
    return DerivedInstance(
        kind="SR",
        sop_class_uid=Comprehensive3DSRStorage,
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}.0",
        content=stream.getvalue(),
    )


def _item(code: str, text: str) -> Dataset:
    name, item = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, CODING_SCHEME, code
    item.ValueType, item.TextValue, item.ConceptNameCodeSequence = "TEXT", text, [name]
    return item


@contextmanager
def audited_node(folder: Path, url: str | None = None) -> Iterator[AuditedNode]:
    """A node on a folder, with a key of its own, that has lived."""
    url = f"sqlite:///{folder}/{DATABASE}" if url is None else url
    with Database.open(url) as database:
        node = AuditedNode(database, folder, url)
        if not (folder / PUBLIC_FILE).exists():
            key = make_node_key(folder)
            assert key is not None
            node.audit.record(Event.AUDIT_KEY_MADE, key, {"file": PUBLIC_FILE})
            live(node)
        yield node
