"""Which bundle of one name is newer, and which must not come back."""

from __future__ import annotations

from dataclasses import dataclass

#: what a version looks like: one to four numbers, e.g. 1.10.0
VERSION = r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One released model.

    Attributes
    ----------
    version : str
        Numbers with dots between, e.g. ``1.10.0``; compared number by number.
    digest : str
        SHA-256 of the manifest, hexadecimal.
    """

    name: str
    version: str
    digest: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, zeros at its end left out: 1.0 is 1.0.0."""
        numbers = [int(part) for part in self.version.split(".")]
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return tuple(numbers)
