"""The model card: training data, scores, intended use and limits of a bundle."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataUse(_Frozen):
    """One set of subjects, its licence and its single role."""

    source: str
    licence: str
    subjects: tuple[str, ...]
    role: Literal["train", "validation", "demonstration", "external test"]


class TrainingFacts(_Frozen):
    """How the weights were trained."""

    objective: str
    steps: int = Field(ge=0)
    batch: int = Field(gt=0)
    hours: float = Field(ge=0)
    hardware: str
    parameters: int = Field(gt=0)
    pool_digest: str
    pool_samples: int = Field(gt=0)
    seed: int
    start: str | None = None  #: SHA-256 of the weights that it began with; None: random


class Score(_Frozen):
    """One method on one test: figures by name, each averaged over subjects."""

    test: str
    method: str
    figures: dict[str, float]


class Card(_Frozen):
    """The card of one bundle; `to_markdown` is the form for readers.

    Attributes
    ----------
    choices : tuple of str
        Decisions made from the scores, each with the reason.
    limits : tuple of str
        What the network cannot do; the node shows it with every description of the model.
    """

    name: str
    version: str
    summary: str
    intended_use: str
    data: tuple[DataUse, ...]
    training: TrainingFacts
    scores: tuple[Score, ...]
    choices: tuple[str, ...]
    limits: tuple[str, ...]

    def to_markdown(self) -> str:
        """Render the card as `CARD.md`."""
        facts = self.training.model_dump(exclude_none=True)
        parts = [
            f"# {self.name} {self.version}\n\n{self.summary}\n\n{self.intended_use}",
            _section("Limits", [f"- {limit}" for limit in self.limits]),
            _section("Data", [_data_line(use) for use in self.data]),
            _section("Training", [f"- {name}: {value}" for name, value in facts.items()]),
            _section("Choices", [f"- {choice}" for choice in self.choices]),
            *(
                _score_table(test, self.scores)
                for test in dict.fromkeys(s.test for s in self.scores)
            ),
        ]
        return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}\n", *lines])


def _data_line(use: DataUse) -> str:
    return f"- {use.role}: {use.source} ({', '.join(use.subjects)}). Licence: {use.licence}"


def _score_table(test: str, scores: tuple[Score, ...]) -> str:
    rows = [score for score in scores if score.test == test]
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [
        "| method | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for row in rows:
        cells = [f"{row.figures[n]:.3f}" if n in row.figures else "" for n in names]
        lines.append(f"| {row.method} | " + " | ".join(cells) + " |")
    return _section(f"Scores: {test}", lines)
