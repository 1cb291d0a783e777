"""Derived objects affected by a bundle or an exemplar, and their destinations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
