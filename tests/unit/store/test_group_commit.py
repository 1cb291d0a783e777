"""Requests of several threads share a transaction, and fail alone."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from rebrain_node.store.group_commit import CommitQueue


class Transactions:
    """Notes each group; the first one waits until it may go on; negative numbers fail."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def commit(self, requests: Sequence[int]) -> list[int]:
        self.groups.append(list(requests))
        self.begun.set()
        self.go_on.wait(20)
        if any(request < 0 for request in requests):
            raise ValueError(requests)
        return [10 * request for request in requests]


def run(numbers: Sequence[int]) -> tuple[list[list[int]], list[object]]:
    """Groups and results of numbers that come while the transaction of 0 is open."""
    transactions = Transactions()
    waiting = CommitQueue(transactions.commit)
    with ThreadPoolExecutor(len(numbers) + 1) as threads:
        first = threads.submit(waiting.run, 0)
        assert transactions.begun.wait(20)
        others = [threads.submit(waiting.run, number) for number in numbers]
        while len(waiting._waiting) < len(numbers):
            pass
        transactions.go_on.set()
        assert first.result() == 0
        results = [each.exception() or each.result() for each in others]
    return transactions.groups, results


def test_what_comes_during_a_transaction_shares_the_next() -> None:
    groups, results = run([1, 2, 3])
    assert results == [10, 20, 30]
    assert [sorted(group) for group in groups] == [[0], [1, 2, 3]]


def test_one_that_fails_fails_alone() -> None:
    groups, results = run([1, -2, 3])
    assert (results[0], results[2]) == (10, 30)
    assert isinstance(results[1], ValueError)
    assert len(groups) == 1 + 1 + 3


def test_one_alone_does_not_wait() -> None:
    assert CommitQueue(lambda requests: list(requests)).run(7) == 7
    with pytest.raises(ZeroDivisionError):
        CommitQueue(lambda requests: [1 // 0 for _ in requests]).run(7)
