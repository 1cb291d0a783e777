"""A destination that is down for 14 days, compressed: what its return brings, and how fast.

Run: ``python -m tests.faults.outage [STUDIES] [SEED] [CONFIRMATION]`` (500 studies, seed 1 and
``none`` by default). Studies of one to three sets enter the outbox while nothing listens. The node
is restarted three times, its wall clock is set back by a day and forward by a month, and after its
return the destination ends every 40th association in the middle of a set. With the confirmation
``commitment`` it commits itself to each set over the association of the request. The monotonic
clock is the only one that is simulated.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self, cast, get_args
from unittest.mock import patch

from pydicom.uid import MRImageStorage
from pynetdicom import evt

from rebrain_node.domain.delivery import Confirmation
from rebrain_node.settings import DestinationSettings
from rebrain_node.worker.breaker import LONGEST_TRIAL_PAUSE_S
from rebrain_node.worker.delivery import DeliveryLoop
from rebrain_node.worker.workflow import LONGEST_PAUSE_S
from tests.support.outbox_node import outbox_node
from tests.support.scripted_pacs import (
    PUSH_MODEL,
    Peer,
    a_peer,
    commit_all,
    instance,
    settings_for,
)
from tests.support.store_cases import accept, derived_set, fast_folder, received

DAYS, RESTARTS, OBJECTS = 14, 3, 2
#: where the node reads the wall clock for a delivery
CLOCKS = tuple(
    f"rebrain_node.{each}.datetime"
    for each in (
        "store.outbox",
        "store.deliveries",
        "store.confirmations",
        "store.audit",
        "store.series",
        "worker.delivery",
    )
)


class WallClock(datetime):
    """The wall clock of the machine, set to another time."""

    step = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Read the clock."""
        return super().now(tz) + cls.step


@dataclass
class Node:
    """A node whose process can be ended and started again on the same folder."""

    folder: Path
    port: int
    confirmation: Confirmation = "none"
    now_s: float = 0.0  #: monotonic clock
    starts: int = 0
    put: dict[str, list[str]] = field(default_factory=dict)  #: SOP Instance UIDs by study

    @contextmanager
    def running(self) -> Iterator[DeliveryLoop]:
        self.starts += 1
        with outbox_node(self.folder) as self.stores:
            loop = self.stores.loop(settings_for(self.port), confirmation=self.confirmation)
            loop.clock = loop.schedule.clock = lambda: self.now_s
            yield loop

    @property
    def is_done(self) -> bool:
        """Whether everything is delivered, and confirmed where that is asked for."""
        asked = self.confirmation == "commitment"
        return not self.stores.deliveries.pending() and not (
            asked and self.stores.confirmations.unconfirmed("pacs")
        )

    def synthesise(self, study: int, series: int) -> None:
        """Put a set into the outbox."""
        uid, study_uid = f"1.2.{study}.{series}", f"1.2.{study}"
        self.stores.ledger.record_received(received(1, uid, study_uid))
        job = accept(self.stores.ledger, uid, study_uid)
        first = (study * 10 + series) * 10
        instances = tuple(instance(n) for n in range(first, first + OBJECTS))
        self.stores.outbox.put(replace(derived_set(job), instances=instances), ["pacs"], job)
        self.put.setdefault(study_uid, []).extend(one.sop_instance_uid for one in instances)


@dataclass(frozen=True)
class Result:
    """What came of an outage."""

    sent: int  #: objects that entered the outbox
    arrivals: list[str]  #: SOP Instance UIDs as the destination accepted them
    put: dict[str, list[str]]
    attempts_while_down: int
    starts: int
    states: dict[str, int]
    drain_s: float

    @property
    def exactly_once(self) -> bool:
        """Whether every object arrived, and none twice."""
        return Counter(self.arrivals) == Counter(uid for uids in self.put.values() for uid in uids)

    @property
    def in_study_order(self) -> bool:
        """Whether the objects of each study arrived in the order of their synthesis."""
        place = {uid: k for k, uid in enumerate(self.arrivals)}
        return all(
            [place[uid] for uid in uids] == sorted(place[uid] for uid in uids)
            for uids in self.put.values()
        )


def outage(studies: int, seed: int, confirmation: Confirmation = "none") -> Result:
    """Simulate the outage and the return of the destination."""
    choice = random.Random(seed)
    work = [(study, n) for study in range(1, studies + 1) for n in range(choice.randint(1, 3))]
    restarts = set(choice.sample(range(1, len(work)), RESTARTS - 1))  # the last one comes after
    steps = {len(work) // 3: timedelta(days=-1), 2 * len(work) // 3: timedelta(days=30)}
    with a_peer() as (_, settings):
        port = settings.port  # free once this peer has ended
    with fast_folder() as folder, _wall_clock():
        node, position, failed = Node(folder, port, confirmation), 0, 0
        while position < len(work):
            with node.running() as loop:
                while position < len(work):
                    WallClock.step = steps.get(position, WallClock.step)
                    node.synthesise(*work[position])
                    node.now_s += DAYS * 86400 / len(work)
                    failed += loop.deliver_next()
                    position += 1
                    if position in restarts:
                        break
        with node.running() as loop:
            arrivals, seconds = _drain(node, loop)
            states = Counter(node.stores.states())
    sent = sum(map(len, node.put.values()))
    return Result(sent, arrivals, node.put, failed, node.starts - 1, dict(states), seconds)


def undisturbed(sets: int, confirmation: Confirmation) -> float:
    """Deliver sets as they come; the seconds the deliveries took."""
    seconds = 0.0
    with fast_folder() as folder, _destination() as (_, settings):
        node = Node(folder, settings.port, confirmation)
        with node.running() as loop:
            for study in range(1, sets + 1):
                node.synthesise(study, 0)
                begun = time.perf_counter()
                _work_off(node, loop)
                seconds += time.perf_counter() - begun
    return seconds


def drained(sets: int, confirmation: Confirmation) -> float:
    """Deliver the same sets after an outage without faults; the seconds that took."""
    with fast_folder() as folder, _destination() as (_, settings):
        node = Node(folder, settings.port, confirmation)
        with node.running() as loop:
            for study in range(1, sets + 1):
                node.synthesise(study, 0)
            begun = time.perf_counter()
            _work_off(node, loop)
            return time.perf_counter() - begun


def _destination(port: int = 0) -> AbstractContextManager[tuple[Peer, DestinationSettings]]:
    return a_peer(
        port=port,
        sop_classes=(MRImageStorage, PUSH_MODEL),
        handlers=[(evt.EVT_N_ACTION, commit_all)],
    )


def _work_off(node: Node, loop: DeliveryLoop) -> None:
    while True:
        while loop.deliver_next() or loop.confirm_next():
            pass
        if node.is_done:
            return
        node.now_s += LONGEST_PAUSE_S


def _drain(node: Node, loop: DeliveryLoop) -> tuple[list[str], float]:
    """Let the destination return; what it accepted, and the seconds until the outbox is empty."""
    with _destination(node.port) as (peer, _):
        aborted: set[int] = set()

        def answer(n: int) -> int | None:
            if n % 40 == 0 and n not in aborted:
                aborted.add(n)
                return None
            return 0x0000

        peer.answer = answer
        node.now_s += LONGEST_TRIAL_PAUSE_S
        begun = time.perf_counter()
        _work_off(node, loop)
        return [uid for uid, _, _ in peer.received], time.perf_counter() - begun


@contextmanager
def _wall_clock() -> Iterator[None]:
    patches = [patch(name, WallClock) for name in CLOCKS]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        WallClock.step = timedelta()
        for each in patches:
            each.stop()


def _confirmation(word: str) -> Confirmation:
    if word not in get_args(Confirmation):
        raise SystemExit(f"{word!r} is none of {', '.join(get_args(Confirmation))}")
    return cast(Confirmation, word)


def main(studies: int = 500, seed: int = 1, confirmation: Confirmation = "none") -> None:
    """Print what came of the outage and how fast the outbox was emptied."""
    result = outage(studies, seed, confirmation)
    sets = sum(result.states.values())
    sys.stdout.write(
        f"{studies} studies, {sets} sets, {result.sent} objects, seed {seed}, confirmation "
        f"{confirmation}: {DAYS} days down with {result.attempts_while_down} attempts, "
        f"{result.starts} restarts, 2 steps of the wall clock; arrived {len(result.arrivals)}, "
        f"each exactly once: {result.exactly_once}, in the order of each study: "
        f"{result.in_study_order}, series {result.states}; emptied in {result.drain_s:.1f} s\n"
    )
    few = min(sets, 100)
    pairs = [(undisturbed(few, confirmation), drained(few, confirmation)) for _ in range(3)]
    before, after = (min(column) for column in zip(*pairs, strict=True))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    sys.stdout.write(
        f"{few} sets of {OBJECTS}: undisturbed {few / before:.1f} sets/s, after an outage "
        f"{few / after:.1f} sets/s = {100 * before / after:.0f} % (best of {len(pairs)} each; load "
        f"of the machine {load} on {os.cpu_count()} cores)\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(_confirmation, sys.argv[3:4]))
