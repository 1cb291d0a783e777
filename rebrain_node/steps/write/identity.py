"""UIDs of derived objects, a pure function of what the bytes depend on: options among it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import ObjectKind, Provenance
from rebrain_node.domain.marks import UID_ROOT

#: uuid5(DNS, "rebrain-node"): never changes, or old results would get new names
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "rebrain-node")
#: these tell of the audit log, which moves on between two runs of the same work
_ANCHORED: Final = ("SR", "KOS")

Companion = Literal["PM", "SEG", "SC", "PR", "SR", "KOS"]
#: every kind beside the MR, in the order of sending
COMPANIONS: Final[tuple[Companion, ...]] = ("PM", "SEG", "SC", "PR", "SR", "KOS")


@dataclass(frozen=True, kw_only=True)
class AuditAnchor:
    """The last row of the audit log at the time of writing, anchored in the SR."""

    sequence: int  #: gap-less number of the row
    sha256: str  #: hash of the row, chained over all before it, hexadecimal
    signature: str | None = None  #: of the node over it (`domain.audit.Checkpoint.anchor_text`)


@dataclass(frozen=True, kw_only=True)
class ObjectOptions:
    """Which objects are written, and how; site settings."""

    mr: Literal["classic", "enhanced"] = "classic"
    companions: tuple[Companion, ...] = COMPANIONS
    map_precision: Literal["float32", "uint16"] = "uint16"
    preview_banner: Literal["none", "border", "full"] = "border"
    #: ink in the pixels of the MR, beside the head
    ink: Literal["none", "corner", "border"] = "none"
    watermark: bool = False  #: in the pixels of the MR (`rebrain_node.watermark`)
    #: voxels with a larger expected absolute error (ratio of the display range) are in the SEG
    uncertain_above: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.uncertain_above < 1.0:
            raise ValueError(
                f"uncertain_above is {self.uncertain_above}; it is a ratio of the display range, "
                "give a number between 0 and 1"
            )


def derived_uid(*names: str) -> str:
    """Derive a permanent UID: ``2.25.`` and the decimal UUIDv5 of the names (PS3.5 B.2)."""
    return UID_ROOT + str(uuid.uuid5(_NAMESPACE, "|".join(names)).int)


@dataclass(frozen=True)
class DerivedUids:
    """The UIDs of one result; the same UID implies the same bytes.

    The name of an object is made of the provenance (series, input, bundle, engine, configuration,
    software, revision), the findings, verdict and options written into it, its kind and frame;
    the SR, and the KOS that points at it, also of the head of the audit log which they anchor.
    """

    digest: str  #: of everything but the audit head
    anchored_digest: str  #: of everything

    @classmethod
    def of(
        cls,
        provenance: Provenance,
        findings: Sequence[Finding],
        options: ObjectOptions,
        anchor: AuditAnchor | None = None,
    ) -> DerivedUids:
        """Derive the digests under which all objects of a result are named."""
        facts = {
            "provenance": provenance.digest,
            "findings": [asdict(finding) for finding in findings],
            "options": {**asdict(options), "audit_head": None},
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        if anchor is None:
            return cls(digest, digest)
        anchored = f"{digest}|{anchor.sequence}|{anchor.sha256}"
        if anchor.signature is not None:
            anchored += f"|{anchor.signature}"
        return cls(digest, hashlib.sha256(anchored.encode()).hexdigest())

    def series(self, kind: ObjectKind) -> str:
        """Series Instance UID of all objects of a kind."""
        return derived_uid(self._digest(kind), kind, "series")

    def instance(self, kind: ObjectKind, frame: int = 0) -> str:
        """SOP Instance UID; ``frame`` counts the MR slices from 0."""
        return derived_uid(self._digest(kind), kind, "instance", str(frame))

    def other(self, kind: ObjectKind, name: str) -> str:
        """UID of something within an object, e.g. a dimension organisation."""
        return derived_uid(self._digest(kind), kind, name)

    def _digest(self, kind: ObjectKind) -> str:
        return self.anchored_digest if kind in _ANCHORED else self.digest
