"""Delivery as values: what a destination took, what waits for it, what a recall concerns."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, kw_only=True)
class RecalledObject:
    """One affected derived instance."""

    kind: str  #: MR, PM, SEG, SC, SR or KOS
    sop_instance_uid: str
    series_instance_uid: str
    destinations: Mapping[str, str]  #: pending, taken or refused, by destination


@dataclass(frozen=True, kw_only=True)
class RecalledSet:
    """The affected objects of one derived set."""

    set_id: int
    study_instance_uid: str
    source_series_uid: str
    revision: int
    bundle_digest: str
    slices: tuple[int, ...]  #: numbers of the guided slices, from 1; empty for a whole set
    objects: tuple[RecalledObject, ...]
