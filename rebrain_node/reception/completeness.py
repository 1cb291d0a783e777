"""When a study is taken as complete (PS3.4 gives no signal; the end of an association is none).

Values in, values out: the ledger says what is in reception, the clock of the receiver how long it
has listened since. While the receiver does not listen that clock stands still, so that no pause
of the node is taken for silence of a sender; a study that was in reception when the receiver
stopped waits until its sender has had time to resume. A start of the worker begins every quiet
period again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rebrain_node.domain.ledger import ListeningTime, StudyInReception
from rebrain_node.ports import JsonValue

Reason = Literal["QUIET", "MAXIMUM-WAIT", "NOT-RESUMED"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a study is taken as complete; seconds in which the receiver did not listen do not count.

    Nobody was asked how many instances there should be: completeness is never verified.
    """

    reason: Reason
    quiet_s: float  #: since the last new instance
    waited_s: float  #: since the study was first seen in reception by this process

    @property
    def details(self) -> Mapping[str, JsonValue]:
        """What the audit log keeps."""
        return {
            "reason": self.reason,
            "quiet_s": round(self.quiet_s, 3),
            "waited_s": round(self.waited_s, 3),
        }


@dataclass(kw_only=True)
class _Watch:
    last_ledger_id: int
    begun_s: float
    seen_s: float  #: reading of the clock when the news were seen
    news_s: float | None = None  #: the reading after that one: the news are not younger


class QuietPeriodTracker:
    """Watches the studies in reception until each has been quiet, or waited for, long enough."""

    def __init__(
        self, *, quiet_period_s: float, maximum_wait_s: float, resume_wait_s: float
    ) -> None:
        self._quiet_period_s = quiet_period_s
        self._maximum_wait_s = maximum_wait_s
        self._resume_wait_s = max(resume_wait_s, quiet_period_s)
        self._watched: dict[str, _Watch] = {}

    def settled(
        self, studies: Sequence[StudyInReception], time: ListeningTime
    ) -> tuple[tuple[StudyInReception, Verdict], ...]:
        """Return which of the studies in reception are complete now, and why.

        To be called every second or so with all that the ledger has in reception; a study that
        is left out is forgotten and begins anew when it comes back.
        """
        watched = {study.study_instance_uid: self._watch(study, time) for study in studies}
        self._watched = watched
        found = (
            (study, self._verdict(study, watched[study.study_instance_uid], time))
            for study in studies
        )
        return tuple((study, verdict) for study, verdict in found if verdict is not None)

    def _watch(self, study: StudyInReception, time: ListeningTime) -> _Watch:
        now, known = time.listened_s, self._watched.get(study.study_instance_uid)
        if known is None:
            return _Watch(last_ledger_id=study.last_ledger_id, begun_s=now, seen_s=now)
        if known.last_ledger_id != study.last_ledger_id:
            known.last_ledger_id, known.seen_s, known.news_s = study.last_ledger_id, now, None
        elif known.news_s is None and now > known.seen_s:
            known.news_s = now
        return known

    def _verdict(
        self, study: StudyInReception, watch: _Watch, time: ListeningTime
    ) -> Verdict | None:
        now, news_s = time.listened_s, watch.news_s
        if news_s is None:
            news_s = now
        interrupted = study.last_run < time.run
        quiet_s = now - max(news_s, time.run_began_s if interrupted else 0.0)
        waited_s = now - watch.begun_s
        reason: Reason | None = None
        if interrupted:
            reason = "NOT-RESUMED" if quiet_s >= self._resume_wait_s else None
        elif quiet_s >= self._quiet_period_s:
            reason = "QUIET"
        elif waited_s >= self._maximum_wait_s:
            reason = "MAXIMUM-WAIT"
        return reason and Verdict(reason=reason, quiet_s=quiet_s, waited_s=waited_s)
