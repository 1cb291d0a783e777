"""How ids, times and lists of numbers are written for people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise


def reference(uid: str) -> str:
    """Return the short id of a UID: in logs it stands for it, and every command takes it."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


def utc(moment: datetime) -> str:
    """Write an aware UTC time as ``2026-01-31T12:00:00Z``."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def ranges(numbers: Sequence[int]) -> str:
    """Write rising numbers with runs joined: ``1-3, 7``."""
    starts = [n for n, before in zip(numbers, (None, *numbers), strict=False) if before != n - 1]
    ends = [n for n, after in pairwise((*numbers, None)) if n is not None and after != n + 1]
    return ", ".join(
        str(low) if low == high else f"{low}-{high}" for low, high in zip(starts, ends, strict=True)
    )
