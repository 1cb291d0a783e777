"""What waits longer than it should: the alarm for late results (hazard H19)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rebrain_node.domain.delivery import PendingDelivery
from rebrain_node.domain.ledger import SeriesRecord

_ENDED = frozenset({"refused", "published", "failed"})


@dataclass(frozen=True, kw_only=True)
class Late:
    """A series that has stood in one place for too long, or a set that a PACS does not take."""

    series_instance_uid: str
    waits_for: str  #: the state it cannot leave, or the name of the destination
    since: datetime  #: aware, UTC

    def waited_minutes(self, now: datetime) -> float:
        """How long, in minutes."""
        return (now - self.since).total_seconds() / 60.0


def late(
    series: Sequence[SeriesRecord],
    deliveries: Sequence[PendingDelivery],
    now: datetime,
    after_minutes: float,
) -> tuple[Late, ...]:
    """List what has waited longer than ``after_minutes``, the longest first."""
    waiting = [
        Late(series_instance_uid=s.series_instance_uid, waits_for=s.state, since=s.changed_at)
        for s in series
        if s.state not in _ENDED
    ] + [
        Late(series_instance_uid=d.source_series_uid, waits_for=d.destination, since=d.since)
        for d in deliveries
    ]
    border = now - timedelta(minutes=after_minutes)
    return tuple(sorted((w for w in waiting if w.since < border), key=lambda w: w.since))
