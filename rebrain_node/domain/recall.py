"""What was made from a model or from an exemplar, and where it went: found again by `recall`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RecalledObject:
    """One derived instance that must be found again."""

    kind: str  #: MR, PM, SEG, SC, SR or KOS
    sop_instance_uid: str
    series_instance_uid: str
    destinations: Mapping[str, str]  #: pending, taken or refused, by destination


@dataclass(frozen=True, kw_only=True)
class RecalledSet:
    """The objects of one derived set that are meant."""

    set_id: int
    study_instance_uid: str
    source_series_uid: str
    revision: int
    bundle_digest: str
    slices: tuple[int, ...]  #: numbers of the guided slices, from 1; empty for a whole set
    objects: tuple[RecalledObject, ...]
