"""What the selection said of each series of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rebrain_node.domain.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One series of the study, its judgement and why."""

    study_instance_uid: str
    series_instance_uid: str
    series_description: str = field(repr=False)  #: free text of the source: may name a patient
    instances: int  #: number of instances
    decision: Literal["accepted", "refused"]
    findings: tuple[Finding, ...]  #: all of them, the deciding one first
    explanation: tuple[str, ...]  #: what was seen and how it ranked; no free text of the source

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the findings, the deciding one first, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))

    @property
    def sentence(self) -> str:
        """Why, in one sentence: that of the deciding finding, or that nothing speaks against it."""
        if self.findings:
            return self.findings[0].sentence
        return "the series is what the model was made for"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """All series given, in the order of their numbers; at most one accepted in each study."""

    candidates: tuple[Candidate, ...]

    @property
    def accepted(self) -> tuple[Candidate, ...]:
        """The series to be synthesised."""
        return tuple(c for c in self.candidates if c.decision == "accepted")
