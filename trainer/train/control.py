"""Training the control branch, top to bottom: the bridge stands still, the branch learns.

The objective, the places on the bridge and the noise are those of `trainer.train.bridge`; what is
new is the guide. The branch begins at zero, so that step 0 draws what the bare bridge draws.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.control import GuidedUNet
from rebrain_node.model.unet import BridgeUNet, from_bundle
from trainer.config import ControlTraining, Training
from trainer.sample_rng import SampleRng
from trainer.train.bridge import Progress
from trainer.train.guided import GuidedSource
from trainer.train.losses import Loss, draw_places
from trainer.train.samples import Batch
from trainer.train.sources import joined
from trainer.train.state import State, checkpoint, rate_at

REPORT_EVERY = 25
_WARM_UP = 50
_BRANCH, _FACTS = "control.", "control.json"


class ControlFacts(BaseModel):
    """`control.json` of a finished run.

    Attributes
    ----------
    bundle : str
        Digest of the bundle beside whose network the branch was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    bundle: str
    target: str
    steps: int
    batch: int
    seed: int
    seconds: float


def read_facts(run: Path) -> ControlFacts:
    """Read what a finished run was.

    Raises
    ------
    ValueError
        The run has not reached its last step.
    """
    if not (run / _FACTS).is_file():
        raise ValueError(f"{run} has no {_FACTS}: its training has not ended")
    return ControlFacts.model_validate_json((run / _FACTS).read_bytes())


def write_facts(
    run: Path, bundle: ModelBundle, control: ControlTraining, state: State[GuidedUNet]
) -> None:
    """Write `run/control.json`: the run has ended."""
    facts = ControlFacts(
        bundle=bundle.digest,
        target=control.target,
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
    relevant = [training.model_dump_json(), control.model_dump_json(), bundle.digest, *inputs]
    digest = hashlib.sha256("".join(relevant).encode()).hexdigest()
    return State.fresh(network, training, digest)


def backbone_bytes(state: State[GuidedUNet]) -> bytes:
    """Return the frozen network as it stands; the same bytes before and after training."""
    return save_tensors(dict(state.network.backbone.state_dict()))


def branch_of(run: Path) -> dict[str, Tensor]:
    """Return the weights of the branch that a run trained: their running mean."""
    mean: Mapping[str, Tensor] = checkpoint(run / "checkpoint.pt")["mean"]
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
    """Train to `training.steps`, from wherever `state` is.

    Writes `out/curve.csv` (step, seconds, loss, learning rate) and `out/checkpoint.pt`.

    Raises
    ------
    RuntimeError
        The frozen network changed, which must not happen; nothing is written then.
    """
    before, frame = backbone_bytes(state), source.recipe.grid.shape
    loss_of = Loss(state.network, training)
    losses: list[float] = []
    begun = time.monotonic() - state.seconds
    state.network.train()
    while state.step < training.steps:
        rate = rate_at(state.step, training.steps, training.learning_rate, _WARM_UP)
        state.set_rate(rate)
        rng = [SampleRng(training.seed, state.step, sample) for sample in range(training.batch)]
        batch, guide = _drawn(source, rng)
        draws = draw_places(training, frame, rng)
        loss = loss_of(batch, draws, batch.weight.sum().clamp(min=1), guide)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.network.control.parameters(), training.clip)
        state.optimiser.step()
        state.step += 1
        state.update_mean(training.ema)

        losses.append(loss.item())
        state.seconds = time.monotonic() - begun
        last = state.step == training.steps
        if state.step % REPORT_EVERY == 0 or last:
            mean_loss = sum(losses) / len(losses)
            losses.clear()
            state.note(out, mean_loss, rate)
            report(state.step, mean_loss)
        if state.step % training.checkpoint_every == 0 or last:
            if backbone_bytes(state) != before:
                raise RuntimeError(f"the frozen network changed by step {state.step}")
            state.save(out / "checkpoint.pt")


def _drawn(source: GuidedSource, rng: list[SampleRng]) -> tuple[Batch, Tensor]:
    drawn = [source.draw(d) for d in rng]
    return joined([batch for batch, _ in drawn]), torch.cat([guide for _, guide in drawn])
