"""The processes of all machines in the database: signs of life, takeover and duties.

Each start of a process has a token of its own. Every change that a process of a shared database
writes checks, in its transaction, that the token is still in force (`Database.fence`); a takeover
ends that in a transaction of the same order, so that what a frozen process writes after it wakes is
refused.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.executor import Duty, ExecutorRecord
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.tables import DutyRow, ExecutorRow

#: a process that was taken over and did not come back is listed so long, ms
_KEPT_MS: Final = 24 * 3600 * 1000


class Executors:
    """The processes of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def join(self, machine: str, process: str, run: str, pid: int) -> str:
        """Enter a process that starts; its token.

        What earlier starts of this machine left is removed: the lock of its folder shows that they
        have ended. With SQLite there is one machine, so that what any other name left is removed.
        """
        token = uuid.uuid4().hex
        with self._database.writing() as session:
            former = delete(ExecutorRow).where(
                (ExecutorRow.machine == machine) & (ExecutorRow.process == process)
                | (ExecutorRow.run != run)
                & ((ExecutorRow.machine == machine) | (not self._database.is_shared))
            )
            session.execute(former)
            session.add(
                ExecutorRow(
                    token=token,
                    machine=machine,
                    process=process,
                    run=run,
                    pid=pid,
                    beats=0,
                    beat_ms=self._database.now_ms(session),
                    is_fenced=False,
                )
            )
        return token

    def leave(self, token: str) -> None:
        """Remove a process that ends in order; its duties are free at once."""
        with self._database.writing() as session:
            session.execute(delete(ExecutorRow).where(ExecutorRow.token == token))

    def beat(self, token: str) -> bool:
        """Count one sign of life; false where the work of the process was taken over.

        Waits for no other writer: a process that is frozen inside a transaction must not make all
        others look dead.
        """
        with self._database.beside() as session:
            now_ms = self._database.now_ms(session)
            counted = session.execute(
                update(ExecutorRow)
                .where(ExecutorRow.token == token, ~ExecutorRow.is_fenced)
                .values(beats=ExecutorRow.beats + 1, beat_ms=now_ms)
                .returning(ExecutorRow.token)
            )
            return counted.first() is not None

    def all(self) -> tuple[ExecutorRecord, ...]:
        """Every process that has joined and not left, by machine and process.

        One that was taken over is left out after a day.
        """
        with self._database.reading() as session:
            now_ms = self._database.now_ms(session)
            is_old = ExecutorRow.is_fenced & (ExecutorRow.beat_ms < now_ms - _KEPT_MS)
            query = select(ExecutorRow).where(~is_old)
            query = query.order_by(ExecutorRow.machine, ExecutorRow.process)
            duties: dict[str, list[Duty]] = defaultdict(list)
            for row in session.scalars(select(DutyRow).order_by(DutyRow.name)):
                duties[row.token].append(row.name)
            return tuple(
                ExecutorRecord(
                    machine=row.machine,
                    process=row.process,
                    token=row.token,
                    run=row.run,
                    pid=row.pid,
                    beats=row.beats,
                    silent_s=max(0.0, (now_ms - row.beat_ms) / 1000.0),
                    is_fenced=row.is_fenced,
                    duties=() if row.is_fenced else tuple(duties[row.token]),
                )
                for row in session.scalars(query)
            )

    def take_over(self, silent: ExecutorRecord, by: str) -> bool:
        """End the token of a silent process; false where it has given a sign of life meanwhile.

        Parameters
        ----------
        by : str
            Name of the process that has noticed, for the audit log.
        """
        with self._database.writing() as session:
            ended = session.execute(
                update(ExecutorRow)
                .where(
                    ExecutorRow.token == silent.token,
                    ExecutorRow.beats == silent.beats,
                    ~ExecutorRow.is_fenced,
                )
                .values(is_fenced=True)
                .returning(ExecutorRow.token)
            )
            if ended.first() is None:
                return False
            border = self._database.now_ms(session) - _KEPT_MS
            old = delete(ExecutorRow).where(ExecutorRow.is_fenced, ExecutorRow.beat_ms < border)
            session.execute(old)
            details = {"by": by, "duties": list(silent.duties)}
            append(session, Event.PROCESS_TAKEN_OVER, silent.name, details)
        return True

    def take_duty(self, duty: Duty, token: str) -> bool:
        """Take a duty that nobody who lives has; whether the process has it now."""
        with self._database.reading() as session:
            if self._holder(session, duty) not in (None, token):
                return False
        with self._database.writing() as session:
            if self._holder(session, duty) not in (None, token):
                return False
            session.merge(DutyRow(name=duty, token=token))
        return True

    @staticmethod
    def _holder(session: Session, duty: Duty) -> str | None:
        query = (
            select(DutyRow.token)
            .join(ExecutorRow, ExecutorRow.token == DutyRow.token)
            .where(DutyRow.name == duty, ~ExecutorRow.is_fenced)
        )
        return session.scalars(query).first()
