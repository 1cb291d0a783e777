"""Faults that pydantic found in a configuration or a file, in one line: key, requirement, value."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

#: longer values are cut
_LONGEST_VALUE = 80
#: what is said of a whole file or table rather than of one value shows no value
_WITHOUT_VALUE = frozenset({"missing", "extra_forbidden", "json_invalid"})


def faults_of(error: ValidationError) -> str:
    """List every fault: the key, what is required of it, and the value that was found.

    Returns
    -------
    str
        E.g. ``geometry.tilt_deg: must be a number from 0 to 45 degrees, found 90``; several
        faults are separated by semicolons.
    """
    return "; ".join(_fault(details) for details in error.errors())


def _fault(details: ErrorDetails) -> str:
    where = _key(details["loc"])
    if details["type"] == "extra_forbidden":
        return f"{where} is unknown"
    if details["type"] == "missing":
        return f"{where} is missing"
    what = details["msg"].removeprefix("Value error, ")
    if details["type"] in _WITHOUT_VALUE or isinstance(details["input"], dict):
        return f"{where}: {what}"
    return f"{where}: {what}, found {details['input']!r:.{_LONGEST_VALUE}}"


def _key(location: Iterable[int | str]) -> str:
    """Spell a location as ``kernels[3].soft``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "the file"
