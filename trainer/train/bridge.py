"""The training loop, top to bottom.

Every draw is seeded by run, step and number of the sample, the learning rate depends on the step
alone, and a checkpoint holds weights, their running mean and the optimiser: a run that was
interrupted and resumed gives the same weights as one that was not, and a run of several processes
the weights of one, to rounding.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.unet import Network, network_of
from trainer.config import TrainConfig
from trainer.sample_rng import SampleRng
from trainer.train.losses import Loss, draw_places
from trainer.train.sources import Source, draw_batch, moved
from trainer.train.state import State, checkpoint, rate_at
from trainer.train.workers import ALONE_ON_CPU, Workers

Progress = Callable[[int, float], None]  # step, mean loss since the last report
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
    """Train to `config.train.steps`, from wherever `state` is.

    The first process writes `out/recipe.json`, `out/curve.csv` (step, seconds, loss, learning
    rate) and `out/checkpoint.pt`, and reports.
    """
    training, frame = config.train, config.recipe.grid.shape
    loss_of = workers.parallel(Loss(state.network, training))
    share = workers.share(training.batch)
    losses: list[Tensor] = []
    if workers.writes:
        (out / "recipe.json").write_text(config.recipe.to_json())
    begun = time.monotonic() - state.seconds
    state.network.train()
    while state.step < training.steps:
        rate = rate_at(state.step, training.steps, training.learning_rate, _WARM_UP)
        state.set_rate(rate)
        rng = [SampleRng(training.seed, state.step, sample) for sample in share]
        batch = moved(draw_batch(source, rng), workers.device)
        draws = draw_places(training, frame, rng).to(workers.device)
        loss: Tensor = loss_of(batch, draws, workers.mean(batch.weight.sum()).clamp(min=1))
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), training.clip)
        state.optimiser.step()
        state.step += 1
        state.update_mean(training.ema)

        losses.append(loss.detach())
        state.seconds = time.monotonic() - begun
        last = state.step == training.steps
        if state.step % REPORT_EVERY == 0 or last:
            mean_loss = workers.mean(torch.stack(losses).mean()).item()
            losses.clear()
            if workers.writes:
                state.note(out, mean_loss, rate)
                report(state.step, mean_loss)
        if workers.writes and (state.step % training.checkpoint_every == 0 or last):
            state.save(out / "checkpoint.pt")
