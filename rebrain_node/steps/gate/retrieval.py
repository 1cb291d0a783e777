"""Rules: a slice guided by a slice of another person says by which, and may be so guided."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from rebrain_node.domain import marks
from rebrain_node.domain.marks import PrivateElement
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.provenance import private
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: what a retrieved slice must say in numbers
NUMBERS: Final = (marks.SIMILARITY, marks.TAU, marks.POSITION_DIFFERENCE)
#: a keyed hash and nothing else: no name, no path, no number of a person
KEYED_HASH: Final = re.compile(r"[0-9a-f]{16,64}")


def _retrieved(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _retrieved_fault)


def _retrieved_fault(written: Written) -> str | None:
    exemplar = private(written.dataset, marks.EXEMPLAR)
    if not _is_retrieved(written):
        return None if exemplar is None else "it names an exemplar that did not guide it"
    if exemplar is None:
        return "it is retrieved, but names no exemplar"
    if KEYED_HASH.fullmatch(str(exemplar)) is None:
        return "the name of its exemplar is no keyed hash"
    missing = [e.name for e in NUMBERS if not _is_number(private(written.dataset, e))]
    return f"it is retrieved, but lacks in numbers: {', '.join(missing)}" if missing else None


def _similarity(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _similarity_fault)


def _similarity_fault(written: Written) -> str | None:
    similarity, tau = (_number(written, e) for e in (marks.SIMILARITY, marks.TAU))
    if similarity is None or tau is None:
        return None  # GATE-RETRIEVED says so
    if not -1.0 <= similarity <= 1.0:
        return f"the similarity of its exemplar is {similarity:.3f}, which is no cosine"
    if _is_retrieved(written) and similarity < tau:
        return f"the similarity of its exemplar is {similarity:.3f}, below the threshold {tau:.3f}"
    return None


def _exemplar_in_words(evidence: Evidence) -> Iterator[Breach]:
    """Derivation Description names the exemplar of a retrieved slice, and of no other."""
    return each(evidence.mr, _exemplar_in_words_fault)


def _exemplar_in_words_fault(written: Written) -> str | None:
    said = str(written.get("DerivationDescription") or "")
    exemplar = private(written.dataset, marks.EXEMPLAR)
    if exemplar is not None:
        return None if str(exemplar) in said else "Derivation Description lacks its exemplar"
    return "Derivation Description tells of an exemplar" if "exemplar" in said else None


def _is_retrieved(written: Written) -> bool:
    kind = private(written.dataset, marks.POSITION_KIND)
    return bool(kind == marks.POSITION_KINDS["retrieved"])


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _number(written: Written, element: PrivateElement) -> float | None:
    value = private(written.dataset, element)
    return float(value) if _is_number(value) else None


RULES: Final = (
    Rule(
        "GATE-RETRIEVED",
        "A slice guided by an exemplar names it by a keyed hash, with similarity, threshold and "
        "place; no other slice names one.",
        _retrieved,
    ),
    Rule("GATE-SIMILARITY", "No exemplar is less similar than its threshold.", _similarity),
    Rule(
        "GATE-EXEMPLAR-IN-WORDS",
        "Derivation Description names the exemplar where one guided the slice, else none.",
        _exemplar_in_words,
    ),
)
