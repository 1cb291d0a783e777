"""Training the bridge network: its objectives over one network, and the run through the loop.

    directional   mean | W (x0_hat - x0) |, W = min((1 - m) + m / rho, 10): eq. 6, RMS norm
    raw           W = 1: BBDM's own loss
    unitized      the network emits eq. 6 itself and a scalar head log rho
    regression    raw at m = 1 alone: one step from the CT slice

The mean is weighted per pixel; `ssim_weight` times 1 - SSIM of the estimate and `detail_weight`
times its error in fine detail are added. Random
numbers are seeded by run, step and number of the sample: processes that share a batch sample what
one process would.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.errors import SettingsError
from rebrain_node.model import bridge
from rebrain_node.model.control import GuidedUNet
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.unet import Network, UnitizedUNet, network_of
from trainer.config import TrainConfig, Training
from trainer.sample_rng import SampleRng
from trainer.train.loop import (
    CHECKPOINT,
    Progress,
    RunOutput,
    Schedule,
    State,
    checkpoint,
    drawn_ahead,
    fit,
)
from trainer.train.samples import Batch, Source, draw_batch
from trainer.train.workers import ALONE_ON_CPU, Workers, reduced


@dataclass(frozen=True)
class Draws:
    """Time step and noise of each sample of a batch."""

    m: Tensor  #: (batch, 1, 1, 1), time step: 0 at the MR image, 1 at the CT slice
    noise: Tensor  #: (batch, 1, rows, columns), standard normal

    def to(self, device: torch.device) -> "Draws":
        """Return the draws on `device`."""
        return Draws(self.m.to(device), self.noise.to(device))


def draw_time_step(training: Training, rng: SampleRng) -> Tensor:
    """Draw m, (1, 1, 1, 1): at 1 for `start_share` of the draws, else on (0, 1) or its grid."""
    at_start = rng.chance(training.start_share)
    m = rng.uniform(0, 1, 1, 1, 1, 1)
    if training.objective == "regression" or at_start:
        return torch.ones_like(m)
    steps = training.bridge_steps
    return m if steps is None else (torch.floor(m * steps) + 1) / steps


def draw_time_steps(training: Training, frame: tuple[int, int], rng: Sequence[SampleRng]) -> Draws:
    """Draw time step and noise of every sample from its own rng; `frame` is (rows, columns)."""
    drawn = [(draw_time_step(training, d), d.normal(1, 1, *frame)) for d in rng]
    return Draws(torch.cat([m for m, _ in drawn]), torch.cat([noise for _, noise in drawn]))


def contrast(batch: Batch) -> Tensor:
    """Return rho of each sample over its head, (batch, 1, 1, 1)."""
    squared = (batch.conditioning[:, :1] - batch.x0) ** 2 * batch.head
    over_head = batch.head.sum((1, 2, 3), keepdim=True).clamp(min=1)
    rho: Tensor = bridge.contrast(squared.sum((1, 2, 3), keepdim=True) / over_head)
    return rho


def dissimilarity(a: Tensor, b: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """Return the weighted 1 - SSIM over `total`, uniform 7 x 7 window, images in [-1, 1]."""

    def mean(image: Tensor) -> Tensor:
        return functional.avg_pool2d(image, 7, 1, 3)

    a, b = (a + 1) / 2, (b + 1) / 2
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4)
    )
    return ((1 - ssim) * weight).sum() / total


_SMOOTHING = (1.0, 4.0, 6.0, 4.0, 1.0)
_BANDS = (1, 2)  # dilations: octaves about 0.3 and 0.16 cycles per pixel
_LEAST_ENERGY = 4e-4  # squared amplitude, images in [-1, 1]: below it detail is noise


def _smoothed(image: Tensor, dilation: int) -> Tensor:
    """Smooth (batch, 1, rows, columns) by a binomial filter of five taps, `dilation` apart."""
    taps = torch.tensor(_SMOOTHING, device=image.device) / sum(_SMOOTHING)
    reach = 2 * dilation
    image = functional.pad(image, (reach, reach, reach, reach), mode="replicate")
    image = functional.conv2d(image, taps.view(1, 1, 1, 5), dilation=(1, dilation))
    return functional.conv2d(image, taps.view(1, 1, 5, 1), dilation=(dilation, 1))


def lost_detail(a: Tensor, b: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """Return how much fine detail of `b` is wrong or missing in `a`, weighted, over `total`.

    In two octaves of the Laplacian pyramid: the absolute difference, and the absolute difference
    of the local amplitude (RMS in 9 x 9 pixels). The minimiser of an L1 alone is blurred where
    the truth is uncertain; a blurred image has the wrong amplitude.
    """
    loss = torch.zeros((), device=a.device)
    for dilation in _BANDS:
        smooth_a, smooth_b = _smoothed(a, dilation), _smoothed(b, dilation)
        band_a, band_b = a - smooth_a, b - smooth_b
        amplitude_a, amplitude_b = (
            (functional.avg_pool2d(band**2, 9, 1, 4) + _LEAST_ENERGY).sqrt()
            for band in (band_a, band_b)
        )
        wrong = (band_a - band_b).abs() + (amplitude_a - amplitude_b).abs()
        loss = loss + (wrong * weight).sum() / total
        a, b = smooth_a, smooth_b
    return loss


_CELL, _STRIDE = 25, 8  # pixels
_LEAST_AMPLITUDE = 5e-3


def lost_amplitude(a: Tensor, b: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """Return how much weaker or stronger fine detail is in `a` than in `b`, weighted, over `total`.

    In the bands of `lost_detail`, the absolute difference of the RMS in cells of 25 x 25 pixels:
    wherever the detail lies in the cell. Beside the errors of each pixel it has the network show
    what it knows of the detail at the contrast that the truth has.
    """
    loss = torch.zeros((), device=a.device)
    of_cells = weight[..., ::_STRIDE, ::_STRIDE]

    def amplitude(band: Tensor) -> Tensor:
        energy = functional.avg_pool2d(band**2, _CELL, _STRIDE, _CELL // 2)
        return (energy + _LEAST_AMPLITUDE**2).sqrt()

    for dilation in _BANDS:
        smooth_a, smooth_b = _smoothed(a, dilation), _smoothed(b, dilation)
        missing = (amplitude(a - smooth_a) - amplitude(b - smooth_b)).abs()
        loss = loss + (missing * of_cells).sum() * _STRIDE**2 / total
        a, b = smooth_a, smooth_b
    return loss


class Loss(nn.Module):
    """The network with its objective: from a batch to one number.

    A module, so that data-parallel training wraps network and loss together.
    """

    def __init__(self, network: Network | GuidedUNet, training: Training) -> None:
        super().__init__()
        self.network = network
        self.training_of = training
        self.amplitude_weight = 0.0  # of the step to come

    def begin(self, step: int) -> None:
        """Let the missing amplitude count from its share of the steps on."""
        training = self.training_of
        late = step >= training.amplitude_from * training.steps
        self.amplitude_weight = training.amplitude_weight if late else 0.0

    def forward(
        self, batch: Batch, draws: Draws, total: Tensor, guide: Tensor | None = None
    ) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        guide : Tensor, optional
            Of a `GuidedUNet`, (batch, 1, rows, columns).
        total : Tensor
            What the weighted sums are divided by: the mean over all processes of the sum of
            `batch.weight`, so that parts of a batch average to the loss of the whole.
        """
        m, y = draws.m, batch.conditioning[:, :1]
        state = bridge.marginal(batch.x0, y, m, draws.noise)
        x = torch.cat([state, batch.conditioning], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        s = torch.cat([m.flatten(1), batch.distances_mm], dim=1)
        error, x0_hat, scalar_loss = self._error(x, s, batch, guide)
        absolute = (error.abs() * batch.weight).sum() / total
        unlike = dissimilarity(x0_hat, batch.x0, batch.weight, total)
        loss: Tensor = absolute + self.training_of.ssim_weight * unlike + scalar_loss
        if self.training_of.detail_weight > 0:
            lost = lost_detail(x0_hat, batch.x0, batch.weight, total)
            loss = loss + self.training_of.detail_weight * lost
        if self.amplitude_weight > 0:
            lost = lost_amplitude(x0_hat, batch.x0, batch.weight, total)
            loss = loss + self.amplitude_weight * lost
        return loss

    def _error(
        self, x: Tensor, s: Tensor, batch: Batch, guide: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted error of each pixel, x0_hat, and the loss of the scalar head."""
        state, y, m = x[:, :1], x[:, 1:2], s[:, :1, None, None]
        nothing = torch.zeros((), device=x.device)
        rho, objective = contrast(batch), self.training_of.objective
        weight = bridge.directional_weight(m, rho)
        if isinstance(self.network, UnitizedUNet):
            with reduced(x.device.type):
                direction, log_rho = self.network.emission(x, s)
            direction, log_rho = direction.float(), log_rho.float()
            predicted = bridge.directional_weight(m, log_rho.exp())
            x0_hat = bridge.estimate_from_direction(direction, y, state, predicted)
            error = direction - bridge.direction(batch.x0, y, state, weight)
            return error, x0_hat, (log_rho - rho.log()).abs().mean()
        with reduced(x.device.type):
            flow = self.network(x, s) if guide is None else self.network(x, s, guide)
        x0_hat = bridge.estimate(state, flow.float())
        error = x0_hat - batch.x0
        return (weight * error if objective == "directional" else error), x0_hat, nothing


REPORT_EVERY = 50
_WARM_UP = 100


_START = "start.sha256"  # of a run folder: what the weights began with


def run_digest(config: TrainConfig, start_sha256: str | None) -> str:
    """Return the SHA-256 of all that determines the weights of a run."""
    if start_sha256 is None:
        return config.training_digest
    return hashlib.sha256(f"{config.training_digest} {start_sha256}".encode()).hexdigest()


def start_of(run: Path) -> str | None:
    """Return the SHA-256 of the weights that a run began with; None for random ones."""
    file = run / _START
    return file.read_text().strip() if file.exists() else None


def fresh_state(
    config: TrainConfig, device: torch.device, start: Path | None = None
) -> State[Network]:
    """Return the state before the first step, on `device`: seeded, or with pretrained weights.

    `start` is the `weights.safetensors` of a bundle with the same network.

    Raises
    ------
    SettingsError
        The weights do not fit the network of the recipe.
    """
    torch.manual_seed(config.train.seed)
    network = network_of(config.recipe)
    sha256 = None
    if start is not None:
        content = start.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            network.load_state_dict(load(content))
        except (SafetensorError, RuntimeError) as error:
            raise SettingsError(
                f"{start} has no weights of the network that the recipe describes: {error}"
            ) from error
    # torch's stub of Module.to lacks memory_format beside a device
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State.fresh(network, config.train, run_digest(config, sha256))


def note_start(run: Path, start: Path | None) -> None:
    """Write into a run which weights it begins with, for `start_of`."""
    if start is not None:
        (run / _START).write_text(hashlib.sha256(start.read_bytes()).hexdigest() + "\n")


def open_run(run: Path) -> tuple[Recipe, Network]:
    """Return the recipe of a run and the running mean of its weights, ready for evaluation."""
    recipe = Recipe.from_json((run / "recipe.json").read_bytes())
    network = network_of(recipe)
    network.load_state_dict(checkpoint(run / CHECKPOINT)["mean"])
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
    loss = Loss(state.network, training)
    objective = workers.parallel(loss)
    share = workers.share(training.batch)

    def draw(step: int) -> tuple[Batch, Draws]:
        rng = [SampleRng(training.seed, step, sample) for sample in share]
        return draw_batch(source, rng), draw_time_steps(training, frame, rng)

    def loss_of(drawn: tuple[Batch, Draws]) -> Tensor:
        batch, draws = drawn[0].to(workers.device), drawn[1].to(workers.device)
        total = workers.mean(batch.weight.sum()).clamp(min=1)
        loss.begin(state.step)
        return cast("Tensor", objective(batch, draws, total))

    if workers.writes:
        (out / "recipe.json").write_text(config.recipe.to_json())
    schedule = Schedule(training, _WARM_UP, REPORT_EVERY)
    threads = os.cpu_count() or 1
    take = draw if workers.device.type == "cpu" else drawn_ahead(draw, training.steps, threads)
    fit(state, take, loss_of, schedule, RunOutput(out, report), workers)
