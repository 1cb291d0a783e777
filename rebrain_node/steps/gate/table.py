"""All rules of the gate, in the order in which they are applied and reported."""

from __future__ import annotations

from typing import Final

from rebrain_node.steps.gate import (
    acquisition,
    companions,
    doubt,
    geometry,
    identifiers,
    identity,
    marking,
    overlay,
    pixels,
    provenance,
    report,
    retrieval,
)
from rebrain_node.steps.gate.rule import Rule

RULES: Final[tuple[Rule, ...]] = (
    *identifiers.RULES,
    *identity.RULES,
    *marking.RULES,
    *acquisition.RULES,
    *provenance.RULES,
    *retrieval.RULES,
    *geometry.RULES,
    *pixels.RULES,
    *overlay.RULES,
    *companions.RULES,
    *doubt.RULES,
    *report.RULES,
)
