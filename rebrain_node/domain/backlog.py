"""Series and deliveries that wait too long: the alarm for late results (hazard H19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from rebrain_node.domain.delivery import Delivery
from rebrain_node.domain.ledger import SeriesRecord

_ENDED = frozenset({"refused", "published", "failed"})


@dataclass(frozen=True, kw_only=True)
class OverdueItem:
    """A series that has been in one state, or a set that has waited for delivery, for too long."""

    series_instance_uid: str
    waits_for: str  #: the state of the series, or the name of the destination
    since: datetime  #: aware, UTC


class DestinationCounts(NamedTuple):
    """Sets that are open at one destination."""

    waiting: int  #: that it has not taken yet
    refused: int  #: that need the operator: refused, held back or altered


@dataclass(frozen=True, kw_only=True)
class BacklogCounts:
    """How much is open."""

    destinations: Mapping[str, DestinationCounts]  #: those with an open set
    late: int  #: series and sets that wait too long
    failed: int  #: series that failed lately
    notifications_refused: int
    workitems_refused: int
    kept: int = 0  #: sets that shadow mode keeps for a destination

    @property
    def refused(self) -> int:
        """Number of sets that need the operator, each destination counted."""
        return sum(each.refused for each in self.destinations.values())


def late(
    series: Sequence[SeriesRecord],
    deliveries: Sequence[Delivery],
    now: datetime,
    after_minutes: float,
) -> tuple[OverdueItem, ...]:
    """List what has waited longer than ``after_minutes``, the longest first."""
    waiting = [
        OverdueItem(
            series_instance_uid=s.series_instance_uid, waits_for=s.state, since=s.changed_at
        )
        for s in series
        if s.state not in _ENDED
    ] + [
        OverdueItem(series_instance_uid=d.source_series_uid, waits_for=d.destination, since=d.since)
        for d in deliveries
    ]
    border = now - timedelta(minutes=after_minutes)
    return tuple(sorted((w for w in waiting if w.since < border), key=lambda w: w.since))
