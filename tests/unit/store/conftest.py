"""The stores of one database, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebrain_node.domain.job import Job
from rebrain_node.store.confirmations import Confirmations
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.outbox_node import OutboxNode
from tests.support.store_cases import accept, fast_folder, received


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        yield database


@pytest.fixture
def stores(database: Database, folder: Path) -> OutboxNode:
    return OutboxNode(database, folder)


@pytest.fixture
def ledger(stores: OutboxNode) -> Ledger:
    return stores.ledger


@pytest.fixture
def outbox(stores: OutboxNode) -> Outbox:
    return stores.outbox


@pytest.fixture
def deliveries(stores: OutboxNode) -> Deliveries:
    return stores.deliveries


@pytest.fixture
def confirmations(stores: OutboxNode) -> Confirmations:
    return stores.confirmations


@pytest.fixture
def job(ledger: Ledger) -> Job:
    """An accepted series of one instance."""
    ledger.record_received(received(1))
    return accept(ledger)
