"""Whether a series arrived as a whole: what its source answers, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

Completeness = Literal["VERIFIED", "INCOMPLETE", "UNVERIFIED"]

UNVERIFIED: Final[Completeness] = "UNVERIFIED"
#: what each verdict says of the source series; written into the report
MEANINGS: Final[Mapping[Completeness, str]] = {
    "VERIFIED": "The source has as many instances as arrived",
    "INCOMPLETE": "The source has instances that did not arrive",
    "UNVERIFIED": "Nobody said how many instances there are",
}
#: the least favourable first
_ORDER: Final[tuple[Completeness, ...]] = ("INCOMPLETE", "UNVERIFIED", "VERIFIED")


@dataclass(frozen=True, kw_only=True)
class SourceAnswer:
    """What a source says of one series."""

    count: int  #: instances that it has; 0 where it does not know the series
    uids: frozenset[str] = frozenset()  #: SOP Instance UIDs of those that it lists

    def missing(self, held: frozenset[str]) -> int | None:
        """Count the listed instances that are not here; None where too few are listed to say 0."""
        count = len(self.uids - held)
        return count if count or len(self.uids) == self.count else None


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """What is known of one series in reception whose source is asked.

    Times are readings of the clock that runs only while the receiver listens.
    """

    series_instance_uid: str
    study_instance_uid: str
    revision: int
    source: str | None  #: name in the settings; None where none is set for the sender
    calling_ae_title: str  #: sender of the newest instance
    received: int  #: instances here, now
    began_s: float  #: when the source was to be asked for the first time
    asked_s: float | None = None  #: when the newest question was answered, or failed
    rounds: int = 0  #: questions so far
    equal: int = 0  #: answers in a row that agree, of the instances that are here now
    failed: int = 0  #: questions in a row without an answer
    failure: str | None = None  #: why the newest one has none
    count: int | None = None  #: of the newest answer
    missing: int | None = None  #: listed instances that are not here; None: not known


@dataclass(frozen=True, kw_only=True)
class CompletenessVerdict:
    """The verdict on one series, and what it rests on."""

    completeness: Completeness
    reason: str  #: one sentence for a radiographer; no patient data


def as_completeness(text: str | None) -> Completeness:
    """Read a recorded verdict; what no version has written counts as unverified."""
    return cast(Completeness, text) if text in MEANINGS else "UNVERIFIED"


def least(verdicts: Mapping[str, CompletenessVerdict]) -> Completeness:
    """Say of a study what its least favourable series says; without any, it is unverified."""
    known = {each.completeness for each in verdicts.values()}
    return next((each for each in _ORDER if each in known), "UNVERIFIED")
