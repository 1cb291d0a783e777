"""A private PostgreSQL for the tests: its own folder, a free loopback port, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

_USER = "postgres"  # PostgreSQL does not run as root


class Cluster:
    """One server over one folder, which can be stopped and started again."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self._programs = programs
        self._folder = folder
        self.port = port
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        data = str(self._folder / "data")
        command = [self._programs / "initdb", "-D", data, "-A", "trust", "-U", "rebrain", "-N"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **_as_postgres())

    def start(self) -> None:
        command = [
            self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port),
            "-k", self._folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
        ]  # fmt: skip
        self._server = subprocess.Popen(
            command,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_as_postgres(),
        )
        for _ in range(300):
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError("PostgreSQL did not start within 30 s")

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # fast shutdown
            self._server.wait(30)
            self._server = None

    def url(self, name: str) -> str:
        return f"postgresql://rebrain@127.0.0.1:{self.port}/{name}"

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def _as_postgres() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": _USER, "group": _USER, "extra_groups": []}


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    command = shutil.which("initdb")
    return None if command is None else Path(command).resolve().parent


@contextmanager
def running_cluster() -> Iterator[Cluster | None]:
    """Run a PostgreSQL of its own until the block ends; None where none is installed."""
    programs = _programs()
    if programs is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="rebrain-postgres-"))
    if os.geteuid() == 0:
        account = pwd.getpwnam(_USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Cluster(programs, folder, port)
    try:
        cluster.create()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A running PostgreSQL; the test is skipped, visibly, where none is installed."""
    with running_cluster() as cluster:
        if cluster is None:
            pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
        yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> str:
    """URL of a new, empty database in the test's own PostgreSQL."""
    return postgres_cluster.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/node.sqlite"
