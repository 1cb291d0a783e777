"""The closed list of events is in use, and the page explains the states of a series."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import SeriesState
from rebrain_node.store.series import TRANSITIONS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "audit-events.md").read_text("utf-8")


def test_every_audit_event_is_recorded_somewhere_in_the_node() -> None:
    nodes = (
        node
        for path in (ROOT / "rebrain_node").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )
    named = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"Event", "AuditEvent"}
    }
    assert [event.name for event in Event if event.name not in named] == []


def test_the_states_of_a_series_are_documented_with_their_ways() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| [^|]+ \|([^|]*)\|$", PAGE, re.MULTILINE)
    documented = {
        state: {word for word in get_args(SeriesState) if re.search(rf"\b{word}\b", ways)}
        for state, ways in rows
        if state in get_args(SeriesState)
    }
    assert documented == {state: set(ways) for state, ways in TRANSITIONS.items()}
