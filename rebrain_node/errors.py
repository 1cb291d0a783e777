"""The one tree of errors.

    RebrainError
    ├── SettingsError                a setting is missing or wrong                  (exit 2)
    │   └── NoStateError             no node's database is where the settings say
    ├── KeyFileError                 a key file is missing, foreign or open to others
    ├── ManifestError                a set manifest cannot be read
    ├── BundleError                  a model bundle is not what was released, or deviates (exit 4)
    │   └── KnowledgeBaseError       its exemplars are not fit to be searched; has a code
    ├── EngineError                  an engine cannot start, or returns wrong output
    ├── StoreUnavailableError        the database is locked, down or full
    ├── StateError                   the ledger or the outbox forbids a change
    │   ├── SupersededError          a late instance made a newer revision
    │   └── AlteredBytesError        stored bytes differ from their recorded SHA-256
    ├── InstanceError                one received instance is not acknowledged      (DIMSE status)
    │   ├── InstanceConflictError    same UID, other bytes                          (0x0117)
    │   ├── OutOfResourcesError      disk or database cannot take it                (0xA700)
    │   └── MalformedInstanceError   the structural scan failed                     (0xA900, 0xC1xx)
    ├── DecodingError                a compressed frame exceeds a limit or cannot be decoded
    ├── SeriesRejectedError          a series must not be synthesised; has findings
    ├── GateError                    a written object must not leave; has findings
    └── DeliveryError                a destination cannot be reached or refuses a request
        ├── UnreachableError         there is no association: nothing was sent
        └── QueryNotOfferedError     it cannot be asked what it holds

Caught in three places only: the C-STORE handler, the worker, the command line.
Every message names the value, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.statuses import STATUSES


class RebrainError(Exception):
    """Root of every error that this software raises on purpose.

    Outcome: exit code 1.
    """


class SettingsError(RebrainError):
    """A setting or a limit is missing, unknown or outside its range.

    Outcome: exit code 2; `serve` stops.
    """


class NoStateError(SettingsError):
    """The database that the settings name is missing or empty.

    Outcome: exit code 2; only `serve` makes a database, and only where no received or derived
    bytes lie in `storage.folder`.
    """


class KeyFileError(RebrainError):
    """A key file is missing, malformed, readable by other users, or would be overwritten.

    Outcome: exit code 1 of `rebrain-train`; a key that `model.trusted_keys` names is a
    `SettingsError`.
    """


class ManifestError(RebrainError):
    """A file is no set manifest, or cannot be read.

    Outcome: exit code 1; nothing is verified.
    """


class BundleError(RebrainError):
    """A model bundle is not what was released, or its golden output deviates on this machine.

    It is altered, truncated, unsigned, signed with an untrusted key, or older than the last active
    bundle.

    Outcome: exit code 4; `serve` stops.
    """


class KnowledgeBaseError(BundleError):
    """The knowledge base of a bundle is altered, unexpected or unusable; ``code`` says why.

    Outcome: as `BundleError`.
    """

    def __init__(self, code: str, where: object, sentence: str) -> None:
        super().__init__(f"{code}: {where} {sentence}")
        #: stable code for audit and docs, e.g. ``KB-EMPTY``
        self.code = code


class EngineError(RebrainError):
    """An engine cannot start, or returns output that no network returns.

    Outcome: the worker starts again; a series is failed after three attempts.
    """


class StoreUnavailableError(RebrainError):
    """The database is locked, down or full; nothing was written.

    Outcome: retried without limit; meanwhile C-STORE is answered with 0xA700.
    """


class StateError(RebrainError):
    """The ledger or the outbox forbids a change, or a file would be overwritten.

    Nothing was written.

    Outcome: exit code 1; in the worker the attempt fails.
    """


class SupersededError(StateError):
    """A late instance made a newer revision of the series.

    Outcome: the result is discarded; the newer revision is processed instead.
    """


class AlteredBytesError(StateError):
    """Stored bytes are missing or differ from their recorded SHA-256.

    Outcome: never sent; the delivery is refused with the reason.
    """


class InstanceError(RebrainError):
    """A received instance is not acknowledged (PS3.4 B.2.3).

    Outcome: the C-STORE response has its DIMSE status.
    """

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        if STATUSES[reason].status != status:
            raise ValueError(f"{reason} has status {STATUSES[reason].status:04X}, not {status:04X}")
        #: DIMSE status of the C-STORE response
        self.status = status
        #: a key of `STATUSES`, stable code for audit, metrics and docs
        self.reason = reason


class InstanceConflictError(InstanceError):
    """The SOP Instance UID is known with other bytes (PS3.7 C.5.16).

    Outcome: status 0x0117; the bytes are quarantined.
    """


class OutOfResourcesError(InstanceError):
    """Disk or database cannot take the instance now (PS3.4 B.2.3).

    Outcome: status 0xA700; the sender tries again.
    """


class MalformedInstanceError(InstanceError):
    """The structural scan rejects the data set.

    Outcome: status 0xA900 or 0xCxxx.
    """


class DecodingError(RebrainError):
    """A compressed frame exceeds a limit of `decoding`, or its decoder failed.

    Outcome: the series is refused with `PIXEL-DATA`.
    """


class SeriesRejectedError(RebrainError):
    """A series must not be synthesised; all findings are listed, the first decides.

    Outcome: the series is refused with its findings.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(f"{f.code}: {f.sentence}" for f in findings))
        self.findings = tuple(findings)
        #: the out-of-distribution score, where it was known by then
        self.ood: OodScore | None = None


class GateError(RebrainError):
    """A written object must not leave the node; ``findings`` name the rules it violates.

    This is a defect of this software.

    Outcome: the series is failed with its findings; nothing is sent.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(f"{f.code}: {f.sentence}" for f in findings))
        self.findings = tuple(findings)
        #: the out-of-distribution score, where it was known by then
        self.ood: OodScore | None = None


class DeliveryError(RebrainError):
    """A destination cannot be reached, rejects the association, or refuses a request.

    Outcome: retried after a pause that doubles from 1 s to 300 s, without limit of age.
    """


class UnreachableError(DeliveryError):
    """There is no association with a destination, or no connection: nothing was sent.

    Outcome: as `DeliveryError`.
    """


class QueryNotOfferedError(DeliveryError):
    """A destination does not accept C-FIND, so that it cannot be asked what it holds.

    Outcome: the delivery goes on without the answer; what is not verified stays so.
    """


def os_error_words(error: OSError) -> str:
    """Say what the operating system refused, with the file and no number of an error."""
    if isinstance(error, PermissionError) and error.filename:
        return (
            f"this user may not use {error.filename}; run the command as the user of the node, or "
            "correct owner and mode"
        )
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
