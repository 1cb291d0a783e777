"""Assigns one role to every subject, never to single slices; at random once, then kept."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trainer.data.dataset import ROLES, DatasetError, Role

_COUNTS = re.compile(r"^\d+/\d+/\d+$")
Split = dict[Role, tuple[str, ...]]


def sizes(rule: str, total: int) -> dict[Role, int]:
    """Return how many of `total` subjects have each role.

    Parameters
    ----------
    rule : str
        Counts "14/3/3", or shares that add up to 1, "0.7/0.15/0.15".

    Raises
    ------
    DatasetError
        Neither, or the counts do not add up to `total`.
    """
    if _COUNTS.match(rule) and "." not in rule and sum(map(int, rule.split("/"))) != 1:
        counts = [int(part) for part in rule.split("/")]
        if sum(counts) != total:
            raise DatasetError(
                f"the split {rule} needs {sum(counts)} subjects, {total} are usable; "
                "give counts that add up, or shares such as 0.7/0.15/0.15"
            )
        return dict(zip(ROLES, counts, strict=True))
    try:
        shares = [float(part) for part in rule.split("/")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise DatasetError(
            f"the split {rule!r} is neither counts (14/3/3), nor shares that add up to 1 "
            "(0.7/0.15/0.15), nor a JSON file"
        )
    return dict(zip(ROLES, _rounded(shares, total), strict=True))


def _rounded(shares: Sequence[float], total: int) -> list[int]:
    """Round by largest remainder; a role with a share has at least one subject if possible."""
    exact = np.array(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    for role in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[role] += 1
    for role in range(3):
        if shares[role] > 0 and counts[role] == 0 and counts.max() > 1:
            counts[int(np.argmax(counts))] -= 1
            counts[role] += 1
    return [int(count) for count in counts]


def assign(names: Sequence[str], rule: str, seed: int, kept: Mapping[str, Role]) -> Split:
    """Assign a role to every name, at random where none is kept.

    Parameters
    ----------
    rule : str
        Counts or shares (`sizes`).
    kept : Mapping
        Roles of before, which stay; the other subjects fill the roles that are short.

    Raises
    ------
    DatasetError
        The rule is none, or does not add up.
    """
    roles = {name: kept[name] for name in names if name in kept}
    new = sorted(name for name in names if name not in kept)
    if not new:
        return _by_role(roles)
    wanted = sizes(rule, len(names))
    order = [new[k] for k in np.random.default_rng(seed).permutation(len(new))]
    for name in order:
        filled = list(roles.values())
        roles[name] = max(ROLES, key=lambda role: wanted[role] - filled.count(role))
    return _by_role(roles)


def _by_role(roles: Mapping[str, Role]) -> Split:
    return {role: tuple(sorted(n for n, r in roles.items() if r == role)) for role in ROLES}


def check_kept(split: Split, kept: Mapping[str, Role]) -> None:
    """Check a split against the roles of before.

    Raises
    ------
    DatasetError
        The role of a subject would change.
    """
    for role, names in split.items():
        for name in names:
            if kept.get(name, role) != role:
                raise DatasetError(f"subject {name} was {kept[name]} before and cannot be {role}")


def from_file(path: Path, usable: Sequence[str], found: Sequence[str]) -> Split:
    """Read a split from a JSON file: {"train": [...], "validation": [...], ...}.

    Raises
    ------
    DatasetError
        Not such a file, a subject in two roles or in none, or one that the source has not.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        split = {role: tuple(map(str, document.get(role, ()))) for role in ROLES}
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise DatasetError(f"{path} is no split: {error}") from error
    unknown_roles = sorted(set(document) - set(ROLES))
    if unknown_roles:
        raise DatasetError(f"{path}: {', '.join(unknown_roles)} is no role; roles are {ROLES}")
    listed = [name for role in ROLES for name in split[role]]
    for name in sorted(set(listed)):
        if listed.count(name) > 1:
            roles = " and ".join(role for role in ROLES for n in split[role] if n == name)
            raise DatasetError(f"{path}: subject {name} has the roles {roles}; one role each")
    missing, unknown = sorted(set(usable) - set(listed)), sorted(set(listed) - set(found))
    if missing or unknown:
        raise DatasetError(
            f"{path}: without a role: {', '.join(missing) or 'none'}; "
            f"not in the source: {', '.join(unknown) or 'none'}"
        )
    return {role: tuple(n for n in split[role] if n in usable) for role in ROLES}
