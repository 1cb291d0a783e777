"""The one tree of errors.

    RebrainError
    ├── SettingsError            a setting is missing or wrong                (exit 2)
    ├── KeyRefused               a key file is missing, foreign or open to others
    ├── BundleRefused            a model bundle is not what was released, or deviates (exit 4)
    │   └── KnowledgeBaseRefused its exemplars are not fit to be searched; has a code
    ├── EngineFailed             an engine cannot start, or returns wrong output
    ├── StoreUnavailable         the database is locked, down or full
    ├── StateRefused             the ledger or the outbox forbids a change
    │   ├── Superseded           a late instance made a newer revision
    │   └── BytesAltered         stored bytes differ from their recorded SHA-256
    ├── InstanceRefused          one received instance is not acknowledged     (DIMSE status)
    │   ├── InstanceConflict     same UID, other bytes                         (0x0117)
    │   ├── OutOfResources       disk or database cannot take it               (0xA700)
    │   └── InstanceMalformed    the structural scan failed                    (0xA900, 0xC1xx)
    ├── SeriesRejected           a series must not be synthesised; has findings
    ├── GateRefused              a written object must not leave; has findings
    └── DeliveryFailed           a destination did not take an instance
        └── DeliveryRefused      permanently; it is not retried

Caught in three places only: the C-STORE handler, the worker, the command line.
Every message names the value, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence

from rebrain_node.domain.delivery import TakenInstance
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ood import OodScore


class RebrainError(Exception):
    """Root of every error this software raises on purpose."""


class SettingsError(RebrainError):
    """A setting is missing, unknown or outside its range."""


class KeyRefused(RebrainError):
    """A key file is missing, foreign, open to others, or would be overwritten."""


class BundleRefused(RebrainError):
    """A model bundle is not exactly what was released by somebody this node trusts.

    Altered, unsigned, signed with an untrusted key, older than the one before, or not reproducing
    its golden output on this machine.
    """


class KnowledgeBaseRefused(BundleRefused):
    """The exemplars of a bundle are altered, foreign or not fit to be searched."""

    def __init__(self, code: str, where: object, sentence: str) -> None:
        super().__init__(f"{code}: {where} {sentence}")
        #: stable code for audit and docs, e.g. ``KB-EMPTY``
        self.code = code


class EngineFailed(RebrainError):
    """An engine could not start, or answers what no network answers."""


class StoreUnavailable(RebrainError):
    """The database is locked, down or full; nothing was written."""


class StateRefused(RebrainError):
    """The ledger or the outbox forbids a change; nothing was written."""


class Superseded(StateRefused):
    """A late instance made a newer revision of the series; this work is void."""


class BytesAltered(StateRefused):
    """Stored bytes are missing or differ from their recorded SHA-256; they are never sent."""


class InstanceRefused(RebrainError):
    """A received instance is not acknowledged; ``status`` is the DIMSE answer (PS3.4 B.2.3)."""

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        #: DIMSE status of the C-STORE response
        self.status = status
        #: stable code for audit, metrics and docs
        self.reason = reason


class InstanceConflict(InstanceRefused):
    """The SOP Instance UID is known with other bytes (PS3.7 C.5.16: 0x0117)."""


class OutOfResources(InstanceRefused):
    """Disk or database cannot take the instance now (PS3.4 B.2.3: 0xA700)."""


class InstanceMalformed(InstanceRefused):
    """The structural scan found the data set unfit to be trusted."""


class SeriesRejected(RebrainError):
    """A series must not be synthesised; all findings are listed, the first decides."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(f"{f.code}: {f.sentence}" for f in findings))
        self.findings = tuple(findings)
        #: the out-of-distribution score, where it was known by then
        self.ood: OodScore | None = None


class GateRefused(RebrainError):
    """A written object must not leave the node; ``findings`` name the rules it breaks."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(f"{f.code}: {f.sentence}" for f in findings))
        self.findings = tuple(findings)
        #: the out-of-distribution score, where it was known by then
        self.ood: OodScore | None = None


class DeliveryFailed(RebrainError):
    """A destination did not take an instance this time."""

    def __init__(self, message: str, taken: Sequence[TakenInstance] = ()) -> None:
        super().__init__(message)
        #: what the destination took before it failed
        self.taken = tuple(taken)


class DeliveryRefused(DeliveryFailed):
    """A destination refuses an instance for good."""
