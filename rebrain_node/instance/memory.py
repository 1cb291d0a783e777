"""Gives memory back to the system: glibc keeps what was freed between two arrays."""

from __future__ import annotations

import ctypes
from functools import cache


def return_memory() -> None:
    """Return what was freed, where the C library can; takes milliseconds."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library than glibc
        return None
