"""What the tests of the whole node share: a quick bundle, a quick study, a node that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rebrain_node.app.compose import open_bundle, open_state
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.model.bundle import FILES, load_bundle, write_bundle
from rebrain_node.model.signature import make_key, read_private_key, sign_bundle
from rebrain_node.settings import DestinationSettings, Settings, load_settings
from tests.support import phantoms

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "rebrain_node.cli")


def write_quick_bundle(folder: Path, spacing_mm: float = 8.0) -> Path:
    """Write the shipped network alone with a recipe of few slices, signed with a key of its own."""
    shipped = open_bundle(Settings()).bundle
    contents = {name: shipped.read(name) for name in FILES}
    alone = {"spacing_mm": spacing_mm, "retrieval": {"method": "none"}, "abstain": None}
    alone |= {"tissue_level_hu": 33.0}
    recipe = json.loads(contents["recipe.json"]) | alone
    contents["recipe.json"] = json.dumps(recipe).encode()
    write_bundle(folder, "quick", "0.0.1", contents)
    private = folder.with_suffix(".key")
    make_key(private, public_key(folder))
    sign_bundle(load_bundle(folder), read_private_key(private))
    return folder


def public_key(bundle_folder: Path) -> Path:
    """Name the public key that lies beside a quick bundle."""
    return bundle_folder.with_suffix(".pub")


def quick_study(**changes):
    """Make a small head CT that the node takes."""
    return phantoms.head_ct(**changes)


def run(*arguments, bundle_folder: Path | None = None, timeout_s: float = 240.0):
    """Run the program to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if bundle_folder is not None:
        environment["REBRAIN_MODEL__BUNDLE"] = str(bundle_folder)
        environment["REBRAIN_MODEL__TRUSTED_KEYS"] = json.dumps([str(public_key(bundle_folder))])
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass(frozen=True)
class Node:
    """A node under test: its settings file, its state, and how to run it."""

    folder: Path
    port: int

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def address(self) -> DestinationSettings:
        return DestinationSettings(
            name="node", ae_title="REBRAIN", host="127.0.0.1", port=self.port
        )

    @contextmanager
    def running(self, ready_s: float = 120.0, role: str = "all"):
        """Run `serve` until the block ends; SIGTERM must end it with exit code 0."""
        log = self.folder / f"serve-{time.monotonic_ns()}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as stream:
            command = [*PROGRAM, "serve", "--config", str(self.config), "--role", role]
            process = subprocess.Popen(
                command, env=environment, stderr=stream, stdin=subprocess.DEVNULL
            )
        try:
            wait_for(lambda: '"event": "ready"' in log.read_text(), ready_s, log.read_text)
            yield process
        finally:
            process.terminate()
            code = process.wait(timeout=30)
        assert code == 0, log.read_text()
        assert "Traceback" not in log.read_text()

    @contextmanager
    def state(self):
        with open_state(self.settings) as state:
            yield state

    def states(self) -> dict[str, str]:
        """State of each series of the ledger."""
        with self.state() as state:
            return {r.series_instance_uid: r.state for r in state.ledger.series()}


def make_node(folder: Path, bundle_folder: Path, pacs_ae_title: str, pacs_port: int) -> Node:
    """Write the settings of a node that knows one PACS, as sender and as destination."""
    port = free_port()
    (folder / "node.toml").write_text(
        f"""
        [receiver]
        port = {port}
        [[receiver.peers]]
        ae_title = "{pacs_ae_title}"
        [completeness]
        quiet_period_s = 1.0
        resume_wait_s = 1.0
        [storage]
        folder = "{folder / "state"}"
        soft_mark_bytes = 0
        hard_mark_bytes = 0
        [model]
        bundle = "{bundle_folder}"
        trusted_keys = ["{public_key(bundle_folder)}"]
        [[destinations]]
        name = "pacs"
        ae_title = "{pacs_ae_title}"
        host = "127.0.0.1"
        port = {pacs_port}
        """
    )
    return Node(folder, port)


def wait_for(condition, timeout_s: float = 120.0, say=lambda: "") -> None:
    """Wait until the condition holds; the test fails with what ``say`` says if it never does.

    Between two looks there is a pause twice as long as a look takes, and 0.1 s at least: looking
    must not take the core from the node.
    """
    end = time.monotonic() + timeout_s
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {say()}"
        time.sleep(max(0.1, 2.0 * (time.monotonic() - began)))
        began = time.monotonic()
