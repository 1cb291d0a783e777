"""Which bundle of one name is newer, and which must not come back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rebrain_node.errors import BundleRefused

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


def refuse_older(found: Release, known: Iterable[Release], accepted: str | None) -> None:
    """Refuse a bundle that this node has left behind.

    A signature says who released a bundle, not that it is still the one to use: a withdrawn
    release keeps its good signature for ever.

    Parameters
    ----------
    known : iterable of Release
        Bundles of the same name that were in force on this node.
    accepted : str or None
        Digest of the one bundle that is accepted all the same (setting ``model.accept_older``).

    Raises
    ------
    BundleRefused
        One of them is of a later version, or another one of the same version.
    """
    before = tuple(known)
    if found.digest == accepted or not before:
        return
    newest = max(release.numbers for release in before)
    of_newest = {release.digest: release for release in before if release.numbers == newest}
    if found.numbers > newest or found.digest in of_newest:
        return
    digest, last = max(of_newest.items())
    kind = "older than" if found.numbers < newest else "another release of the same version as"
    raise BundleRefused(
        f"{found.name} {found.version} (digest {found.digest}) is {kind} {last.name} "
        f"{last.version} (digest {digest}), which was in force on this node; put a newer one "
        f'into force, or set model.accept_older = "{found.digest}" to go back on purpose'
    )
