"""What was made of a series, in one block: of what, by whom, how sure, delivered to whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rebrain_node.domain.acceptance import ReaderVerdict
from rebrain_node.domain.text import ranges, utc

#: digits of a keyed hash or a digest that are shown; `recall` takes as few
SHOWN_DIGITS = 16
#: so many digits of an exemplar's hash name its subject
SUBJECT_DIGITS = 32


@dataclass(frozen=True, kw_only=True)
class SubjectSummary:
    """One subject of the knowledge base that guided slices."""

    subject: str  #: keyed hash, 32 digits
    exemplars: int  #: different slices of the subject that were used
    slices: tuple[int, ...]  #: numbers of the synthetic slices, from 1


@dataclass(frozen=True, kw_only=True)
class DestinationRecord:
    """How far the delivery of a result to one destination is."""

    destination: str
    states: Mapping[str, int]  #: number of objects in each state
    accepted_at: datetime | None  #: aware, UTC: when it last accepted an object
    confirmed_at: datetime | None  #: aware, UTC: when it last confirmed one

    @property
    def sentence(self) -> str:
        """Objects in each state, and since when."""
        words = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        if self.accepted_at is not None:
            words += f"; accepted {utc(self.accepted_at)}"
        if self.confirmed_at is not None:
            return f"{words}; confirmed {utc(self.confirmed_at)}"
        return f"{words}; not confirmed"


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """The newest result of a series; None where the version that made it recorded no such thing."""

    set_id: int
    source_series_uid: str
    revision: int
    made_at: datetime  #: aware, UTC
    mr_series_uid: str | None  #: None of a set without images
    objects: Mapping[str, int]  #: number of each kind
    bundle: str  #: name and version
    bundle_digest: str
    signed_by: str | None  #: name of the key; None of a bundle that nobody signed
    engine: str
    software_version: str
    kinds: Mapping[str, int] | None  #: slices measured, retrieved, interpolated
    subjects: tuple[SubjectSummary, ...]
    uncertainty: float | None  #: mean, ratio of the display range
    uncertainty_label: str | None
    untrusted: tuple[int, ...] | None  #: numbers of the slices, from 1
    ood_score: float | None
    ood_threshold: float | None
    destinations: tuple[DestinationRecord, ...]
    recalled: str | None = None  #: when and why it was recalled
    verdicts: tuple[ReaderVerdict, ...] = ()  #: the newest of each person

    def rows(self) -> list[tuple[str, str]]:
        """Return name and value of each line of the block, as terminal and report show it."""
        who = "nobody" if self.signed_by is None else self.signed_by
        digest = self.bundle_digest[:SHOWN_DIGITS]
        return [
            ("source series", self.source_series_uid),
            ("revision", str(self.revision)),
            ("MR series", self.mr_series_uid or "-"),
            ("made", utc(self.made_at)),
            ("bundle", f"{self.bundle}, signed by {who}"),
            ("bundle digest", digest),
            ("engine", self.engine),
            ("objects", f"{_counts(self.objects)} (set {self.set_id})"),
            ("slices by kind", "not recorded" if self.kinds is None else _counts(self.kinds)),
            *self._exemplar_rows(),
            ("mean uncertainty", self._uncertainty_words()),
            ("slices not to be trusted", self._untrusted_words()),
            ("OOD score", self._ood_words()),
            *self._delivery_rows(),
            *((f"verdict of {one.operator}", one.sentence) for one in self.verdicts),
            *([] if self.recalled is None else [("RECALLED", self.recalled)]),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON, times in UTC."""
        destinations = [
            asdict(one) | {"accepted_at": _json(one.accepted_at),
                           "confirmed_at": _json(one.confirmed_at)}
            for one in self.destinations
        ]  # fmt: skip
        verdicts = [one.to_json() for one in self.verdicts]
        return asdict(self) | {
            "made_at": _json(self.made_at), "destinations": destinations, "verdicts": verdicts,
        }  # fmt: skip

    def _exemplar_rows(self) -> Iterable[tuple[str, str]]:
        if not self.subjects:
            return [("exemplars", "none: no slice was guided")]
        slices = sum(len(one.slices) for one in self.subjects)
        exemplars = sum(one.exemplars for one in self.subjects)
        words = f"{exemplars} of {len(self.subjects)} subjects, for {slices} slices"
        each = [
            (f"subject {one.subject[:SHOWN_DIGITS]}", f"slices {ranges(one.slices)}")
            for one in self.subjects
        ]
        return [("exemplars", words), *each]

    def _uncertainty_words(self) -> str:
        if self.uncertainty is None:
            return "not recorded"
        return f"{self.uncertainty:.3g} of the display range, {self.uncertainty_label}"

    def _untrusted_words(self) -> str:
        if self.untrusted is None:
            return "not recorded"
        if not self.untrusted:
            return "none"
        return f"{len(self.untrusted)}: {ranges(self.untrusted)}"

    def _ood_words(self) -> str:
        if self.ood_score is None:
            return "none: the bundle has no OOD model"
        return f"{self.ood_score:.3g} (limit {self.ood_threshold:.3g})"

    def _delivery_rows(self) -> Iterable[tuple[str, str]]:
        if not self.destinations:
            return [("delivered", "to nobody: no destination is set")]
        return [(f"delivered to {one.destination}", one.sentence) for one in self.destinations]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _json(moment: datetime | None) -> str | None:
    return None if moment is None else utc(moment)
