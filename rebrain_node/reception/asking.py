"""When the answers of a source are enough, and what they say of a series.

Values in, values out. A source may itself be in the middle of receiving, so a number is taken
when two answers agree; and it may be down, so the wait has an end. The wait is counted on the
clock that runs only while the receiver listens: nothing can arrive while it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rebrain_node.domain.completeness import CompletenessVerdict, Inquiry
from rebrain_node.domain.findings import Finding, Severity
from rebrain_node.domain.ledger import SeriesRecord

#: answers in a row that must agree
AGREEING: Final = 2
#: questions in a row without an answer after which a site that does not require one goes on
FAILURES: Final = 3


@dataclass(frozen=True, kw_only=True)
class AskingRules:
    """How long a source is asked; of the settings."""

    required: bool = False  #: whether a series must be verified
    pause_s: float = 10.0
    wait_s: float = 600.0


def is_due(inquiry: Inquiry, now_s: float, rules: AskingRules) -> bool:
    """Whether the source is to be asked (again) now."""
    if inquiry.source is None:
        return False
    return inquiry.asked_s is None or now_s - inquiry.asked_s >= rules.pause_s


def judge_answers(inquiry: Inquiry, now_s: float, rules: AskingRules) -> CompletenessVerdict | None:
    """Return the verdict on a series; None while it is worth asking again."""
    if inquiry.source is None:
        return _unverified(
            f"no source is set for the sender {inquiry.calling_ae_title}; set query of this peer "
            "(receiver.peers) to have it asked"
        )
    over = now_s - inquiry.began_s >= rules.wait_s
    if inquiry.failure is not None or inquiry.count is None:
        enough = inquiry.failed >= FAILURES and not rules.required
        return _unverified(_not_asked(inquiry)) if over or enough else None
    agreed = inquiry.equal >= AGREEING
    if inquiry.count > inquiry.received or inquiry.missing:
        return _incomplete(inquiry) if over else None
    if not agreed:
        return _unverified(_unsteady(inquiry, inquiry.source)) if over else None
    if inquiry.count == inquiry.received:
        return _verified(inquiry, inquiry.source)
    return _unverified(_fewer(inquiry, inquiry.source)) if over or not rules.required else None


def judge_completeness(
    record: SeriesRecord, *, required: bool, severity: Severity
) -> Finding | None:
    """Find a series of which not all arrived, or that is not verified although it must be.

    Parameters
    ----------
    required : bool
        Whether the site takes verified series alone.
    severity : Severity
        What the limits say of a series of which not all arrived.
    """
    reason = record.completeness_reason or "its source was not asked"
    if record.completeness == "INCOMPLETE":
        return Finding(
            code="SOURCE-HAS-MORE", sentence=f"not all of the series arrived: {reason}",
            severity=severity, value="INCOMPLETE", limit="VERIFIED",
        )  # fmt: skip
    if record.completeness == "UNVERIFIED" and required:
        return Finding(
            code="NOT-VERIFIED",
            sentence=(
                f"the site takes only series whose source confirms their number of instances "
                f"(completeness.verify): {reason}; then run `rebrain-node queue retry "
                f"{record.series_instance_uid}`"
            ),
            value="UNVERIFIED", limit="VERIFIED",
        )  # fmt: skip
    return None


def _verified(inquiry: Inquiry, source: str) -> CompletenessVerdict:
    how = "by number" if inquiry.missing is None else "each by its UID"
    return CompletenessVerdict(
        completeness="VERIFIED",
        reason=f"source {source} has {inquiry.count} instances and all arrived, compared {how}",
    )


def _incomplete(inquiry: Inquiry) -> CompletenessVerdict:
    missing = inquiry.missing or (inquiry.count or 0) - inquiry.received
    return CompletenessVerdict(
        completeness="INCOMPLETE",
        reason=(
            f"source {inquiry.source} has {inquiry.count} instances, {inquiry.received} arrived "
            f"and {missing} of the source's did not; send the series again"
        ),
    )


def _unverified(reason: str) -> CompletenessVerdict:
    return CompletenessVerdict(completeness="UNVERIFIED", reason=reason)


def _not_asked(inquiry: Inquiry) -> str:
    if inquiry.failure is None:
        return f"source {inquiry.source} gave no answer in {inquiry.rounds} questions"
    return (
        f"source {inquiry.source} could not be asked in {inquiry.rounds} tries: {inquiry.failure}"
    )


def _unsteady(inquiry: Inquiry, source: str) -> str:
    return (
        f"the answers of source {source} did not agree: the newest of {inquiry.rounds} says "
        f"{inquiry.count} instances"
    )


def _fewer(inquiry: Inquiry, source: str) -> str:
    if inquiry.count == 0:
        return f"source {source} does not have the series; correct query of this peer"
    return (
        f"source {source} has {inquiry.count} instances and {inquiry.received} arrived: some were "
        "deleted there, or came from elsewhere"
    )
