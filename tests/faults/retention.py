"""Retention over many sets: what is deleted, what is kept, and that nothing goes unconfirmed.

Run: ``python -m tests.faults.retention [SETS] [SEED]`` (1000 sets, seed 1 by default). The objects
of each set get a random state at each of two destinations, by the answers and confirmations that
lead there. A year later everything is purged that the rules release.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.store.retention import RetentionRules
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.store_cases import accept, answers, derived_set, received

#: what a destination has come to, with the weight of its choice
COURSES = {
    "confirmed": 12, "taken": 2, "unverified": 1, "altered": 1, "refused": 1, "held": 1,
    "pending": 1, "cancelled": 2,
}  # fmt: skip
RULES = RetentionRules(delivered_days=30, refused_days=30)


@dataclass(frozen=True)
class Purge:
    """What a purge did."""

    sets: int
    confirmed: int  #: sets that every destination had confirmed, or cancelled beside one that had
    kept: Counter[str]  #: sets by the state that keeps them
    deleted: int  #: sets whose images were deleted
    deleted_unconfirmed: int  #: objects deleted before confirmation, as the node counts them
    unreadable: int  #: objects of kept sets that can no longer be read
    seconds: float


def purge(sets: int, seed: int) -> Purge:
    """Make sets, purge, and look what is left."""
    choice = random.Random(seed)
    with outbox_node() as node:
        released, kept = set(), {}
        for number in range(1, sets + 1):
            set_id, courses = _make(node, number, choice)
            holding = [each for each in courses if each not in {"confirmed", "cancelled"}]
            if holding:
                kept[set_id] = holding[0]
            else:
                released.add(set_id)
        begun = datetime.now(UTC)
        node.retention.purge(RULES, begun + timedelta(days=365))
        seconds = (datetime.now(UTC) - begun).total_seconds()
        deleted = {set_id for set_id in (*released, *kept) if not _is_readable(node, set_id)}
        return Purge(
            sets=sets,
            confirmed=len(released),
            kept=Counter(kept.values()),
            deleted=len(deleted),
            deleted_unconfirmed=node.retention.deleted_unconfirmed(),
            unreadable=len(deleted & kept.keys()),
            seconds=seconds,
        )


def _make(node: OutboxNode, number: int, choice: random.Random) -> tuple[int, list[str]]:
    series, study = f"1.2.{number}.1", f"1.2.{number}"
    node.ledger.record_received(received(1, series, study))
    job = accept(node.ledger, series, study)
    derived = derived_set(job)
    set_id = node.outbox.put(derived, ["archive", "pacs"], job)
    courses = choice.choices(list(COURSES), list(COURSES.values()), k=2)
    for name, course in zip(("archive", "pacs"), courses, strict=True):
        _bring(node, set_id, name, course, derived.instances)
    return set_id, courses


def _bring(
    node: OutboxNode, set_id: int, name: str, course: str, instances: tuple[DerivedInstance, ...]
) -> None:
    """Bring one object of a set to a state at a destination, and confirm the others."""
    if course in {"held", "cancelled"}:
        if course == "held":
            node.deliveries.hold(set_id, name, "another patient")
        else:
            node.deliveries.cancel(set_id, name, "no longer used", "someone")
        return
    first, *others = instances
    outcome = {"unverified": "warning", "refused": "refused", "pending": "retry"}
    node.deliveries.record(set_id, name, answers(others))
    node.deliveries.record(set_id, name, answers([first], outcome.get(course, "taken"), 0xB000))  # type: ignore[arg-type]
    changed = {"confirmed": (), "altered": ("PatientName",)}
    found = [(one, ()) for one in others]
    if course in changed:
        found.append((first, changed[course]))
    node.confirmations.verify(
        set_id,
        name,
        [
            HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=values)
            for one, values in found
        ],
    )


def _is_readable(node: OutboxNode, set_id: int) -> bool:
    try:
        return len(node.outbox.instances_of(set_id)) == 3
    except Exception:  # noqa: BLE001 - whatever keeps it from being read
        return False


def main(sets: int = 1000, seed: int = 1) -> None:
    """Print what a purge did."""
    result = purge(sets, seed)
    sys.stdout.write(
        f"{sets} sets at two destinations, seed {seed}: {result.confirmed} confirmed, "
        f"{result.deleted} deleted; kept {dict(result.kept)}, of these unreadable "
        f"{result.unreadable}; objects deleted before confirmation {result.deleted_unconfirmed}; "
        f"purged in {result.seconds:.1f} s\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
