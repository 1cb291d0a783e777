"""Delivery as values: what a destination took, what still waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class TakenInstance:
    """One instance a destination answered for with success or a warning."""

    sop_instance_uid: str
    status: int  #: DIMSE status of the C-STORE response: 0x0000, 0xB000, 0xB006, 0xB007

    @property
    def verified(self) -> bool:
        """False after a warning: the destination may hold something else than was sent."""
        return self.status == 0x0000


@dataclass(frozen=True, kw_only=True)
class PendingDelivery:
    """A derived set that a destination has not wholly taken."""

    set_id: int
    destination: str  #: name in the settings
    study_instance_uid: str
    source_series_uid: str
    revision: int
    outstanding: int  #: instances still to be sent
    attempts: int  #: failed attempts so far
    reason: str | None  #: of the last failed attempt
    since: datetime  #: aware, UTC: when the set entered the outbox
