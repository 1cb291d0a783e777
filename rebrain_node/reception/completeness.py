"""When a study is taken as complete (PS3.4 gives no signal; the end of an association is none).

Values in, values out: the ledger says what is in reception, the monotonic clock how long ago
the last news came. A start of the node begins every quiet period again, so that a node that was
down while a study arrived never takes the pause for silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rebrain_node.domain.ledger import StudyInReception
from rebrain_node.ports import JsonValue

Reason = Literal["QUIET", "MAXIMUM-WAIT"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a study is taken as complete."""

    reason: Reason
    quiet_s: float  #: since the last new instance
    waited_s: float  #: since the study was first seen in reception by this process
    #: nobody was asked how many instances there should be
    completeness: str = "UNVERIFIED"

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
    news_s: float


class QuietPeriodTracker:
    """Watches the studies in reception until each has been quiet, or waited for, long enough."""

    def __init__(
        self,
        *,
        quiet_period_s: float,
        maximum_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet_period_s = quiet_period_s
        self._maximum_wait_s = maximum_wait_s
        self._clock = clock
        self._watched: dict[str, _Watch] = {}

    def settled(
        self, studies: Sequence[StudyInReception]
    ) -> tuple[tuple[StudyInReception, Verdict], ...]:
        """Return which of the studies in reception are complete now, and why.

        To be called every second or so with all that the ledger has in reception; a study that
        is left out is forgotten and begins anew when it comes back.
        """
        now = self._clock()
        watched = {study.study_instance_uid: self._watch(study, now) for study in studies}
        self._watched = watched
        found = (
            (study, self._verdict(watched[study.study_instance_uid], now)) for study in studies
        )
        return tuple((study, verdict) for study, verdict in found if verdict is not None)

    def _watch(self, study: StudyInReception, now: float) -> _Watch:
        known = self._watched.get(study.study_instance_uid)
        if known is None:
            return _Watch(last_ledger_id=study.last_ledger_id, begun_s=now, news_s=now)
        if known.last_ledger_id != study.last_ledger_id:
            known.last_ledger_id, known.news_s = study.last_ledger_id, now
        return known

    def _verdict(self, watch: _Watch, now: float) -> Verdict | None:
        quiet_s, waited_s = now - watch.news_s, now - watch.begun_s
        if quiet_s >= self._quiet_period_s:
            return Verdict(reason="QUIET", quiet_s=quiet_s, waited_s=waited_s)
        if waited_s >= self._maximum_wait_s:
            return Verdict(reason="MAXIMUM-WAIT", quiet_s=quiet_s, waited_s=waited_s)
        return None
