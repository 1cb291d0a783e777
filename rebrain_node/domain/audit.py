"""The audit log as values: the closed list of events, one event, the verdict on the chain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self


class Event(StrEnum):
    """Every event the audit log knows, with the row that docs/audit-events.md has of it."""

    when: str  #: when it is recorded
    subject: str  #: what it is about
    details: str  #: keys of its details

    def __new__(cls, value: str, when: str, subject: str, details: str) -> Self:
        """Make a member that is its value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.when, member.subject, member.details = when, subject, details
        return member

    NODE_STARTED = (
        "node.started",
        "the receiver listens; again when it was restarted",
        "AE title of the node",
        "version, port (plain DICOM; null where it is not open), tls_port (null without TLS)",
    )
    NODE_STOPPED = (
        "node.stopped",
        "the receiver ended in order; after a crash it is missing",
        "AE title of the node",
        "",
    )
    WORKER_STARTED = (
        "worker.started",
        "a worker process is ready",
        "worker-1, worker-2, ...",
        "engine, bundle (digest)",
    )
    PROCESS_RESTARTED = (
        "process.restarted",
        (
            "a process of the node that was alive and gave no sign of life was killed and is "
            "started again; after a crash it is missing"
        ),
        "receiver, worker-1, ...",
        "silent_s",
    )
    PROCESS_TAKEN_OVER = (
        "process.taken-over",
        (
            "a process of a machine gave no sign of life in the shared database for 15 s: others "
            "take over its work, and what it writes from then on is refused"
        ),
        "machine/process",
        "by (the process that noticed), duties (that it had)",
    )
    SETTINGS_RELOADED = (
        "settings.reloaded",
        "a process of the node has read the settings again (SIGHUP)",
        "receiver, worker-1, ...",
        "taken (names of settings), need_restart (names of those that wait for the next start)",
    )
    BUNDLE_VERIFIED = (
        "bundle.verified",
        (
            "a worker has activated a bundle: it is verified and reproduces its golden output "
            "on this machine; older bundles are refused from then on"
        ),
        "digest of the bundle",
        "name, version, signed_by (name, key; null if unsigned)",
    )
    BUNDLE_REFUSED = (
        "bundle.refused",
        (
            "a bundle is altered or not trusted, is older than the last active one, or its "
            "golden output deviates"
        ),
        "bundle",
        "reason",
    )
    SELF_TEST_FAILED = (
        "self-test.failed",
        "the engine cannot start",
        "what was tested",
        "reason",
    )
    ENGINE_FALLBACK = (
        "engine.fallback",
        (
            "the engine that is set cannot start here, or does not reproduce the golden output; "
            "OpenVINO computes on the processor instead"
        ),
        "engine that is set",
        "engine (that computes), reason",
    )
    ASSOCIATION_REFUSED = (
        "association.refused",
        "a peer is not on the allow list, or a limit is reached; repeated ones are rate-limited",
        "calling AE title",
        (
            "address, called_ae_title, reason, not_told (how many were suppressed since the "
            "last row), would_admit (the settings line), certificate (SHA-256 fingerprint) and "
            "certificate_subject of what the peer presented over TLS"
        ),
    )
    HANDSHAKE_REFUSED = (
        "handshake.refused",
        (
            "there was no TLS with a peer of the TLS port: of whom is not known but its address; "
            "repeated ones are rate-limited"
        ),
        "address",
        "address, reason ([TLS](how-to/tls.md)), sentence, not_told",
    )
    ASSOCIATION_ABORTED = (
        "association.aborted",
        "an association ended without release; repeated ones are rate-limited",
        "calling AE title",
        (
            "address, reason (PEER-ABORTED, PEER-GONE, SILENT, SLOW-PDU, STOPPED, or the rule that "
            "the peer broke: PDU-TYPE, PDU-LENGTH, PDU-CONTENT, COMMAND, MESSAGE-LENGTH), not_told"
        ),
    )
    INSTANCE_RECEIVED = (
        "instance.received",
        "an instance is durable and about to be acknowledged",
        "SOP instance",
        (
            "ledger_id, series, study, sha256, size_bytes, calling_ae_title, sop_class, "
            "transfer_syntax"
        ),
    )
    INSTANCE_REFUSED = (
        "instance.refused",
        "an instance was not acknowledged",
        "SOP instance, or `no UID`",
        "status, reason, sentence, calling_ae_title, address",
    )
    INSTANCE_CONFLICT = (
        "instance.conflict",
        (
            "a known SOP Instance UID came with other content (`SAME-UID-OTHER-BYTES`), or a "
            "series of one study came in another (`SERIES-OF-OTHER-STUDY`); written once for "
            "the same content"
        ),
        "SOP instance",
        (
            "reason, sha256, series, calling_ae_title, study, size_bytes, sop_class, "
            "transfer_syntax, disputed_series"
        ),
    )
    SERIES_DISPUTED = (
        "series.disputed",
        (
            "the first quarantined instance contradicts a series; its further ones are "
            "`instance.conflict` alone"
        ),
        "series",
        "revision, state",
    )
    SERIES_HELD = (
        "series.held",
        (
            "a series in dispute would have been accepted, was accepted, or has a result that no "
            "destination took anything of: it waits for the decision of the site"
        ),
        "series",
        "revision, state, findings, kept (findings and explanation of the row)",
    )
    DISPUTE_DECIDED = (
        "dispute.decided",
        "the site decided with `queue dispute`",
        "series",
        (
            "decision (`keep-first`, `take-second`, `refuse`), operator, reason, instances "
            "(count), taken (SOP instance: SHA-256 of the bytes that are the instance from now "
            "on), state_before, state, revision, kept (findings and explanation of the row)"
        ),
    )
    SERIES_REOPENED = (
        "series.reopened",
        "a late instance arrived for a complete or judged series",
        "series",
        "late_instance, state_before, revision (the new one)",
    )
    STUDY_COMPLETE = (
        "study.complete",
        (
            "the quiet period of the study, its maximum wait, or the time for its sender to resume "
            "has passed"
        ),
        "study",
        (
            "completeness (the least of its series), instances, reason (`QUIET`, `MAXIMUM-WAIT` or "
            "`NOT-RESUMED`), quiet_s, waited_s"
        ),
    )
    SERIES_VERIFIED = (
        "series.verified",
        (
            "the verdict of completeness on a CT series: what its source answered, or why it could "
            "not be asked; missing where `completeness.verify` is `never`"
        ),
        "series",
        "revision, completeness (`VERIFIED`, `INCOMPLETE` or `UNVERIFIED`), instances, reason",
    )
    SERIES_ACCEPTED = (
        "series.accepted",
        "the selection chose the series",
        "series",
        "revision, completeness, findings, explanation",
    )
    SERIES_REFUSED = (
        "series.refused",
        "the selection or a check refused the series",
        "series",
        (
            "revision, findings; of the selection also completeness and explanation, of a check "
            "also state and codes"
        ),
    )
    SERIES_RETRIED = (
        "series.retried",
        "an operator has a failed or cancelled series judged again (`queue retry`)",
        "series",
        "operator, reason, revision, state_before, state, findings",
    )
    SERIES_CANCELLED = (
        "series.cancelled",
        "an operator refused a series that waited for judgement or synthesis (`queue cancel`)",
        "series",
        "operator, reason, revision, state_before, state, findings",
    )
    STEP_COMPLETED = (
        "step.completed",
        "one step of the path ended",
        "series",
        "step, seconds",
    )
    STEP_FAILED = (
        "step.failed",
        "a step of the path refused the series or an object",
        "series",
        "step, codes",
    )
    TISSUE_LEVEL = (
        "series.tissue-level",
        (
            "the level of brain tissue was measured and soft tissue shifted to the level of the "
            "bundle; only with a bundle that expects a level"
        ),
        "series",
        "revision, measured_hu (null where too little brain is seen), expected_hu, shift_hu",
    )
    SERIES_RECOGNISED = (
        "series.recognised",
        (
            "the out-of-distribution score of the series was computed; only with a bundle that "
            "has an OOD model"
        ),
        "series",
        (
            "revision, score, threshold, parts (of the score), deviations (of each statistic; "
            "[out-of-domain](out-of-domain.md))"
        ),
    )
    SERIES_GUIDED = (
        "series.guided",
        "the kind and reason of every slice are decided; written before a slice is synthesised",
        "series",
        (
            "revision, slices_in_all, kinds (count of each), tau and knowledge_base (digest; both "
            "null without retrieval), plausibility (of the head frame), reasons and slices (see "
            "below)"
        ),
    )
    SERIES_UNCERTAINTY = (
        "series.uncertainty",
        "the uncertainty of every slice is estimated; written before the objects are",
        "series",
        (
            "revision, mean (of the slices that show the head, ratio of the display range), "
            "label (how far to trust it), untrusted_above (null without a limit), untrusted "
            "(numbers of the slices above it, from 1), slices (mean of each)"
        ),
    )
    SERIES_SYNTHESISED = (
        "series.synthesised",
        "the derived set is durable in the outbox",
        "series",
        (
            "set, provenance (digest), destinations, objects (count of each kind), sha256 (over "
            "the SHA-256 of all instances in the order of sending), signed_manifest (SHA-256 "
            "of the [set manifest](marks.md#the-set-manifest)), manifest, rows, revision, state"
        ),
    )
    SERIES_FAILED = (
        "series.failed",
        "the series ends without a result",
        "series",
        "revision, state; codes and findings, or set and refused (count of instances)",
    )
    GATE_REFUSED = (
        "gate.refused",
        "a written object violates a rule of the gate; a defect of this software",
        "series",
        "revision, state, codes, findings",
    )
    DELIVERY_TAKEN = (
        "delivery.taken",
        "a destination accepted instances, with success or a warning",
        "destination",
        "set, taken (count), warnings (SOP instance: status), rows",
    )
    DELIVERY_FAILED = (
        "delivery.failed",
        "an attempt failed and is tried again",
        "destination",
        "set, reason, rows",
    )
    DESTINATION_UNREACHABLE = (
        "destination.unreachable",
        (
            "attempts failed so often in a row that the circuit breaker opens: one attempt after "
            "each pause, without a row of its own"
        ),
        "destination",
        "failures (in a row), reason",
    )
    DESTINATION_REACHABLE = (
        "destination.reachable",
        "an attempt reached a destination whose circuit breaker was open: it closes",
        "destination",
        "failures (in a row), seconds (since the first of them, monotonic)",
    )
    DELIVERY_REFUSED = (
        "delivery.refused",
        "a destination permanently refuses objects of a set, or does not accept their kind",
        "destination",
        "set, objects (count), reason, rows",
    )
    DELIVERY_HELD = (
        "delivery.held",
        "a set is kept back: the study at the destination is another patient's or examination's",
        "destination",
        "set, reason, rows",
    )
    DELIVERY_VERIFIED = (
        "delivery.verified",
        "a destination was asked what it holds of a set",
        "destination",
        "set, count of each state, rows",
    )
    COMMITMENT_REQUESTED = (
        "commitment.requested",
        "a destination is asked to commit itself to the objects of a set",
        "destination",
        "set, transaction (UID)",
    )
    COMMITMENT_ANSWERED = (
        "commitment.answered",
        "a destination answered such a request",
        "destination",
        "set, transaction (UID), count of each state, rows",
    )
    COMMITMENT_UNKNOWN = (
        "commitment.unknown",
        "an answer came to a request that this node has not made",
        "transaction UID",
        "objects (count)",
    )
    NOTIFICATION_SENT = (
        "notification.sent",
        "a receiver took the notification that a destination holds a set",
        "receiver",
        "set, destination, notification (SOP instance), objects (count), status",
    )
    NOTIFICATION_FAILED = (
        "notification.failed",
        "a notification was not taken and is tried again",
        "receiver",
        "set, destination, reason",
    )
    NOTIFICATION_REFUSED = (
        "notification.refused",
        "a receiver refuses a notification, or it cannot be written; not tried again by itself",
        "receiver",
        "set, destination, reason",
    )
    NOTIFICATION_RETRIED = (
        "notification.retried",
        "an operator has a notification sent again",
        "receiver",
        "set, objects (count), reason, operator",
    )
    NOTIFICATION_CANCELLED = (
        "notification.cancelled",
        "an operator, or a recall, stops a notification that was not taken",
        "receiver",
        "set, reason, operator",
    )
    DELIVERY_WITHDRAWN = (
        "delivery.withdrawn",
        "what waits of a set is taken back because its source series came into dispute",
        "destination",
        "set, objects (count), rows",
    )
    WORKITEM_CHOSEN = (
        "workitem.chosen",
        "a scheduled workitem names a study that has ended; the node is about to claim it",
        "manager",
        "workitem, study",
    )
    WORKITEM_CLAIMED = (
        "workitem.claimed",
        "the manager took the claim: the workitem is IN PROGRESS for this node",
        "manager",
        "workitem, study",
    )
    WORKITEM_ENDED = (
        "workitem.ended",
        "the node completed a workitem, or cancelled it because there is no result",
        "manager",
        "workitem, study, state (`completed` or `cancelled`), objects (count), reason",
    )
    WORKITEM_FAILED = (
        "workitem.failed",
        "a request about a workitem was not taken and is tried again",
        "manager",
        "workitem, study, reason",
    )
    WORKITEM_LOST = (
        "workitem.lost",
        "a workitem is gone, ended by another, or performed by another",
        "manager",
        "workitem, study, reason",
    )
    WORKITEM_REFUSED = (
        "workitem.refused",
        "the manager refuses a request about a workitem; tried again when the node starts",
        "manager",
        "workitem, study, reason",
    )
    DELIVERY_RETRIED = (
        "delivery.retried",
        "an operator has objects sent again",
        "destination",
        "set, objects (count), reason, operator, rows",
    )
    DELIVERY_CANCELLED = (
        "delivery.cancelled",
        "an operator stops what is pending of a set",
        "destination",
        "set, reason, operator, rows",
    )
    DELIVERY_PAUSED = (
        "delivery.paused",
        "an operator stops all deliveries to a destination",
        "destination",
        "reason, operator",
    )
    DELIVERY_RESUMED = (
        "delivery.resumed",
        "an operator ends the pause of a destination",
        "destination",
        "reason, operator",
    )
    DELIVERY_STOPPED = (
        "delivery.stopped",
        (
            "a stop rule, or an operator, stops every delivery; results are made and kept until a "
            "person releases the rule"
        ),
        "rule (`failures`, `drift`, `uncertainty`, `operator`)",
        "reason, value, limit, results (count that was judged), operator (null of a rule)",
    )
    DELIVERY_RELEASED = (
        "delivery.released",
        "a person ends a stop of delivery; the rule counts from here on anew",
        "rule",
        "reason, operator",
    )
    RESULT_MEASURED = (
        "result.measured",
        "a result is in the outbox: the measures on which the stop rules are judged",
        "series",
        (
            "set, revision, shadow (whether shadow mode was active), uncertainty (mean), "
            "uncertainty_limit, untrusted, slices (counts), ood_score, ood_threshold, brain_hu, "
            "expected_hu, deviations (of each statistic; [out-of-domain](out-of-domain.md))"
        ),
    )
    SHADOW_CHANGED = (
        "shadow.changed",
        "the node started with shadow mode active, or left it",
        "AE title of the node",
        "active, destination (of the results; null where they stay in the node)",
    )
    SERIES_VERDICT = (
        "series.verdict",
        "a person judged a result (`queue verdict`); the newest word of each person counts",
        "series",
        "set, revision, verdict (`accept` or `reject`), reason, operator",
    )
    SERIES_RECALLED = (
        "series.recalled",
        (
            "a rejection note is sent wherever the result was accepted: by an operator, or because "
            "a later revision was published (`revisions`)"
        ),
        "series",
        "set, revision, note (SOP instance), destinations, reason, operator, manifest, rows",
    )
    REJECTION_RECEIVED = (
        "rejection.received",
        (
            "another system sent a rejection note that names objects of this node; nothing is "
            "deleted"
        ),
        "SOP instance of the note",
        (
            "title (code of CID 7011), objects (SOP instances of this node), bundles (count of "
            "objects by digest), others (count of what is not of this node)"
        ),
    )
    STORAGE_PURGED = (
        "storage.purged",
        "the stored bytes of a series, and of what was made of it, are deleted by retention",
        "series",
        "state, instances (count), objects (count), bytes",
    )
    STORAGE_LOST = (
        "storage.lost",
        (
            "`storage fsck --repair` marked rows of a series whose bytes were missing or altered; "
            "the same instances are taken when they are sent again"
        ),
        "series, or `unknown`",
        "instance, quarantine, derived_instance (SOP instances of each)",
    )
    STORAGE_REPAIRED = (
        "storage.repaired",
        "`storage fsck --repair` moved unknown or altered bytes, or marked rows",
        "lost-found",
        "moved (files), rows (marked), counts (corrected numbers of instances)",
    )
    BACKUP_MADE = (
        "backup.made",
        "`backup` copied the state of the node: it holds patient data and the key of this log",
        "folder of the backup",
        "operator, files (of inbox and outbox), bytes, lost (missing or altered files)",
    )
    BACKUP_RESTORED = (
        "backup.restored",
        (
            "`restore` made the state of the node from a backup; events between the backup and "
            "this row are gone"
        ),
        "folder of the backup",
        "operator, made_at, version (of the node that made it), sequence (newest row in it)",
    )
    AUDIT_KEY_MADE = (
        "audit.key-made",
        (
            "a worker made the key of the node that signs the checkpoints of this log: once, where "
            "`storage.folder` holds none"
        ),
        "public key",
        "file",
    )
    AUDIT_SEALED = (
        "audit.sealed",
        (
            "rows older than `audit.years` were exported, sealed by a signed checkpoint and "
            "removed; the log begins after them"
        ),
        "file of the export",
        "rows (count), first, last (sequence), sha256 (of the file)",
    )
    AUDIT_READ = (
        "audit.read",
        "an operator wrote the log, or a report of all series or of a period, into a file",
        "command",
        "operator",
    )
    AUDIT_BROKEN = (
        "audit.broken",
        (
            "the check of this log, `audit verify` or that of the running node once a day, found "
            "that it is not as it was written; by the node once for the same contradiction"
        ),
        "first contradiction",
        "reason, differences (count)",
    )
    REPORT_MADE = (
        "report.made",
        "an operator had the report of a series with its pictures made (`audit report`)",
        "series",
        "operator, set (null without a result)",
    )
    STORAGE_LOW = (
        "storage.low",
        "free disk fell below `storage.soft_mark_bytes`: no new study is judged",
        "storage",
        "free_bytes, soft_mark_bytes",
    )
    STORAGE_FREE = (
        "storage.free",
        "the disk is above `storage.soft_mark_bytes` again",
        "storage",
        "free_bytes, soft_mark_bytes",
    )
    CERTIFICATE_READ = (
        "certificate.read",
        "the receiver read the files of `receiver.tls`: at its start, and once they had changed",
        "setting",
        "ends (UTC), fingerprints (SHA-256 of each certificate of the file)",
    )
    CERTIFICATE_NOT_READ = (
        "certificate.not-read",
        "changed files of `receiver.tls` cannot be used: the receiver goes on with those before",
        "setting",
        "reason",
    )
    CERTIFICATE_EXPIRING = (
        "certificate.expiring",
        (
            "a certificate or revocation list of the settings, or the certificate that a sender "
            "presented, has ended or ends soon; once a day"
        ),
        "setting, or subject of the sender's certificate",
        "ends (UTC), days (left; negative after its end)",
    )
    NOTICE_SENT = (
        "notice.sent",
        "a webhook or mail server took a notice of what needs attention, or a test",
        "channel",
        "events, listed, recipients_refused (counts), first, last (sequence); of a test operator",
    )
    NOTICE_FAILED = (
        "notice.failed",
        "a notice was not taken; it is tried again, a test is not",
        "channel",
        "events (count), first, last (sequence), reason; of a test operator",
    )
    PATIENT_ERASED = (
        "patient.erased",
        "an operator erased all stored bytes and manifests of a study of a patient (`audit erase`)",
        "study",
        "operator, reason, instances (count), objects (count), quarantined (count), bytes",
    )
    SERIES_PUBLISHED = (
        "series.published",
        "every destination accepted the whole set; that is no confirmation",
        "series",
        "set, taken (count), revision, state",
    )
    SERIES_CONFIRMED = (
        "series.confirmed",
        (
            "every destination has confirmed that it holds every object of the set, save what was "
            "left out or cancelled; again after more of it was sent"
        ),
        "series",
        "set, revision, destinations",
    )


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One row of the audit log."""

    sequence: int  #: 1, 2, 3, ... without a gap
    recorded_at: datetime  #: aware, UTC; the wall clock, which may be set back
    monotonic_ns: int  #: monotonic clock of the machine, ns; orders events of one boot
    event: str  #: a value of ``Event``; a tampered row may hold anything
    subject: str  #: what it is about: a DICOM UID, an AE title, a destination
    details: Mapping[str, Any]
    hash: str  #: SHA-256 over the previous row's hash and this row, hexadecimal


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The hash of one row, signed with the key of the node.

    A `seal` is the last row that retention removed: the log begins after it.
    """

    number: int  #: 1, 2, 3, ... without a gap
    kind: Literal["checkpoint", "seal"]
    sequence: int  #: of the row
    hash: str  #: of the row, hexadecimal
    signed_at: str  #: UTC, ISO 8601
    key: str  #: public key (Ed25519), 32 bytes in hexadecimal
    signature: str = ""  #: of `statement`, 64 bytes in hexadecimal

    @property
    def statement(self) -> bytes:
        """The bytes that are signed: a JSON array in ASCII without spaces."""
        fields = ("rebrain-node audit", self.number, self.kind, self.sequence, self.hash)
        return json.dumps([*fields, self.signed_at], separators=(",", ":")).encode("ascii")

    @property
    def anchor_text(self) -> str:
        """What a report adds to sequence and hash: number, time, key, signature."""
        return f"{self.number} {self.signed_at} {self.key} {self.signature}"


@dataclass(frozen=True, kw_only=True)
class AuditDifference:
    """What contradicts the audit log, although its chain may be whole."""

    kind: Literal["checkpoint", "trigger", "fact", "report"]
    subject: str  #: number of the checkpoint, name of the trigger, table, file of the report
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ChainVerdict:
    """Whether the audit log is as it was written."""

    intact: bool  #: the chain is whole and nothing contradicts it
    rows: int  #: rows that were found good, from the first one on
    head: str  #: hash of the last good row, hexadecimal
    broken_sequence: int | None = None  #: the first row that is not as it was written
    reason: str | None = None  #: one sentence: what is wrong with it
    first: int = 1  #: sequence of the first row; later rows than 1 after retention
    checkpoints: int = 0  #: signed checkpoints that hold
    unsigned: int = 0  #: rows after the newest checkpoint
    differences: tuple[AuditDifference, ...] = ()

    @property
    def sentence(self) -> str:
        """Say whether the log is as it was written, or what is not; without a full stop."""
        if self.intact:
            return f"All {self.rows} rows of the audit log are as they were written"
        if self.broken_sequence is not None:
            return (
                f"Row {self.broken_sequence} of the audit log is not as it was written "
                f"({self.reason}); {self.rows} rows before it are"
            )
        found = len(self.differences)
        return (
            f"The {self.rows} rows of the audit log are one chain, but {found} "
            f"{'fact contradicts' if found == 1 else 'facts contradict'} it, first: "
            f"{self.differences[0].sentence}"
        )
