"""A destination that is down for 14 days, compressed: what its return brings, and how fast.

Run: ``python -m tests.faults.outage [STUDIES] [SEED] [CONFIRMATION]`` (500 studies, seed 1 and
``none`` by default). Studies of one to three sets enter the outbox while nothing listens. The node
is restarted three times, its wall clock is set back by a day and forward by a month, and after its
return the destination ends every 40th association in the middle of a set. With the confirmation
``commitment`` it commits itself to each set over the association of the request.

The monotonic clock of pauses, circuit breakers and requests for commitment is simulated: no pause
takes time. Another node delivers the same sets to a destination that was never down. The two take
turns, so that both meet the same load of the machine; the figure of the drain is the ratio of the
times that their deliveries and confirmations took.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from itertools import islice
from pathlib import Path
from typing import Self, cast, get_args
from unittest.mock import patch

import structlog
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
TURN = 20  #: steps that one node makes before the other goes on
#: where the node reads the wall clock for a delivery
CLOCKS = tuple(
    f"rebrain_node.{each}.datetime"
    for each in (
        "store.outbox",
        "store.deliveries",
        "store.confirmations",
        "store.audit",
        "store.instances",
        "store.notifications",
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
    undisturbed_s: float  #: of the same sets, delivered one by one as they are made

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
    with fast_folder() as folder, fast_folder() as other, _wall_clock():
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
        with _returned(port) as peer, _destination() as (_, settings):
            undisturbed = Node(other, settings.port, confirmation)
            with node.running() as late, undisturbed.running() as prompt:
                node.now_s += LONGEST_TRIAL_PAUSE_S
                drain_s, undisturbed_s = _in_turns(
                    _worked_off(node, late), _delivered_at_once(undisturbed, prompt, work)
                )
            states = Counter(node.stores.states())
            arrivals = [uid for uid, _, _ in peer.received]
    return Result(
        sent=sum(map(len, node.put.values())),
        arrivals=arrivals,
        put=node.put,
        attempts_while_down=failed,
        starts=node.starts - 1,
        states=dict(states),
        drain_s=drain_s,
        undisturbed_s=undisturbed_s,
    )


def _in_turns(*tasks: Iterator[float]) -> tuple[float, ...]:
    """Advance each task by `TURN` steps, one after the other, to the end; the seconds of each."""
    seconds = [0.0] * len(tasks)
    running = set(range(len(tasks)))
    while running:
        for k in sorted(running):
            steps = list(islice(tasks[k], TURN))
            seconds[k] += sum(steps)
            if not steps:
                running.remove(k)
    return tuple(seconds)


def _worked_off(node: Node, loop: DeliveryLoop) -> Iterator[float]:
    """Deliver and confirm all that waits; the seconds of each step."""
    while True:
        begun = time.perf_counter()
        has_worked = loop.deliver_next() or loop.confirm_next()
        yield time.perf_counter() - begun
        if not has_worked:
            if node.is_done:
                return
            node.now_s += LONGEST_PAUSE_S


def _delivered_at_once(
    node: Node, loop: DeliveryLoop, work: Sequence[tuple[int, int]]
) -> Iterator[float]:
    """Deliver and confirm sets as they are made; the seconds of each step."""
    for study, series in work:
        node.synthesise(study, series)
        yield from _worked_off(node, loop)


def _destination(port: int = 0) -> AbstractContextManager[tuple[Peer, DestinationSettings]]:
    return a_peer(
        port=port,
        sop_classes=(MRImageStorage, PUSH_MODEL),
        handlers=[(evt.EVT_N_ACTION, commit_all)],
    )


@contextmanager
def _returned(port: int) -> Iterator[Peer]:
    """Let the destination return; it ends every 40th association in the middle of a set."""
    with _destination(port) as (peer, _):
        aborted: set[int] = set()

        def answer(n: int) -> int | None:
            if n % 40 == 0 and n not in aborted:
                aborted.add(n)
                return None
            return 0x0000

        peer.answer = answer
        yield peer


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
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    begun = time.perf_counter()
    result = outage(studies, seed, confirmation)
    sets = sum(result.states.values())
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    sys.stdout.write(
        f"{studies} studies, {sets} sets, {result.sent} objects, seed {seed}, confirmation "
        f"{confirmation}: {DAYS} days down with {result.attempts_while_down} attempts, "
        f"{result.starts} restarts, 2 steps of the wall clock\n"
        f"arrived {len(result.arrivals)}, each exactly once: {result.exactly_once}, in the order "
        f"of each study: {result.in_study_order}, series {result.states}\n"
        f"drained in {result.drain_s:.1f} s ({sets / result.drain_s:.1f} sets/s), the same sets "
        f"undisturbed in {result.undisturbed_s:.1f} s ({sets / result.undisturbed_s:.1f} sets/s): "
        f"{100 * result.undisturbed_s / result.drain_s:.0f} % of the undisturbed rate (goal 80 %)\n"
        f"{time.perf_counter() - begun:.0f} s in all, load {load} on {os.cpu_count()} cores\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(_confirmation, sys.argv[3:4]))
