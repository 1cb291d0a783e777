"""Training the bridge network: its samples, its loss, and the run of both through the loop.

Every draw is seeded by run, step and number of the sample, so that processes which share a batch
draw what one process would.
"""

from pathlib import Path

import torch
from torch import Tensor

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.unet import Network, network_of
from trainer.config import TrainConfig
from trainer.sample_rng import SampleRng
from trainer.train.loop import Progress, RunOutput, Schedule, fit
from trainer.train.losses import Draws, Loss, draw_time_steps
from trainer.train.samples import Batch
from trainer.train.sources import Source, draw_batch, moved
from trainer.train.state import State, checkpoint
from trainer.train.workers import ALONE_ON_CPU, Workers

REPORT_EVERY = 50
_WARM_UP = 100


def fresh_state(config: TrainConfig, device: torch.device) -> State[Network]:
    """Return an untrained state, seeded, on `device`."""
    torch.manual_seed(config.train.seed)
    network = network_of(config.recipe)
    # torch's stub of Module.to lacks memory_format beside a device
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State.fresh(network, config.train, config.training_digest)


def open_run(run: Path) -> tuple[Recipe, Network]:
    """Return the recipe of a run and the running mean of its weights, ready for evaluation."""
    recipe = Recipe.from_json((run / "recipe.json").read_bytes())
    network = network_of(recipe)
    network.load_state_dict(checkpoint(run / "checkpoint.pt")["mean"])
    return recipe, network.eval()


def train(
    config: TrainConfig,
    source: Source,
    state: State[Network],
    out: Path,
    report: Progress,
    workers: Workers = ALONE_ON_CPU,
) -> None:
    """Train the bridge to `config.train.steps`, from the step of `state` on.

    The first process writes `out/recipe.json` and what `trainer.train.loop.fit` writes.
    """
    training, frame = config.train, config.recipe.grid.shape
    objective = workers.parallel(Loss(state.network, training))
    share = workers.share(training.batch)

    def draw(step: int) -> tuple[Batch, Draws]:
        rng = [SampleRng(training.seed, step, sample) for sample in share]
        batch = moved(draw_batch(source, rng), workers.device)
        return batch, draw_time_steps(training, frame, rng).to(workers.device)

    def loss_of(drawn: tuple[Batch, Draws]) -> Tensor:
        batch, draws = drawn
        total = workers.mean(batch.weight.sum()).clamp(min=1)
        loss: Tensor = objective(batch, draws, total)
        return loss

    if workers.writes:
        (out / "recipe.json").write_text(config.recipe.to_json())
    schedule = Schedule(training, _WARM_UP, REPORT_EVERY)
    fit(state, draw, loss_of, schedule, RunOutput(out, report), workers)
