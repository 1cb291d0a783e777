"""What is asked for and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from rebrain_node.domain.completeness import Completeness
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.uncertainty import UncertaintyInterpretation

if TYPE_CHECKING:
    from rebrain_node.domain.set_manifest import SetManifest
    from rebrain_node.domain.volume import Guide, TissueLevel

ObjectKind = Literal["MR", "PM", "SEG", "SC", "PR", "SR", "KOS"]


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """The set made from an earlier revision of the same series, which a new one replaces."""

    revision: int
    mr_series_uid: str
    report_series_uid: str | None = None  #: None where the site wanted no report
    report_uid: str | None = None  #: SOP Instance UID of its report


@dataclass(frozen=True, kw_only=True)
class Job:
    """One series to be processed."""

    study_instance_uid: str
    series_instance_uid: str
    revision: int = 1  #: 1 for the first judgement of the series, +1 for each late change
    findings: tuple[Finding, ...] = ()  #: flags raised by the selection, carried into the objects
    predecessor: Predecessor | None = None  #: None for a series of which nothing was made before
    completeness: Completeness = "UNVERIFIED"  #: verdict on the source series


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything the bytes of a result depend on; the derived UIDs are a function of it."""

    source_series_uid: str
    input_digest: str  #: SHA-256 over the sorted SHA-256 of the source instances
    bundle_name: str
    bundle_version: str
    bundle_digest: str  #: SHA-256 of the bundle's manifest
    engine_identity: str  #: name, version, precision
    configuration_digest: str  #: SHA-256 of limits and of the settings that shape the objects
    software_version: str
    revision: int
    predecessor: Predecessor | None = None  #: what an earlier revision gave
    completeness: Completeness = "UNVERIFIED"  #: verdict on the source series

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def seed(self) -> int:
        """Seed of the volume's noise field: series, bundle and engine identity only."""
        key = "|".join((self.source_series_uid, self.bundle_digest, self.engine_identity))
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


@dataclass(frozen=True, kw_only=True)
class DerivedInstance:
    """One written object as the bytes of a DICOM file (PS3.10)."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, kw_only=True)
class DerivedSet:
    """All objects made from one series, in the order in which they are sent."""

    provenance: Provenance
    instances: tuple[DerivedInstance, ...]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What came of a job."""

    job: Job
    derived: DerivedSet
    manifest: SetManifest  #: of the derived set
    guides: tuple[Guide, ...]
    uncertainty: tuple[float, ...]  #: of each slice, mean inside the head
    meaning: UncertaintyInterpretation  #: of the uncertainty
    findings: tuple[Finding, ...]  #: flags with which the result is published
    ood: OodScore | None  #: None where the bundle has no OOD model
    tissue: TissueLevel | None  #: None where the bundle expects no level of brain tissue
    step_seconds: Mapping[str, float]  #: by the name of the step
    seconds: float  #: of all steps together
