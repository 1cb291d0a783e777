"""Durable workflows (DBOS): straight-line code whose progress survives a crash.

After a crash, or where a process was taken over, any worker runs its unfinished workflow again.
DBOS keeps ids and short JSON values only, never pickled objects, and connects to nothing but its
own database.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetWorkflowID,
    WorkflowStatus,
)

from rebrain_node.domain.executor import BEAT_S
from rebrain_node.store.fence import limited_url
from rebrain_node.worker.work import TRIES, Outcome, Work, reason_of

#: the shape of the workflows below; work begun under another shape is never replayed
VERSION: Final = "1"
#: pause before the next try: doubles from the first to the longest, s
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
_POLL_S: Final = 0.25
_LOG = structlog.get_logger("worker")
_SYNTHESIS: Final = "synthesis"


def progress_url(folder: Path, database_url: str | None) -> str:
    """Return the URL of the progress database, beside or within that of the ledger."""
    if database_url is not None and database_url.startswith("postgresql"):
        return limited_url(database_url)
    return f"sqlite:///{folder.absolute() / 'progress.sqlite'}"


def pause_s(attempt: int, key: str, longest_s: float = LONGEST_PAUSE_S) -> float:
    """Pause after the ``attempt``-th failure (1, 2, ...): doubled each time, up to a quarter less.

    The jitter is a function of ``key`` and not of chance, so that a replay pauses as before.
    """
    longest = min(longest_s, FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 16))
    share = hashlib.sha256(f"{key}:{attempt}".encode()).digest()[0] / 255.0
    return longest * (1.0 - 0.25 * share)


@dataclass
class AttemptClock:
    """How long the present attempt of this process at a synthesis has taken."""

    _began_s: float | None = field(default=None)  #: monotonic

    def seconds(self) -> float:
        """Return its duration so far, s; 0 where nothing is synthesised."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure one attempt."""
        self._began_s = time.monotonic()
        try:
            yield
        finally:
            self._began_s = None


@dataclass(frozen=True)
class Workflows:
    """The durable workflows of this process; DBOS allows one such object for each process."""

    _synthesis: Callable[[str, int], None]
    attempt: AttemptClock  #: of the synthesis that runs

    def start_synthesis(
        self, series_instance_uid: str, revision: int, accepted_at: datetime
    ) -> None:
        """Queue the synthesis of an accepted series; queued or done before, nothing happens.

        A series that is accepted again at the same revision, e.g. because an operator has it
        retried, is other work: ``accepted_at`` is part of the name of the workflow.
        """
        with SetWorkflowID(_synthesis_id(series_instance_uid, revision, accepted_at)):
            DBOS.enqueue_workflow(_SYNTHESIS, self._synthesis, series_instance_uid, revision)

    def has_given_up(self, series_instance_uid: str, revision: int, accepted_at: datetime) -> bool:
        """Whether the synthesis ended by crashing its worker ``TRIES`` times."""
        status = DBOS.get_workflow_status(_synthesis_id(series_instance_uid, revision, accepted_at))
        return status is not None and status.status in ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR")

    def take_over(self, living: Callable[[], Sequence[str]]) -> None:
        """Put back into the queue what processes had begun that do not live any more.

        Counted as one of the ``TRIES`` of a workflow, as a crash is.

        Parameters
        ----------
        living : callable
            Returns the executor ids (`launch`) of those that live. Asked after the workflows: a
            process is known before it begins one.
        """
        begun = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        dead = {each.executor_id for each in begun} - set(living())
        names = sorted(each for each in dead if each is not None)
        if names:  # `resume_workflow` would forget the tries
            DBOS._recover_pending_workflows(names)  # noqa: SLF001 - a test holds what it does

    def keep_taking_over(self, living: Callable[[], Sequence[str]], stop: threading.Event) -> None:
        """Do so until ``stop``; in a thread of its own, because DBOS waits for its database."""
        while not stop.wait(BEAT_S):
            try:
                self.take_over(living)
            except Exception as error:  # noqa: BLE001 - the next round tries again
                _LOG.warning("takeover failed", reason=reason_of(error))

    def close(self) -> None:
        """Hand unfinished work back, so that a clean stop does not count as a crash, and stop."""
        _hand_back(DBOS.list_workflows(status="PENDING", executor_id=DBOS.executor_id))
        DBOS.destroy()


def launch(work: Work, url: str, executor_id: str) -> Workflows:
    """Start DBOS in this process.

    Parameters
    ----------
    work : Work
        What is to be done.
    url : str
        SQLAlchemy URL of the progress database.
    executor_id : str
        Of this start of this process, never used again.
    """
    _quiet_logging()
    attempt_clock = AttemptClock()
    DBOS(config=_configuration(url, executor_id))

    @DBOS.step(name="synthesise")
    def synthesise(series_instance_uid: str, revision: int, attempt: int) -> Outcome:
        with attempt_clock.running():
            return work.synthesise(series_instance_uid, revision, attempt)

    @DBOS.workflow(name=_SYNTHESIS, max_recovery_attempts=TRIES - 1)
    def synthesis(series_instance_uid: str, revision: int) -> None:
        key = f"{_SYNTHESIS}:{series_instance_uid}:{revision}"
        _until_done(key, lambda attempt: synthesise(series_instance_uid, revision, attempt))

    DBOS.launch()
    DBOS.register_queue(_SYNTHESIS, worker_concurrency=1, polling_interval_sec=_POLL_S)
    return Workflows(synthesis, attempt_clock)


def _until_done(key: str, attempt_once: Callable[[int], Outcome]) -> None:
    """Try until it is done; waiting for the store does not count as an attempt."""
    attempt = pauses = 1
    while (outcome := attempt_once(attempt)) != "done":
        time.sleep(pause_s(pauses, key))  # DBOS.sleep ends at a time of the wall clock
        pauses += 1
        if outcome == "again":
            attempt += 1


def _hand_back(unfinished: Iterable[WorkflowStatus]) -> None:
    """Put unfinished workflows back into their queues, their crash count at zero."""
    for workflow in unfinished:
        DBOS.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)


def _synthesis_id(series_instance_uid: str, revision: int, accepted_at: datetime) -> str:
    return f"{_SYNTHESIS}:{series_instance_uid}:{revision}:{accepted_at.isoformat()}"


def _configuration(url: str, executor_id: str) -> DBOSConfig:
    return {
        "name": "rebrain-node",
        "system_database_url": url,
        "serializer": DBOSPortableJSONSerializer(),
        "application_version": VERSION,
        "executor_id": executor_id,
        "enable_otlp": False,
        "log_level": "WARNING",
    }


def _quiet_logging() -> None:
    """Let DBOS log through our handlers instead of writing to the terminal in its own format."""
    logger = logging.getLogger("dbos")
    logger.addHandler(logging.NullHandler())
    logger.propagate = True
