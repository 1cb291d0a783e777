"""Assembling the card of a release from what was trained, drawn and measured."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rebrain_node.model.card import Card, DataUse, Score, TrainingFacts
from trainer.config import TrainConfig
from trainer.heads import Head
from trainer.train.state import read_checkpoint

SUMMARY = (
    "Draws a synthetic T1-like MR slice from thick-slice head CT. A Brownian-bridge network of "
    "the ReBrain family, trained on simulated CT alone; it never saw a patient's CT."
)
INTENDED_USE = (
    "Research and demonstration. Not a medical device, not for diagnosis: a synthetic slice can "
    "show what is not there and hide what is."
)
LIMITS = (
    (
        "It does not predict the T1 appearance of haemorrhage, which depends on its age; blood is "
        "painted grey-like."
    ),
    "Cortex is blurred, and grey and white matter follow the noise of the CT where noise is high.",
    (
        "It learned from 19 heads, mostly elderly and at 2 mm. The only disease it saw was painted "
        "into them; children, implants, craniotomy and contrast agent were never seen."
    ),
    "One canonical T1 contrast, not that of a particular scanner or sequence.",
    "Below the skull base and in the face truth was scarce; the drawing there is decoration.",
    "Slices between measured ones are drawn from an interpolation, not from data.",
    (
        "Appearance ranges of the simulated CT (calibration, noise) were set by eye from slices of "
        "real head CT; the weights never saw those."
    ),
    (
        "The real pairs of the external test are 8-bit, windowed and stretched, seven patients: no "
        "figure in HU or millimetres. Nothing here compares with the paper's SynthRAD2023 or BraTS "
        "tables."
    ),
)
LAST_STEP = (
    "The running mean of the weights at the last step is released; no step was selected. "
    "Weights are rounded to half precision after scoring."
)
EXTERNAL = DataUse(
    source="CT and T1 of seven patients, Saadia et al., Data in Brief 61, 2025",
    licence="CC BY-NC; test only, no weight learned from it",
    subjects=("7 patients",),
    role="external test",
)


@dataclass(frozen=True)
class Run:
    """What is known of a training run when it is released."""

    steps: int
    seconds: float
    parameters: int
    hardware: str


def data_uses(heads: list[Head]) -> tuple[DataUse, ...]:
    """Group heads by source licence and role."""
    grouped: dict[tuple[str, str], list[Head]] = {}
    for head in heads:
        grouped.setdefault((head.licence, head.role), []).append(head)
    uses = [
        DataUse(
            source="whole-head T1 at 1 mm" if group[0].sharp else "whole-head T1 and FLAIR at 2 mm",
            licence=licence,
            subjects=tuple(head.name for head in group),
            role=group[0].role,
        )
        for (licence, _), group in grouped.items()
    ]
    return (*sorted(uses, key=lambda use: use.role), EXTERNAL)


@dataclass(frozen=True)
class TrainingSamples:
    """The samples of a training: the digest that names their every byte, and their number."""

    digest: str
    samples: int


def training_facts(config: TrainConfig, samples: TrainingSamples, run: Run) -> TrainingFacts:
    """Describe how the weights came to be."""
    return TrainingFacts(
        objective=config.train.objective,
        steps=run.steps,
        batch=config.train.batch,
        hours=round(run.seconds / 3600, 2),
        hardware=run.hardware,
        parameters=run.parameters,
        pool_digest=samples.digest,
        pool_samples=samples.samples,
        seed=config.train.seed,
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


def finished_run(config: TrainConfig, run: Path, out: Path) -> tuple[dict[str, Tensor], Run]:
    """Return the weights of a finished run that may be released at `out`, and what is known of it.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ValueError
        The run has not reached the last step.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; a released bundle is never overwritten")
    content = read_checkpoint(run / "checkpoint.pt", config.training_digest)
    if content["step"] != config.train.steps:
        raise ValueError(f"{run} is at step {content['step']} of {config.train.steps}: train on")
    weights: dict[str, Tensor] = content["mean"]
    return weights, Run(
        steps=content["step"],
        seconds=content["seconds"],
        parameters=sum(value.numel() for value in weights.values()),
        hardware=f"CPU ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores",
    )
