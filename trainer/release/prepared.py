"""From a run on prepared data to a bundle: its card tells the data set, not the simulation."""

import json
from dataclasses import dataclass
from pathlib import Path

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.card import Card, DataUse, Score
from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData
from trainer.release.bundle import release
from trainer.release.cards import (
    INTENDED_USE,
    LAST_STEP,
    TrainingSamples,
    finished_run,
    training_facts,
)

_SOURCES = {"ct": "CT", "ct-window": "brain-windowed 8-bit CT", "mr": "MR of another sequence"}
_ROLES = {"train": "train", "validation": "validation", "test": "external test"}
LIMITS = (
    "It learned from the subjects named here alone; what they do not show it has never seen.",
    "Its output has the contrast of its training targets, not that of a particular scanner.",
    "Slices between measured ones are drawn from an interpolation, not from data.",
)


def scores_of(evaluation: Path) -> tuple[Score, ...]:
    """Read the means of every method from the JSON of `rebrain-train evaluate`."""
    document = json.loads(evaluation.read_bytes())
    test = f"{document['dataset']['name']}, {document['protocol']}"
    return tuple(
        Score(
            test=test,
            method=method,
            figures={name: round(figure["mean"], 4) for name, figure in figures.items()},
        )
        for method, figures in document["methods"].items()
    )


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


@dataclass(frozen=True)
class Title:
    """What a release is called, and the figures that go on its card."""

    name: str
    version: str
    scores: tuple[Score, ...] = ()


def release_prepared(
    config: TrainConfig, run: Path, folder: Path, out: Path, title: Title
) -> ModelBundle:
    """Turn a finished run on the prepared data in `folder` into a bundle at `out`."""
    weights, known = finished_run(config, run, out)
    data = PreparedData.open(folder)
    slices = sum(len(data.subject(name).positions_mm) for name in data.split["train"])
    card = Card(
        name=title.name,
        version=title.version,
        summary=f"Draws a synthetic MR slice from {_SOURCES[data.source_kind]}. A "
        "Brownian-bridge network of the ReBrain family.",
        intended_use=INTENDED_USE,
        data=_uses(data),
        training=training_facts(config, TrainingSamples(data.digest, slices), known),
        scores=title.scores,
        choices=(LAST_STEP,),
        limits=LIMITS,
    )
    return release(weights, config.recipe, card, out)
