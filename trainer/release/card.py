"""The model card of a release: data, training, scores and limits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rebrain_node.model.card import Card, DataUse, Score, TrainingFacts
from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData
from trainer.heads import Head
from trainer.release.requirements import ReleaseError

SUMMARY = (
    "Synthesises T1-like MR slices from thick-slice head CT. A Brownian-bridge network of the "
    "ReBrain family, trained on simulated CT only, not on CT of patients."
)
INTENDED_USE = (
    "Research and demonstration. Not a medical device, not for diagnosis: a synthetic slice can "
    "show structures that do not exist and hide structures that do."
)
_BETWEEN = "Slices between measured ones are"
UNGUIDED_LIMIT = f"{_BETWEEN} synthesised from an interpolation, not from measured data."
GUIDED_LIMIT = (
    f"{_BETWEEN} synthesised from an interpolation and guided by a slice of another subject if one "
    "is similar enough; neither is data of the patient."
)
LIMITS = (
    (
        "It does not predict the T1 appearance of haemorrhage, which depends on its age; blood is "
        "synthesised as bright as grey matter."
    ),
    "The cortex is blurred; at high noise of the CT, so is the border of grey and white matter.",
    (
        "It was trained on 22 heads: 10 label maps, from which CT and T1 were drawn, 3 T1 at 1 mm "
        "and 9 at 2 mm of elderly subjects. All pathology was simulated; the data contain no "
        "children, implants, craniotomy or contrast agent."
    ),
    "One canonical T1 contrast, not that of a particular scanner or sequence.",
    "Below the skull base and in the face little ground truth exists; do not rely on it there.",
    UNGUIDED_LIMIT,
    (
        "HU calibration and noise of the simulated CT were set by visual comparison with real head "
        "CT, which was not used for training."
    ),
    (
        "The external test has seven patients; its images are 8-bit, windowed and resized, so that "
        "no score is in HU or millimetres. No score is comparable with the tables of the paper on "
        "SynthRAD2023 or BraTS."
    ),
)
LAST_STEP = (
    "The moving average of the weights at the last step is released; no step was selected. "
    "Weights are rounded to half precision after scoring."
)
#: name of our method in every evaluation
OURS: Final = "rebrain"
_SOURCES = {"ct": "CT", "ct-window": "brain-windowed 8-bit CT", "mr": "MR of another sequence"}
_ROLES = {"train": "train", "validation": "validation", "test": "external test"}
PREPARED_LIMITS = (
    "It was trained on the subjects named here only, and knows only what their images show.",
    "Its output has the contrast of its training targets, not that of a particular scanner.",
    UNGUIDED_LIMIT,
)
EXTERNAL = DataUse(
    source="CT and T1 of seven patients, Saadia et al., Data in Brief 61, 2025",
    licence="CC BY-NC; for the test only, not for training",
    subjects=("7 patients",),
    role="external test",
)


@dataclass(frozen=True)
class RunFacts:
    """Facts of a finished training run."""

    steps: int
    seconds: float
    parameters: int
    hardware: str
    start: str | None = None  #: SHA-256 of the weights that it began with; None: random


def _source_of(head: Head) -> str:
    if head.kind == "labels":
        return "whole-head label maps at 1 mm, CT and T1 drawn from them"
    return "whole-head T1 at 1 mm" if head.sharp else "whole-head T1 and FLAIR at 2 mm"


def data_uses(heads: list[Head]) -> tuple[DataUse, ...]:
    """Group heads by source licence and role."""
    grouped: dict[tuple[str, str], list[Head]] = {}
    for head in heads:
        grouped.setdefault((head.licence, head.role), []).append(head)
    uses = [
        DataUse(
            source=_source_of(group[0]),
            licence=licence,
            subjects=tuple(head.name for head in group),
            role=group[0].role,
        )
        for (licence, _), group in grouped.items()
    ]
    return (*sorted(uses, key=lambda use: use.role), EXTERNAL)


def training_facts(
    config: TrainConfig, run: RunFacts, data_digest: str, samples: int
) -> TrainingFacts:
    """Return the facts of the training for the card."""
    return TrainingFacts(
        objective=config.train.objective,
        steps=run.steps,
        batch=config.train.batch,
        hours=round(run.seconds / 3600, 2),
        hardware=run.hardware,
        parameters=run.parameters,
        pool_digest=data_digest,
        pool_samples=samples,
        seed=config.train.seed,
        start=run.start,
    )


def make_card(
    version: str,
    data: tuple[DataUse, ...],
    training: TrainingFacts,
    scores: tuple[Score, ...],
    choices: tuple[str, ...],
) -> Card:
    """Make the card of the demonstration bundle."""
    return Card(
        name="rebrain-demo",
        version=version,
        summary=SUMMARY,
        intended_use=INTENDED_USE,
        data=data,
        training=training,
        scores=scores,
        choices=choices,
        limits=LIMITS,
    )


@dataclass(frozen=True)
class ReleaseEvaluation:
    """What an evaluation says of a network that is to be released."""

    digest: str  #: of the bundle or checkpoint that was evaluated
    split: str  #: whose subjects were scored
    scores: tuple[Score, ...]  #: means of every method

    @classmethod
    def read(cls, file: Path) -> "ReleaseEvaluation":
        """Read the JSON of `rebrain-train evaluate`.

        Raises
        ------
        ReleaseError
            It is none.
        """
        try:
            document = json.loads(file.read_bytes())
            test = f"{document['dataset']['name']}, {document['protocol']}"
            scores = tuple(
                Score(
                    test=test,
                    method=method,
                    figures={name: round(figure["mean"], 4) for name, figure in figures.items()},
                )
                for method, figures in document["methods"].items()
            )
            return cls(document["bundle"]["digest"], document["dataset"]["split"], scores)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"{file} is no evaluation.json of `rebrain-train evaluate`: {error}"
            ) from error


@dataclass(frozen=True)
class Title:
    """Name and version of a release, what shows its worth, and why it is released otherwise."""

    name: str
    version: str
    evaluation: ReleaseEvaluation
    override: str | None = None


def _uses(data: PreparedData) -> tuple[DataUse, ...]:
    return tuple(
        DataUse.model_validate(
            {
                "source": data.origin,
                "licence": data.licence,
                "subjects": names,
                "role": _ROLES[role],
            }
        )
        for role, names in data.split.items()
        if names
    )


def prepared_card(
    data: PreparedData, training: TrainingFacts, title: Title, excuse: tuple[str, ...]
) -> Card:
    """Make the card of a bundle that was trained on a prepared data set."""
    return Card(
        name=title.name,
        version=title.version,
        summary=f"Synthesises MR slices from {_SOURCES[data.source_kind]}. A "
        "Brownian-bridge network of the ReBrain family.",
        intended_use=INTENDED_USE,
        data=_uses(data),
        training=training,
        scores=title.evaluation.scores,
        choices=(LAST_STEP, *excuse),
        limits=PREPARED_LIMITS,
    )


def guided_card(card: Card, version: str, choice: str) -> Card:
    """Return the card of a bundle to which guidance is added."""
    limits = (GUIDED_LIMIT if limit.startswith(_BETWEEN) else limit for limit in card.limits)
    return card.model_copy(
        update={"version": version, "choices": (*card.choices, choice), "limits": tuple(limits)}
    )


def card_files(card: Card) -> dict[str, bytes]:
    """Return the two files of a card: for programs and for readers."""
    return {
        "card.json": (card.model_dump_json(indent=2) + "\n").encode(),
        "CARD.md": card.to_markdown().encode(),
    }
