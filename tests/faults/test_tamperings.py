"""Whoever tampers with the database of a node is found: log, checkpoints, triggers, facts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from tests.faults import tamperings
from tests.faults.tamperings import TAMPERINGS, Case, Copies, tamper
from tests.support.audited_node import DATABASE, audited_node
from tests.support.postgres import Cluster
from tests.support.store_cases import fast_folder

SEED = 20261130


@pytest.fixture(scope="module")
def node() -> Iterator[Path]:
    """The folder of a node that has lived, on SQLite."""
    with fast_folder() as folder:
        (folder / "node").mkdir()
        with audited_node(folder / "node"):
            pass
        yield folder / "node"


@pytest.mark.hazard("H2", "H20")
@pytest.mark.parametrize("count", [2, pytest.param(500, marks=pytest.mark.full)])
def test_every_random_tampering_is_found(node: Path, count: int) -> None:
    done = list(tamper(count * len(TAMPERINGS), SEED, node, Copies(node.parent)))

    assert [(name, number) for name, number, found in done if not found] == [], f"seed {SEED}"


def test_the_chain_alone_misses_most_kinds(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the battery can fail."""

    def chain_alone(case: Case, key: str, reports: Path) -> bool:
        with Database.open(case.url, make=False) as database:
            return not AuditLog(database).verify().intact

    monkeypatch.setattr(tamperings, "is_found", chain_alone)
    done = tamper(len(TAMPERINGS), SEED, node, Copies(node.parent))

    assert {name for name, _, found in done if not found} >= {
        "write_the_log_again", "write_the_log_again_without_checkpoints",
        "write_the_log_again_with_another_key", "cut_the_tail", "put_an_old_copy_back",
        "delete_a_checkpoint", "change_a_trigger", "change_a_fact",
    }  # fmt: skip


class PostgresCopies(Copies):
    """Copies of a node whose database is a server's: made from it as a template."""

    def __init__(self, folder: Path, cluster: Cluster, source_url: str) -> None:
        super().__init__(folder)
        self._cluster, self._source_url = cluster, source_url

    @contextmanager
    def open_source(self, source: Path) -> Iterator[Database]:
        with Database.open(self._source_url) as database:
            yield database

    def make(self, source: Path) -> tuple[Path, str]:
        folder, _ = super().make(source)
        self._run(f"CREATE DATABASE tampered TEMPLATE {self._source_url.rsplit('/', 1)[1]}")
        return folder, self._cluster.url("tampered")

    def remove(self, folder: Path, url: str) -> None:
        shutil.rmtree(folder)
        self._run("DROP DATABASE tampered WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._cluster.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@pytest.mark.full
def test_every_kind_of_tampering_is_found_on_postgresql(
    postgres_cluster: Cluster, tmp_path: Path
) -> None:
    url, source = postgres_cluster.new_database(), tmp_path / "node"
    source.mkdir()
    with audited_node(source, url):
        pass
    assert not (source / DATABASE).exists()
    copies = PostgresCopies(tmp_path, postgres_cluster, url)

    done = list(tamper(len(TAMPERINGS), SEED, source, copies))

    assert [name for name, _, found in done if not found] == []
