"""Lets threads that write at the same moment share one transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(kw_only=True)
class _Ticket(Generic[Request, Result]):
    request: Request
    results: Sequence[Result] = ()  #: of this request alone, once it is durable
    error: BaseException | None = None


class CommitQueue(Generic[Request, Result]):
    """Calls ``commit`` with the requests of all threads that wait, from one of them.

    A thread returns when the transaction of its own request is durable. Where a transaction of
    several requests fails, each is tried in one of its own, so that none fails for another.
    """

    def __init__(self, commit: Callable[[Sequence[Request]], Sequence[Result]]) -> None:
        self._commit = commit
        self._waiting: list[_Ticket[Request, Result]] = []
        self._joining = threading.Lock()
        self._committing = threading.Lock()

    def run(self, request: Request) -> Result:
        """Commit the request, perhaps with others; its result."""
        ticket = _Ticket[Request, Result](request=request)
        with self._joining:
            self._waiting.append(ticket)
        with self._committing:
            if not ticket.results and ticket.error is None:
                with self._joining:
                    group, self._waiting = self._waiting, []
                self._commit_group(group)
        if ticket.error is not None:
            raise ticket.error
        return ticket.results[0]

    def _commit_group(self, group: Sequence[_Ticket[Request, Result]]) -> None:
        try:
            results = self._commit([ticket.request for ticket in group])
        except BaseException as error:  # noqa: BLE001 - raised in the thread that it belongs to
            if len(group) == 1:
                group[0].error = error
                return
            for ticket in group:
                self._commit_group((ticket,))
            return
        for ticket, result in zip(group, results, strict=True):
            ticket.results = (result,)
