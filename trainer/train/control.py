"""Training the control branch beside the frozen bridge network.

Objective, time steps and noise are those of `trainer.train.bridge`; new is the guide, one image per
sample. The branch starts at zero, so that at step 0 the guided network gives what the unguided one
gives.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save as save_tensors
from torch import Tensor

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.control import GuidedUNet
from rebrain_node.model.unet import BridgeUNet, from_bundle
from trainer.config import ControlTraining, Training
from trainer.sample_rng import SampleRng
from trainer.train.bridge import Draws, Loss, draw_time_steps
from trainer.train.guided import GuidedSource
from trainer.train.loop import CHECKPOINT, Progress, RunOutput, Schedule, State, checkpoint, fit
from trainer.train.samples import Batch, joined
from trainer.train.workers import TrainingError

REPORT_EVERY = 25
_WARM_UP = 50
_BRANCH, _FACTS = "control.", "control.json"


class ControlFacts(BaseModel):
    """`control.json` of a finished run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bundle: str  #: digest of the bundle beside whose network the branch was trained
    target: str
    registration: Literal["none", "similarity"] = "none"  #: of the exemplars it was trained with
    steps: int
    batch: int
    seed: int
    seconds: float


def read_facts(run: Path) -> ControlFacts:
    """Read what a finished run was.

    Raises
    ------
    TrainingError
        The run has not reached its last step.
    """
    if not (run / _FACTS).is_file():
        raise TrainingError(f"{run} has no {_FACTS}: its training has not ended")
    return ControlFacts.model_validate_json((run / _FACTS).read_bytes())


def write_facts(
    run: Path, bundle: ModelBundle, control: ControlTraining, state: State[GuidedUNet]
) -> None:
    """Write `run/control.json`: the run has ended."""
    facts = ControlFacts(
        bundle=bundle.digest,
        target=control.target,
        registration=control.registration,
        steps=state.step,
        batch=control.batch,
        seed=control.seed,
        seconds=round(state.seconds, 1),
    )
    (run / _FACTS).write_text(facts.model_dump_json(indent=1) + "\n")


def training_of(bridge: Training, control: ControlTraining) -> Training:
    """Return the parameters of the bridge with those of the branch in their place."""
    own = control.model_dump(
        include={"seed", "steps", "batch", "learning_rate", "checkpoint_every"}
    )
    return bridge.model_copy(update=own)


def fresh_state(
    bundle: ModelBundle, training: Training, control: ControlTraining, *inputs: str
) -> State[GuidedUNet]:
    """Return an untrained branch beside the frozen network of `bundle`.

    Parameters
    ----------
    *inputs : str
        Digests of what the run learns from; a resume must not change them.

    Raises
    ------
    TypeError
        The bundle's network is not one that can be guided.
    """
    backbone = from_bundle(bundle)
    if not isinstance(backbone, BridgeUNet):
        raise TypeError(f"a network of the objective {bundle.recipe.objective} takes no guide")
    torch.manual_seed(control.seed)
    network = GuidedUNet(backbone)
    # a run from before there was this field must go on
    absent = {"registration"} if control.registration == "none" else None
    own = control.model_dump_json(exclude=absent)
    relevant = [training.model_dump_json(), own, bundle.digest, *inputs]
    digest = hashlib.sha256("".join(relevant).encode()).hexdigest()
    return State.fresh(network, training, digest)


def backbone_bytes(state: State[GuidedUNet]) -> bytes:
    """Return the frozen network as it stands; the same bytes before and after training."""
    return save_tensors(dict(state.network.backbone.state_dict()))


def branch_of(run: Path) -> dict[str, Tensor]:
    """Return the weights of the branch that a run trained: their running mean."""
    mean: Mapping[str, Tensor] = checkpoint(run / CHECKPOINT)["mean"]
    return {
        name.removeprefix(_BRANCH): value
        for name, value in mean.items()
        if name.startswith(_BRANCH)
    }


def train(
    training: Training,
    source: GuidedSource,
    state: State[GuidedUNet],
    out: Path,
    report: Progress,
) -> None:
    """Train the branch to `training.steps`, from the step of `state` on; writes as `fit` does.

    Raises
    ------
    RuntimeError
        The frozen network changed, which must not happen; no checkpoint is written then.
    """
    before, frame = backbone_bytes(state), source.recipe.grid.shape
    objective = Loss(state.network, training)

    def draw(step: int) -> tuple[Batch, Tensor, Draws]:
        rng = [SampleRng(training.seed, step, sample) for sample in range(training.batch)]
        drawn = [source.draw(d) for d in rng]
        batch, guide = joined([b for b, _ in drawn]), torch.cat([g for _, g in drawn])
        return batch, guide, draw_time_steps(training, frame, rng)

    def loss_of(drawn: tuple[Batch, Tensor, Draws]) -> Tensor:
        batch, guide, draws = drawn
        loss: Tensor = objective(batch, draws, batch.weight.sum().clamp(min=1), guide)
        return loss

    def check(step: int) -> None:
        if backbone_bytes(state) != before:
            raise RuntimeError(f"the frozen network changed by step {step}")

    schedule = Schedule(training, _WARM_UP, REPORT_EVERY)
    fit(state, draw, loss_of, schedule, RunOutput(out, report, check))
