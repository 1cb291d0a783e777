"""The closed list of events and the page that explains it say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import SeriesState
from rebrain_node.store.series import TRANSITIONS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "audit-events.md").read_text("utf-8")


def test_every_audit_event_is_documented_and_no_other() -> None:
    documented = re.findall(r"^\| `([a-z-]+\.[a-z-]+)` \|", PAGE, re.MULTILINE)
    assert documented == [str(event) for event in Event]


def test_every_audit_event_is_written_somewhere_in_the_node() -> None:
    package = Path(__file__).resolve().parents[3] / "rebrain_node"
    text = "".join(
        path.read_text("utf-8")
        for path in package.rglob("*.py")
        if path != package / "domain" / "audit.py"
    )
    unwritten = [e for e in Event if f"Event.{e.name}" not in text and f'"{e}"' not in text]
    assert unwritten == []


def test_the_states_of_a_series_are_documented_with_their_ways() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| [^|]+ \|([^|]*)\|$", PAGE, re.MULTILINE)
    documented = {
        state: {word for word in get_args(SeriesState) if re.search(rf"\b{word}\b", ways)}
        for state, ways in rows
        if state in get_args(SeriesState)
    }
    assert documented == {state: set(ways) for state, ways in TRANSITIONS.items()}
