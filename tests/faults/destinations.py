"""Seventeen destinations that misbehave: what becomes of a set, of the next study, and the repair.

Run: ``python -m tests.faults.destinations``. Two studies wait for each destination; the fault
concerns the first. Then the destination is repaired, and an operator retries where that is needed.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, ParametricMapStorage
from pynetdicom import evt

from rebrain_node.domain.delivery import Confirmation
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.settings import DestinationSettings
from rebrain_node.worker.confirmation import TRIES, WAIT_S
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import (
    PUSH_MODEL,
    a_peer,
    commit_all,
    encoded,
    instance,
    settings_for,
)
from tests.support.store_cases import accept, derived_set, received

Objects = Sequence[DerivedInstance]
MR, PM = (MRImageStorage,), (MRImageStorage, ParametricMapStorage)
SHORT_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One destination, and what must come of the first study."""

    fault: str
    peer: Callable[[Objects], Mapping[str, Any]]  #: options of `a_peer` for the first set
    states: Mapping[str, int]  #: of the first set while the destination misbehaves
    series: str  #: of the first study, with whether it is confirmed
    other: str = "published, not confirmed"  #: the same of the next study
    repaired: str = "published, confirmed"  #: of the first study after the repair
    operator: str = "nothing"  #: what the repair needs: nothing, or a command
    slices: int = 3
    companion: bool = False
    confirmation: Confirmation = "none"
    rounds: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)  #: of the settings


def _second(objects: Objects) -> str:
    return objects[1].sop_instance_uid


def _names(objects: Objects) -> list[str]:
    return [one.sop_instance_uid for one in objects]


def _other_bytes(objects: Objects) -> dict[str, bytes]:
    """The same objects with the name of another patient in the second."""
    changed = dcmread(BytesIO(objects[1].content))
    changed.PatientName = "Another^Patient"
    stored = {one.sop_instance_uid: one.content for one in objects}
    return stored | {_second(objects): encoded(changed, ExplicitVRLittleEndian)}


def _silent_once() -> Callable[[int], int]:
    kept_waiting: list[int] = []

    def answer(n: int) -> int:
        if n == 2 and not kept_waiting:
            kept_waiting.append(n)
            time.sleep(3 * SHORT_TIMEOUT_S)
        return 0x0000

    return answer


def _abort_second() -> Callable[[int], int | None]:
    aborted: list[int] = []

    def answer(n: int) -> int | None:
        if n == 2 and not aborted:
            aborted.append(n)
            return None
        return 0x0000

    return answer


def _lost_answer(_: Objects) -> Mapping[str, Any]:
    """Keep the second object, end the association before the answer, and know it afterwards."""
    answers = iter((0x0000, None, 0x0000, 0x0000, 0x0000, 0x0111))  # the third to fifth are of the
    return {"answer": lambda _: next(answers, 0x0000)}  # next study


_ACTION = {"sop_classes": (*MR, PUSH_MODEL)}

CASES: Final = (
    Case(
        fault="A700 for one instance",
        peer=lambda o: {"by_uid": {_second(o): 0xA700}},
        states={"taken": 2, "pending": 1},
        series="synthesised",
    ),
    Case(
        fault="0110 for one instance",
        peer=lambda o: {"by_uid": {_second(o): 0x0110}},
        states={"taken": 2, "pending": 1},
        series="synthesised",
    ),
    Case(
        fault="a lost answer, then 0111",
        peer=_lost_answer,
        states={"taken": 2, "unverified": 1},
        series="published, not confirmed",
        rounds=2,
    ),
    Case(
        fault="C000 for one of 38 slices",
        peer=lambda o: {"by_uid": {_second(o): 0xC000}, "sop_classes": PM},
        slices=38,
        companion=True,
        states={"taken": 37, "refused": 1, "left-out": 1},
        series="failed",
        operator="outbox retry",
    ),
    Case(
        fault="no Parametric Map",
        peer=lambda _: {"sop_classes": MR},
        companion=True,
        states={"taken": 3, "left-out": 1},
        series="published, not confirmed",
    ),
    Case(
        fault="B000 for one instance",
        peer=lambda o: {"by_uid": {_second(o): 0xB000}},
        states={"taken": 2, "unverified": 1},
        series="published, not confirmed",
    ),
    Case(
        fault="0122 for all of a SOP class",
        peer=lambda o: {"by_uid": dict.fromkeys(_names(o), 0x0122)},
        states={"refused": 3},
        series="failed",
        operator="outbox retry",
    ),
    Case(
        fault="no MR Image",
        peer=lambda _: {"sop_classes": (ParametricMapStorage,)},
        states={"pending": 3},
        series="synthesised",
        other="synthesised",
    ),
    Case(
        fault="does not know our AE title",
        peer=lambda _: {"require_calling_aet": ["SOMEBODY"]},
        states={"pending": 3},
        series="synthesised",
        other="synthesised",
    ),
    Case(
        fault="nothing listens",
        peer=lambda _: {"absent": True},
        states={"pending": 3},
        series="synthesised",
        other="synthesised",
    ),
    Case(
        fault="takes the connection and says nothing",
        peer=lambda _: {"silent": True},
        states={"pending": 3},
        series="synthesised",
        other="synthesised",
        options={"timeout_s": SHORT_TIMEOUT_S},
    ),
    Case(
        fault="no answer to one C-STORE",
        peer=lambda _: {"answer": _silent_once()},
        states={"taken": 1, "pending": 2},
        series="synthesised",
        options={"timeout_s": SHORT_TIMEOUT_S},
    ),
    Case(
        fault="aborts in the middle of a set",
        peer=lambda _: {"answer": _abort_second()},
        states={"taken": 1, "pending": 2},
        series="synthesised",
    ),
    Case(
        fault="0000, and keeps nothing",
        peer=lambda _: {"images": []},
        confirmation="query",
        states={"pending": 3},
        series="published, not confirmed",
    ),
    Case(
        fault="0000, and keeps another object of our UID",
        peer=lambda o: {"images": [*_names(o), *_names(_objects(2, 3))], "gives": _other_bytes(o)},
        confirmation="query",
        states={"confirmed": 2, "altered": 1},
        series="published, not confirmed",
        other="published, confirmed",
        operator="outbox retry",
    ),
    Case(
        fault="holds the study of another patient",
        peer=lambda _: {"studies": [{"PatientID": "another"}]},
        states={"held": 3},
        series="synthesised",
        other="synthesised",
        operator="outbox retry",
    ),
    Case(
        fault="never answers storage commitment",
        peer=lambda _: _ACTION | {"handlers": [(evt.EVT_N_ACTION, lambda _: (0x0000, Dataset()))]},
        confirmation="commitment",
        rounds=TRIES + 1,
        states={"taken": 3},
        series="published, not confirmed",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    states: Mapping[str, int]
    series: str
    other: str
    repaired: str
    reason: str | None


def outcome(case: Case) -> Outcome:
    """Let both studies be delivered to the destination, then repair it."""
    with outbox_node() as node:
        first = _objects(1, case.slices, companion=case.companion)
        second = _objects(2, 3)
        for study, objects in ((1, first), (2, second)):
            _put(node, study, objects)
        with _destination(dict(case.peer(first))) as settings:
            loop = node.loop(
                settings.model_copy(update=case.options), confirmation=case.confirmation
            )
            for number in range(case.rounds):
                node.now_s += number * (WAIT_S if case.confirmation == "commitment" else 60.0)
                _work_off(loop)
        (delivery, _) = node.deliveries.of()
        series, other = _states(node)
        if case.operator != "nothing":
            node.deliveries.retry(delivery.set_id, "pacs", "repaired", "someone")
        everything = [*first, *second]
        stored = {one.sop_instance_uid: one.content for one in everything}
        with a_peer(
            sop_classes=(*PM, PUSH_MODEL),
            images=list(stored),
            gives=stored,
            handlers=[(evt.EVT_N_ACTION, commit_all)],
        ) as (_, settings):
            loop = node.loop(settings, confirmation="query")
            for _ in range(2):
                node.now_s += 2 * WAIT_S
                _work_off(loop)
        return Outcome(delivery.states, series, other, _states(node)[0], delivery.reason)


def _work_off(loop: Any) -> None:
    for _ in range(30):
        if not (loop.deliver_next() or loop.confirm_next()):
            return


def _states(node: OutboxNode) -> list[str]:
    found = {one.series_instance_uid: one.state_text for one in node.ledger.series()}
    return [found["1.2.1.1"], found["1.2.2.1"]]


def _objects(study: int, slices: int, *, companion: bool = False) -> list[DerivedInstance]:
    objects = [instance(100 * study + n) for n in range(slices)]
    if companion:
        objects.append(instance(100 * study + slices, ParametricMapStorage, "PM"))
    return objects


def _put(node: OutboxNode, study: int, objects: Objects) -> None:
    series, uid = f"1.2.{study}.1", f"1.2.{study}"
    node.ledger.record_received(received(1, series, uid))
    job = accept(node.ledger, series, uid)
    node.outbox.put(replace(derived_set(job), instances=tuple(objects)), ["pacs"], job)


@contextmanager
def _destination(options: dict[str, Any]) -> Iterator[DestinationSettings]:
    if options.pop("absent", False) or options.pop("silent", False):
        silent = not options
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            if silent:
                listener.listen()
            yield settings_for(listener.getsockname()[1])
        return
    with a_peer(**options) as (_, settings):
        yield settings


def main() -> None:
    """Print what came of each case."""
    for number, case in enumerate(CASES, 1):
        found = outcome(case)
        right = (found.states, found.series, found.other, found.repaired) == (
            case.states, case.series, case.other, case.repaired,
        )  # fmt: skip
        states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
        sys.stdout.write(
            f"{number:2} {case.fault}: {states}; {found.series}; next study: {found.other}; "
            f"repaired ({case.operator}): {found.repaired}; {'as wanted' if right else 'WRONG'}\n"
        )


if __name__ == "__main__":
    main()
