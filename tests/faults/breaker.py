"""The circuit breaker of a destination that is down: opening, trials and closing.

Run: ``python -m tests.faults.breaker [HOURS]`` (24 by default). A delivery loop with 20 waiting
sets calls a port on which nothing listens; then a peer listens there again. The count of 14 days is
that of the breaker alone. The monotonic clock is simulated.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from rebrain_node.domain.audit import Event
from rebrain_node.worker.breaker import LONGEST_TRIAL_PAUSE_S, OPENS_AFTER, DestinationBreaker
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.scripted_pacs import a_peer, instance
from tests.support.store_cases import accept, derived_set, received

SETS = 20
#: no pause is shorter than three quarters of the longest; the first nine are shorter than that
MOST_IN_14_DAYS = 9 + int(14 * 86400 / (0.75 * LONGEST_TRIAL_PAUSE_S))


@dataclass(frozen=True)
class Down:
    """What a loop did while its destination was down, and when it came back."""

    attempts: int
    opened_after: int  #: failed attempts, as the audit log says
    opened_s: float
    rows: int  #: of the audit log about failed attempts
    late_s: float  #: from the return of the destination to the trial that succeeds
    closed: dict[str, object]  #: details of the row of the audit log
    delivered_at_once: int  #: sets that the loop delivers without a further pause


def down(hours: float) -> Down:
    """Let a destination be down for some hours."""
    with a_peer() as (_, settings):
        pass  # the port is free now
    with outbox_node() as node:
        for number in range(1, SETS + 1):
            _put(node, number)
        loop = node.loop(settings)
        attempts, opened_s = 0, 0.0
        while node.now_s < hours * 3600:
            attempts += loop.deliver_next()
            if loop.breaker.is_open and not opened_s:
                opened_s = node.now_s
            node.now_s = loop.breaker.due_s
        returned_s = hours * 3600
        with a_peer(port=settings.port):
            late_s = node.now_s - returned_s
            delivered = sum(loop.deliver_next() for _ in range(SETS + 1))
        (opened,) = node.audit.events(9, event=Event.DESTINATION_UNREACHABLE)
        (closed,) = node.audit.events(9, event=Event.DESTINATION_REACHABLE)
        rows = len(node.audit.events(10_000, event=Event.DELIVERY_FAILED))
        failures = int(opened.details["failures"])
        return Down(attempts, failures, opened_s, rows, late_s, dict(closed.details), delivered)


def attempts_in(days: float) -> int:
    """Count the attempts of a breaker whose destination is down."""
    breaker, now_s, attempts = DestinationBreaker("pacs"), 0.0, 0
    while now_s < days * 86400:
        breaker.fail(now_s)
        attempts += 1
        now_s = breaker.due_s
    return attempts


def _put(node: OutboxNode, number: int) -> None:
    series, study = f"1.2.{number}.1", f"1.2.{number}"
    node.ledger.record_received(received(1, series, study))
    job = accept(node.ledger, series, study)
    node.outbox.put(replace(derived_set(job), instances=(instance(number),)), ["pacs"], job)


def main(hours: float = 24) -> None:
    """Print what the breaker did."""
    result, fortnight = down(hours), attempts_in(14)
    sys.stdout.write(
        f"{SETS} sets wait, the destination is down for {hours:g} h: {result.attempts} attempts in "
        f"all, whatever waits; opened after {result.opened_after} failures (limit {OPENS_AFTER}), "
        f"{result.opened_s:.1f} s; {result.rows} rows of failed attempts on the audit log\n"
        f"back again: the trial that succeeds comes {result.late_s:.0f} s later (at most "
        f"{LONGEST_TRIAL_PAUSE_S:g} s), closed with {result.closed}, {result.delivered_at_once} "
        f"sets delivered without a further pause\n"
        f"14 days: {fortnight} attempts (at most {MOST_IN_14_DAYS})\n"
    )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
