"""docs/refusals.md holds every code that a series can be refused or flagged with."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from rebrain_node.domain.limits import POLICY_CODES
from rebrain_node.limits_file import shipped_limits

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/refusals.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `([A-Z-]+)` \|.*$", PAGE, re.MULTILINE)}
#: codes of what must not leave the node are explained in docs/gate.md
_OF_THE_GATE = ("GATE-", "MARK-")


def codes_in_source():
    """Constant first words of findings: ``Finding(code="X")`` and calls that build one."""
    found = set()
    for path in ROOT.glob("rebrain_node/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Finding":
                continue
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    found.add(keyword.value.value)
    return {code for code in found if not code.startswith(_OF_THE_GATE)}


def test_every_code_in_the_source_has_its_row():
    codes = codes_in_source()
    assert len(codes) > 20
    assert sorted(codes - ROWS.keys()) == []


def test_the_policy_on_the_page_is_the_policy_that_ships():
    limits = shipped_limits()
    for code, row in ROWS.items():
        expected = f"site ({limits.severity(code)})" if code in POLICY_CODES else "refuse"
        assert f"| {expected} |" in row, code


def test_every_limit_named_on_the_page_exists():
    limits = shipped_limits()
    for part, key in re.findall(
        r"`(series|geometry|hounsfield|head|artefacts|domain)\.(\w+)`", PAGE
    ):
        assert hasattr(getattr(limits, part), key), f"{part}.{key}"


def test_every_row_says_what_it_means_and_what_helps():
    for code, row in ROWS.items():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6, code
        assert all(cells), code
