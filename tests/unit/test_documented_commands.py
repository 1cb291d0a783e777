"""Every command that a document or a message of the program names exists and runs as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program as node
from rebrain_node.errors import RebrainError
from rebrain_node.settings import load_settings
from tests.support.store_cases import accept, derived_set, fast_folder, received
from trainer.cli import program as train

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")),
         *sorted((ROOT / "deploy").rglob("*.md"))]  # fmt: skip
PROGRAMS = {"rebrain-node": node, "rebrain-train": train}
#: these need a network, a minute, images or the whole disk: only their options are checked
NOT_RUN = {
    "serve",
    "demo",
    "process",
    "send",
    "receiver",
    "worker",
    "doctor",
    "benchmark",
    "backup",
    "restore",
    "verify",
}
#: what a document writes for a value, and one that will do
VALUES = {
    "SERIES": "1.2.1.1", "UID": "1.2.1.1", "DIGEST": "1" * 16, "HASH": "a" * 32, "TEXT": "text",
    "SEQUENCE": "1", "RESULT": "text", "2026-11-01": "2026-11-01", "ID": "1.2.1.1", "SET": "1",
}  # fmt: skip
#: in a block the explanation stands behind two spaces or a #, an alternative behind a bar
_END = re.compile(r"\s{2,}|\s#|\s\||\s?\.\.\.|;|\s&&")


def _named() -> list[str]:
    """Every command as it is written, once."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace('"..."', "TEXT")
        for words in re.findall(r"`(rebrain-(?:node|train) [^`\n]+)`", text):
            found[_END.split(words)[0]] = None
        for line in re.findall(r"^(?: {4,}|\t)(rebrain-(?:node|train) .+)$", text, re.MULTILINE):
            found[_END.split(line)[0]] = None
    for module in sorted((ROOT / "rebrain_node").rglob("*.py")):
        text = re.sub(r'"\s+f?"', "", module.read_text(encoding="utf-8"))
        for words in re.findall(r"`(rebrain-node [a-z][^`\n{]*)`", text):
            found[_END.split(words)[0]] = None
    return [words.rstrip(" \\") for words in found if "COMMAND" not in words]


def _command(words: list[str]):
    """The click command that the first words name, and the words behind its name."""
    command = typer.main.get_command(PROGRAMS[words[0]])
    rest = words[1:]
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("documented") / "node.toml"
    with fast_folder() as folder:
        path.write_text(
            f'[storage]\nfolder = "{folder}/state"\n'
            '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        )
        with open_state(load_settings(path)) as state:
            state.ledger.record_received(received(1))
            job = accept(state.ledger)
            state.outbox.put(derived_set(job), ["pacs"], job)
        yield path


@pytest.mark.parametrize("written", _named())
def test_a_command_that_is_named_exists_and_takes_the_options_that_are_written(written):
    command, rest = _command(shlex.split(written))
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    assert not rest or not hasattr(command, "commands"), f"{rest[0]} is no command"
    assert {word for word in rest if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("written", [w for w in _named() if w.startswith("rebrain-node ")])
def test_a_command_of_the_node_runs_as_it_is_written(written, config, monkeypatch):
    monkeypatch.chdir(config.parent)  # a report is written into the working folder
    words = shlex.split(written)
    command, rest = _command(words)
    if words[1] in NOT_RUN or hasattr(command, "commands"):
        return
    values = [VALUES.get(word, word) for word in words[1:]]
    if "--config" in values:
        place = values.index("--config")
        del values[place : place + 2]
    if any(option.name == "config" for option in command.params):
        place = len(words) - 1 - len(rest)  # behind the name of the command
        values[place:place] = ["--config", str(config)]
    result = CliRunner().invoke(node, values)
    if isinstance(result.exception, RebrainError):
        return  # it ran, and says why this state does not allow it
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.exit_code == 2 and re.search("Missing|requires an argument", result.output):
        return  # a sentence names the command without all that it needs
    assert result.exit_code in (0, 1), result.output
