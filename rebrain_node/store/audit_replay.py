"""What the rows of the audit log say of the fact tables, followed event by event.

Every change of ledger, outbox and deliveries has its row (docs/audit-events.md); following the rows
gives the state that the tables must be in. A value that the log does not tell, because an earlier
version wrote the row or retention removed it, is `UNKNOWN` and equals everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rebrain_node.domain.audit import Event
from rebrain_node.domain.completeness import UNVERIFIED


class _UnknownValue:
    """Equal to everything: the log does not tell the value."""

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


#: a value that the log does not tell
UNKNOWN: Final[Any] = _UnknownValue()
_Details = Mapping[str, Any]


@dataclass
class SeriesFacts:
    """What a row of `series` must say."""

    study: Any
    state: Any = "receiving"
    revision: Any = 1
    count: int | None = 0  #: None where the log does not tell
    completeness: Any = None
    reason: Any = None
    findings: Any = field(default_factory=list)
    explanation: Any = field(default_factory=list)
    changed_at: Any = UNKNOWN  #: time of the row that changed it last


@dataclass
class StudyFacts:
    """What a row of `study` must say."""

    count: int | None = 0
    last_ledger_id: int = 0
    receiving: bool | None = True  #: None where the log does not tell
    series: set[str] = field(default_factory=set)


@dataclass
class SetFacts:
    """What a row of `derived_set` and its objects must say."""

    series: str
    study: Any
    revision: Any
    provenance: Any
    created_at: str
    manifest: Any = UNKNOWN  #: digest over all columns of its objects
    sha256: Any = UNKNOWN  #: digest over the SHA-256 of its objects, of the first ones
    signed_manifest: Any = None  #: SHA-256 of the set manifest


@dataclass
class VersionFacts:
    """What a row of `quarantine` must say."""

    details: _Details
    received_at: Any
    disputed: Any
    decision: Any = None


class FactReplay:
    """The facts as the rows of the log tell them.

    Parameters
    ----------
    sealed
        Whether earlier rows were removed, so that what is not told may still be there.
    """

    def __init__(self, *, sealed: bool) -> None:
        self.sealed = sealed
        self._handlers: Mapping[str, Callable[[str, str, _Details], None]] = {
            str(event): getattr(self, name) for event, name in _HANDLERS.items()
        }
        self.series: dict[str, SeriesFacts] = {}
        self.studies: dict[str, StudyFacts] = {}
        self.sets: dict[int, SetFacts] = {}
        #: newest digest by set and destination
        self.deliveries: dict[tuple[int, str], Any] = {}
        self.versions: dict[tuple[str, str], VersionFacts] = {}
        #: versions that became the instance, by SOP Instance UID, in order
        self.taken: dict[str, list[VersionFacts]] = {}
        self.paused: dict[str, tuple[Any, str]] = {}
        self.stops: dict[str, tuple[Any, str]] = {}
        self.commitments: dict[str, tuple[int, str, str, str | None]] = {}
        self.purged: set[str] = set()  #: series and studies
        self.lost: set[str] = set()  #: SOP instances
        self.reopened: set[int] = set()  #: sets that the log does not tell, whose series goes on

    def apply(self, event: str, subject: str, recorded_at: str, details: _Details) -> None:
        """Follow one row.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            Its details are none that this software writes.
        """
        handler = self._handlers.get(event)
        if handler is not None:
            handler(subject, recorded_at, details)

    def _series(self, uid: str) -> SeriesFacts:
        found = self.series.get(uid)
        if found is None:
            found = self.series[uid] = SeriesFacts(
                UNKNOWN, UNKNOWN, UNKNOWN, None, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
            )
        return found

    def _study(self, uid: str) -> StudyFacts:
        found = self.studies.get(uid)
        if found is None:
            count, receiving = (None, None) if self.sealed else (0, True)
            found = self.studies[uid] = StudyFacts(count=count, receiving=receiving)
        return found

    def _instance_received(self, uid: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        study = self._study(told["study"])
        study.receiving, study.last_ledger_id = True, told["ledger_id"]
        if study.count is not None:
            study.count += 1
        name = told["series"]
        series = self.series.get(name)
        if series is None:
            series = SeriesFacts(study=told["study"], changed_at=at)
            if self.sealed:
                series.revision = series.reason = series.changed_at = UNKNOWN
                series.count = None
            self.series[name] = series
        study.series.add(name)
        if series.count is not None:
            series.count += 1

    def _instance_conflict(self, uid: str, at: str, told: _Details) -> None:
        disputed = told.get("disputed_series", UNKNOWN)
        decision = UNKNOWN if disputed is UNKNOWN else None
        self.versions[uid, told["sha256"]] = VersionFacts(told, at, disputed, decision)

    def _series_reopened(self, uid: str, at: str, told: _Details) -> None:
        series = self._series(uid)
        series.state, series.revision, series.changed_at = "receiving", told["revision"], at
        series.completeness, series.findings, series.explanation = None, [], []

    def _series_verified(self, uid: str, at: str, told: _Details) -> None:
        series = self._series(uid)
        series.state, series.changed_at = "complete", at
        series.completeness, series.reason = told["completeness"], told["reason"]

    def _study_complete(self, uid: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        study = self._study(uid)
        study.receiving = False
        for name in study.series:
            series = self.series[name]
            if series.state is not UNKNOWN and series.state == "receiving":
                series.state, series.changed_at = "complete", at
                series.completeness, series.reason = UNVERIFIED, None

    def _series_judged(self, uid: str, at: str, told: _Details, state: str) -> None:
        if "explanation" not in told:
            self._series_moved(uid, at, told)
            return
        series = self._series(uid)
        series.state, series.changed_at, series.revision = state, at, told["revision"]
        series.completeness = told["completeness"]
        series.findings, series.explanation = told["findings"], told["explanation"]

    def _series_accepted(self, uid: str, at: str, told: _Details) -> None:
        self._series_judged(uid, at, told, "accepted")

    def _series_refused(self, uid: str, at: str, told: _Details) -> None:
        self._series_judged(uid, at, told, "refused")

    def _series_moved(self, uid: str, at: str, told: _Details) -> None:
        series = self._series(uid)
        series.state, series.revision, series.changed_at = told["state"], told["revision"], at
        series.findings = told.get("findings", series.findings)

    def _series_held(self, uid: str, at: str, told: _Details) -> None:
        self._series_moved(uid, at, told)
        self._kept(uid, told)

    def _kept(self, uid: str, told: _Details) -> None:
        """Follow what the row of a series says from now on; earlier versions did not tell."""
        kept, series = told.get("kept", {}), self._series(uid)
        series.findings = kept.get("findings", UNKNOWN)
        series.explanation = kept.get("explanation", UNKNOWN)

    def _series_retried(self, uid: str, at: str, told: _Details) -> None:
        self._series_moved(uid, at, told)
        series = self._series(uid)
        series.findings, series.explanation = [], []
        if told["state"] == "receiving":
            series.completeness = None
            if isinstance(series.study, str):
                self._study(series.study).receiving = True

    def _series_cancelled(self, uid: str, at: str, told: _Details) -> None:
        self._series_moved(uid, at, told)
        self._series(uid).findings = told.get("findings", UNKNOWN)

    def _dispute_decided(self, uid: str, at: str, told: _Details) -> None:
        series = self._series(uid)
        series.revision = told["revision"]
        if told["state"] != told["state_before"]:
            series.state, series.changed_at = told["state"], at
            self._kept(uid, told)
        for version in self.versions.values():
            is_told = version.decision is not UNKNOWN
            if is_told and version.disputed == uid and version.decision in (None, "refuse"):
                version.decision = told["decision"]
        for instance, digest in told["taken"].items():
            unknown = VersionFacts({"sha256": digest}, UNKNOWN, uid)
            version = self.versions.pop((instance, digest), unknown)
            self.taken.setdefault(instance, []).append(version)

    def _series_synthesised(self, uid: str, at: str, told: _Details) -> None:
        self._series_moved(uid, at, told)
        made = SetFacts(
            series=uid,
            study=self._series(uid).study,
            revision=told["revision"],
            provenance=told["provenance"],
            created_at=at,
            sha256=told["sha256"],
            signed_manifest=told.get("signed_manifest"),
        )
        self.sets[told["set"]] = made
        for name in told["destinations"]:
            self.deliveries[told["set"], name] = UNKNOWN
        self._set_changed(uid, at, told)

    def _set_changed(self, uid: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        made = self.sets.get(told["set"])
        if made is not None:
            made.manifest = told.get("manifest", UNKNOWN)
        for name, digest in told.get("rows", {}).items():
            self.deliveries[told["set"], name] = digest

    def _delivery_changed(self, name: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        self.deliveries[told["set"], name] = told.get("rows", UNKNOWN)

    def _delivery_reopened(self, name: str, at: str, told: _Details) -> None:
        self._delivery_changed(name, at, told)
        made = self.sets.get(told["set"])
        if made is None:
            self.reopened.add(told["set"])
            return
        series = self._series(made.series)
        known = series.state is not UNKNOWN and series.revision is not UNKNOWN
        if known and series.state == "failed" and series.revision == made.revision:
            series.state, series.changed_at = "synthesised", at

    def _delivery_verified(self, name: str, at: str, told: _Details) -> None:
        change = self._delivery_reopened if told.get("pending") else self._delivery_changed
        change(name, at, told)

    def _commitment_requested(self, name: str, at: str, told: _Details) -> None:
        self.commitments[told["transaction"]] = told["set"], name, at, None

    def _commitment_answered(self, name: str, at: str, told: _Details) -> None:
        self._delivery_changed(name, at, told)
        known = self.commitments.get(told["transaction"])
        if known is not None:
            self.commitments[told["transaction"]] = (*known[:3], at)

    def _delivery_paused(self, name: str, at: str, told: _Details) -> None:
        self.paused[name] = told["reason"], at

    def _delivery_resumed(self, name: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        self.paused.pop(name, None)

    def _delivery_stopped(self, name: str, at: str, told: _Details) -> None:
        self.stops[name] = told["reason"], at

    def _delivery_released(self, name: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        self.stops.pop(name, None)

    def _storage_purged(self, uid: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        self.purged.add(uid)

    def _patient_erased(self, uid: str, at: str, told: _Details) -> None:
        self._storage_purged(uid, at, told)
        for made in self.sets.values():
            if made.study == uid:
                made.signed_manifest = UNKNOWN if made.study is UNKNOWN else None

    def _storage_lost(self, uid: str, at: str, told: _Details) -> None:  # noqa: ARG002 - one signature for all
        self.lost.update(told["instance"], told["derived_instance"])


_HANDLERS: Final[Mapping[str, str]] = {
    Event.INSTANCE_RECEIVED: "_instance_received",
    Event.INSTANCE_CONFLICT: "_instance_conflict",
    Event.SERIES_REOPENED: "_series_reopened",
    Event.SERIES_VERIFIED: "_series_verified",
    Event.STUDY_COMPLETE: "_study_complete",
    Event.SERIES_ACCEPTED: "_series_accepted",
    Event.SERIES_REFUSED: "_series_refused",
    Event.SERIES_FAILED: "_series_moved",
    Event.GATE_REFUSED: "_series_moved",
    Event.SERIES_PUBLISHED: "_series_moved",
    Event.SERIES_HELD: "_series_held",
    Event.SERIES_RETRIED: "_series_retried",
    Event.SERIES_CANCELLED: "_series_cancelled",
    Event.DISPUTE_DECIDED: "_dispute_decided",
    Event.SERIES_SYNTHESISED: "_series_synthesised",
    Event.SERIES_RECALLED: "_set_changed",
    Event.DELIVERY_TAKEN: "_delivery_changed",
    Event.DELIVERY_FAILED: "_delivery_changed",
    Event.DELIVERY_REFUSED: "_delivery_changed",
    Event.DELIVERY_HELD: "_delivery_changed",
    Event.DELIVERY_CANCELLED: "_delivery_changed",
    Event.DELIVERY_WITHDRAWN: "_delivery_changed",
    Event.DELIVERY_RETRIED: "_delivery_reopened",
    Event.DELIVERY_VERIFIED: "_delivery_verified",
    Event.COMMITMENT_REQUESTED: "_commitment_requested",
    Event.COMMITMENT_ANSWERED: "_commitment_answered",
    Event.DELIVERY_PAUSED: "_delivery_paused",
    Event.DELIVERY_RESUMED: "_delivery_resumed",
    Event.DELIVERY_STOPPED: "_delivery_stopped",
    Event.DELIVERY_RELEASED: "_delivery_released",
    Event.STORAGE_PURGED: "_storage_purged",
    Event.PATIENT_ERASED: "_patient_erased",
    Event.STORAGE_LOST: "_storage_lost",
}
#: events that say something of the fact tables
FOLLOWED: Final = frozenset(map(str, _HANDLERS))
