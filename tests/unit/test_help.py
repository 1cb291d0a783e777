"""What both programs say of themselves: whole sentences, and nothing meant for readers of code."""

import re
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from rebrain_node.cli import program as node
from trainer.cli import program as train

PROGRAMS = {"rebrain-node": node, "rebrain-train": train}


def _commands(name: str, group: Any) -> dict[str, Any]:
    found = {name: group}
    for part, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= _commands(f"{name} {part}", command)
        elif not command.hidden:
            found[f"{name} {part}"] = command
    return found


COMMANDS = {
    full: command
    for name, program in PROGRAMS.items()
    for full, command in _commands(name, typer.main.get_command(program)).items()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_and_for_users(name: str) -> None:
    program, *words = name.split()
    said = CliRunner(env={"COLUMNS": "80"}).invoke(PROGRAMS[program], [*words, "--help"])

    assert said.exit_code == 0
    # arguments that may be repeated
    text = re.sub(r"(\[\w+\]|tasks|\{?paths\}?)\.\.\.", "", said.output)
    assert "..." not in text, "a sentence does not fit its line"
    assert "-----" not in said.output, "a section of the docstring"
    for parameter in COMMANDS[name].params:
        sentence = getattr(parameter, "help", None) or "no help"
        assert "".join(sentence.split()) in "".join(said.output.split()), parameter.name
