"""The last step before a result may be sent: an independent check of the written bytes.

The gate shares nothing with ``write`` but the terms of ``domain.marks``. It parses each object
anew and evaluates the rules of the topic modules, one decorated function each; docs/gate.md lists
them. A violated rule is a defect of this software, so nothing is sent and nothing is corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pydicom.dataset import Dataset

from rebrain_node.domain.job import DerivedSet, ObjectKind
from rebrain_node.domain.volume import FULL_STORED_RANGE, StoredRange
from rebrain_node.errors import GateError
from rebrain_node.steps.gate import (
    companions,
    geometry,
    identity,
    marking,
    overlay,
    pixels,
    provenance,
    references,
)
from rebrain_node.steps.gate.context import MRForm, read
from rebrain_node.steps.gate.rules import evaluate, rules_of

__all__ = ["COMPANIONS", "RULES", "TOPICS", "gate"]

COMPANIONS: Final[tuple[ObjectKind, ...]] = ("PM", "SEG", "SC", "PR", "SR", "KOS")

#: modules of rules, in the order in which the rules are evaluated and reported
TOPICS: Final = (
    identity, marking, provenance, geometry, pixels, overlay, references, companions,
)  # fmt: skip
RULES: Final = tuple(rule for topic in TOPICS for rule in rules_of(topic))


def gate(
    derived: DerivedSet,
    instances: Sequence[Dataset],
    companions: Sequence[ObjectKind] = COMPANIONS,
    mr_form: MRForm = "classic",
    stored_range: StoredRange = FULL_STORED_RANGE,
    watermark: bool = False,
) -> None:
    """Refuse a set that contains an object which violates a rule.

    Parameters
    ----------
    derived : DerivedSet
        As written, in the order in which it would be sent.
    instances : sequence of Dataset
        The source instances it was made from.
    companions : sequence of ObjectKind
        Which objects the site requests beside the MR series.
    mr_form : {"classic", "enhanced"}
        Whether the site requests a series of MR images or one multi-frame object.
    stored_range : StoredRange
        Stored values of intensity 0 and 1, as the recipe says.
    watermark : bool
        Whether the site requests the mark in the pixels.

    Raises
    ------
    GateError
        At least one rule is violated; one finding for each violated rule, its code the rule's.
    """
    context = read(derived, instances, companions, mr_form, stored_range)
    findings = tuple(evaluate(replace(context, watermark=watermark), RULES))
    if findings:
        raise GateError(findings)
