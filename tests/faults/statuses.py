"""Every status with which a destination can answer a C-STORE, and what becomes of the object.

Run: ``python -m tests.faults.statuses``. One set holds an object for each status of PS3.4 table
B.2-1 and PS3.7 annex C; a scripted destination gives each its own. Later the destination takes
everything, holds what it has accepted, and is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydicom.uid import MRImageStorage

from rebrain_node.domain.delivery import DeliveryState, Outcome, outcome_of
from rebrain_node.worker.confirmation import WAIT_S
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import a_peer, instance
from tests.support.store_cases import accept, derived_set, received


@dataclass(frozen=True)
class Case:
    """One status, and what must come of the object."""

    status: int
    meaning: str  #: of the standard
    outcome: Outcome
    state: DeliveryState  #: after the answer
    final: DeliveryState  #: once the destination takes everything and is asked


def _taken(status: int, meaning: str) -> Case:
    return Case(status, meaning, "taken", "taken", "confirmed")


def _warning(status: int, meaning: str) -> Case:
    return Case(status, meaning, "warning", "unverified", "confirmed")


def _duplicate(status: int, meaning: str) -> Case:
    return Case(status, meaning, "duplicate", "unverified", "confirmed")


def _retry(status: int, meaning: str) -> Case:
    return Case(status, meaning, "retry", "pending", "confirmed")


def _refused(status: int, meaning: str) -> Case:
    return Case(status, meaning, "refused", "refused", "refused")


CASES: Final = (
    _taken(0x0000, "success"),
    _warning(0x0001, "requested optional attributes are not supported"),
    _refused(0x0105, "no such attribute"),
    _refused(0x0106, "invalid attribute value"),
    _warning(0x0107, "attribute list error"),
    _retry(0x0110, "processing failure"),
    _duplicate(0x0111, "duplicate SOP instance"),
    _refused(0x0112, "no such SOP instance"),
    _retry(0x0113, "no such event type; not for C-STORE"),
    _retry(0x0114, "no such argument; not for C-STORE"),
    _refused(0x0115, "invalid argument value"),
    _warning(0x0116, "attribute value out of range"),
    _refused(0x0117, "invalid SOP instance"),
    _refused(0x0118, "no such SOP class"),
    _retry(0x0119, "class-instance conflict; not for C-STORE"),
    _retry(0x0120, "missing attribute; not for C-STORE"),
    _retry(0x0121, "missing attribute value; not for C-STORE"),
    _refused(0x0122, "SOP class not supported"),
    _retry(0x0123, "no such action; not for C-STORE"),
    _refused(0x0124, "not authorised"),
    _retry(0x0210, "duplicate invocation"),
    _refused(0x0211, "unrecognised operation"),
    _refused(0x0212, "mistyped argument"),
    _retry(0x0213, "resource limitation"),
    _retry(0xA700, "out of resources"),
    _retry(0xA7FF, "out of resources"),
    _refused(0xA900, "data set does not match SOP class"),
    _refused(0xA9FF, "data set does not match SOP class"),
    _warning(0xB000, "coercion of data elements"),
    _warning(0xB006, "elements discarded"),
    _warning(0xB007, "data set does not match SOP class"),
    _warning(0xBFFF, "warning of the destination's own"),
    _refused(0xC000, "cannot understand"),
    _refused(0xCFFF, "cannot understand"),
    _retry(0xFE00, "cancel; not for C-STORE"),
    _retry(0x4567, "in no table of the standard"),
)


@dataclass(frozen=True)
class Answered:
    """States of the objects by status: after the answers, and in the end."""

    states: Mapping[int, str]
    final: Mapping[int, str]


def answered() -> Answered:
    """Deliver one set to a destination that gives every status, then to one that takes all."""
    statuses = [case.status for case in CASES]
    objects = [instance(n) for n in range(len(statuses))]
    uids = [one.sop_instance_uid for one in objects]
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        node.outbox.put(replace(derived_set(job), instances=tuple(objects)), ["pacs"], job)
        given = dict(zip(uids, statuses, strict=True))
        with a_peer(sop_classes=(MRImageStorage,), by_uid=given) as (_, settings):
            assert node.loop(settings).deliver_next()
        states = _states(node, statuses)
        stored = {one.sop_instance_uid: one.content for one in objects}
        with a_peer(sop_classes=(MRImageStorage,), images=uids, gives=stored) as (_, settings):
            loop = node.loop(settings, confirmation="query")
            while loop.deliver_next() or loop.confirm_next():
                node.now_s += WAIT_S
        return Answered(states, _states(node, statuses))


def _states(node: OutboxNode, statuses: list[int]) -> dict[int, str]:
    objects = node.deliveries.objects(1)
    return dict(zip(statuses, (one.state for one in objects), strict=True))


def main() -> None:
    """Print what came of each status."""
    found = answered()
    for case in CASES:
        after, final = found.states[case.status], found.final[case.status]
        right = (outcome_of(case.status), after, final) == (case.outcome, case.state, case.final)
        sys.stdout.write(
            f"{case.status:04X} {case.meaning}: {case.outcome}; {after}; in the end {final}; "
            f"{'as wanted' if right else 'WRONG'}\n"
        )


if __name__ == "__main__":
    main()
