"""Hold a written set against every rule."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, ObjectKind
from rebrain_node.errors import GateRefused
from rebrain_node.steps.gate.evidence import Evidence, MRForm, read
from rebrain_node.steps.gate.rule import Rule
from rebrain_node.steps.gate.table import RULES

COMPANIONS: tuple[ObjectKind, ...] = ("PM", "SEG", "SC", "SR", "KOS")

#: What a rule may stumble over in a damaged data set: then it cannot be judged, and is broken.
_UNJUDGEABLE = (
    AttributeError, KeyError, IndexError, TypeError, ValueError, ArithmeticError, struct.error,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def gate(
    derived: DerivedSet,
    instances: Sequence[Dataset],
    companions: Sequence[ObjectKind] = COMPANIONS,
    mr_form: MRForm = "classic",
) -> None:
    """Refuse a set of which any object may not leave the node.

    Parameters
    ----------
    derived : DerivedSet
        As written, in the order in which it would be sent.
    instances : sequence of Dataset
        The source instances it was made from.
    companions : sequence of ObjectKind
        Which objects the site wants beside the MR series.
    mr_form : {"classic", "enhanced"}
        Whether the site wants a series of MR images, or one of many frames.

    Raises
    ------
    GateRefused
        At least one rule is broken; one finding for each broken rule, its code the rule's.
    """
    findings = tuple(judge(read(derived, instances, companions, mr_form), RULES))
    if findings:
        raise GateRefused(findings)


def judge(evidence: Evidence, rules: Sequence[Rule]) -> Iterator[Finding]:
    """Yield one finding for each broken rule, in the order of the rules."""
    for rule in rules:
        try:
            breaches = tuple(rule.breaches(evidence))
        except _UNJUDGEABLE as error:
            sentence = f"cannot be judged ({type(error).__name__}), so it counts as broken"
            yield Finding(code=rule.code, sentence=f"{rule.demand} This {sentence}.")
            continue
        if breaches:
            first, others = breaches[0], len(breaches) - 1
            more = f", and {others} more" if others else ""
            yield Finding(
                code=rule.code,
                sentence=f"{rule.demand} {first.where}: {first.what}{more}.",
                value=first.what,
                limit=rule.demand,
            )
