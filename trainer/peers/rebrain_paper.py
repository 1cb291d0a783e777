"""ReBrain as its paper describes it: bridge, retrieval and control towards the donor's MR.

Source: Liu et al., "ReBrain: Brain MRI Reconstruction from Sparse CT Slice via Retrieval-Augmented
Diffusion" (sections 3.1 to 3.4 and appendix B).

Kept: a bridge of single slices with the directional objective on 1000 time steps; an encoder
trained by the contrastive and the perceptual loss with alpha = beta = 1 and lambda = 0.5; a
control branch beside the frozen bridge, whose target is the MR of the slice retrieved; at a
missing position the nearest slice given is the source and the slice retrieved the guide; below
the mean of the top 5 % of similarities the spherical interpolation of both neighbours guides;
sampling by DDIM (eta = 0), as section 4.1 says of all diffusion models; equation 14 would draw
noise at every step.

Left out: a pretrained encoder (ours starts at random). Where the paper is silent: the query of a
missing position is the spherical interpolation of its neighbours' embeddings; the knowledge base
holds every sixth slice of the training subjects, so that embedding it fits the budget.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model.control import GuidedUNet
from rebrain_node.model.encoder import COLUMNS, ROWS, SliceEncoder
from rebrain_node.model.recipe import Image
from rebrain_node.model.sampling import noise_field, sample_slices, uniform_time_steps
from rebrain_node.model.slerp import slerp, slerp_directions
from rebrain_node.model.source import Conditioning, SourceSlice, at_measured
from rebrain_node.model.unet import BridgeUNet
from trainer.config import TrainConfig
from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser, PeerError
from trainer.peers.own import evaluated
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng
from trainer.train.bridge import Draws, Loss, draw_time_step
from trainer.train.encoder import SliceBatch, augmented, contrast, pairs, percept
from trainer.train.samples import Batch

_BRIDGE, _ENCODER = 0.5, 0.15  # shares of the budget; the rest is the control branch's
_BATCH, _OUTSIDE = 4, 0.15
_RUNS, _RUN_LENGTH, _REACH = 4, 4, 2  # of a batch of the encoder
_NEAR_SLICES = 2.5  # slices of others closer than this are no negatives
_PERCEPT = 0.5  # lambda of equation 11
_BASE_EVERY = 6  # slices
_TOP = 0.05  # share of the similarities whose mean is the threshold


class KnownSlices:
    """The knowledge base: embedded slices of the training subjects, their source and MR."""

    def __init__(self, training: TrainingVolumes, encoder: SliceEncoder) -> None:
        shown = [torch.nonzero(head.any(2).any(1)).flatten()[::_BASE_EVERY]
                 for head in training.heads]  # fmt: skip
        self.subject = torch.cat([torch.full_like(each, k) for k, each in enumerate(shown)])
        self.source, self.target, self.head = (
            torch.cat([volume[rows] for volume, rows in zip(volumes, shown, strict=True)])
            for volumes in (training.sources, training.targets, training.heads)
        )
        self.embedding = embedded(encoder, self.source)
        likeness = self.embedding @ self.embedding.T
        same = self.subject[:, None] == self.subject[None]
        likeness = likeness.masked_fill(same, -1.0)
        self.nearest = likeness.argmax(dim=1)  #: the most similar slice of another subject
        top = likeness[~same].view(-1).topk(max(1, int(_TOP * int((~same).sum())))).values
        self.threshold = float(top.mean())


def embedded(encoder: SliceEncoder, slices: Tensor) -> Tensor:
    """Embed slices, (n, rows, columns) in [-1, 1]; unit length."""
    with torch.no_grad():
        return torch.cat([encoder(_resized(part)) for part in torch.split(slices[:, None], 32)])


def _resized(slices: Tensor) -> Tensor:
    return functional.interpolate(slices, size=(ROWS, COLUMNS), mode="bilinear")


class PaperPeer:
    """The three networks of the paper, trained one after the other; made for sparse sources."""

    def __init__(self, config: TrainConfig, sampling_steps: int) -> None:
        self._grid = config.recipe.grid
        self._training = config.train.model_copy(update={
            "objective": "directional", "bridge_steps": 1000, "start_share": 0.0,
            "ssim_weight": 0.0, "detail_weight": 0.0, "amplitude_weight": 0.0,
        })  # fmt: skip
        self._sampling = uniform_time_steps(sampling_steps)
        self._encoder = SliceEncoder()
        self._bridge = BridgeUNet(config.recipe.widths)
        self._guided = GuidedUNet(self._bridge)
        self.network = nn.ModuleDict({"encoder": self._encoder, "guided": self._guided})
        self._bridge.requires_grad_(requires_grad=True)
        self._first = BudgetOptimiser(self._bridge)
        self._second = BudgetOptimiser(self._encoder, rate=5e-4)
        self._third: BudgetOptimiser | None = None
        self._base: KnownSlices | None = None

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train the network whose turn it is."""
        if share < _BRIDGE:
            pair = training.slices(rng, _BATCH)
            loss = self._loss(self._bridge, pair.source, pair.target, pair.head, rng)
            return self._first.step(loss, share / _BRIDGE)
        if share < _BRIDGE + _ENCODER:
            loss = self._encoder_loss(training, rng)
            return self._second.step(loss, (share - _BRIDGE) / _ENCODER)
        if self._third is None:
            self._begin_control(training)
        assert self._base is not None  # noqa: S101 - made just now
        assert self._third is not None  # noqa: S101 - made just now
        base = self._base
        rows = torch.tensor([rng.integer(len(base.subject)) for _ in range(_BATCH)])
        donor = base.nearest[rows]
        loss = self._loss(
            self._guided,
            base.source[rows][:, None],
            base.target[donor][:, None],
            base.head[donor][:, None],
            rng,
            base.source[donor][:, None],
        )
        return self._third.step(loss, (share - _BRIDGE - _ENCODER) / (1 - _BRIDGE - _ENCODER))

    def _begin_control(self, training: TrainingVolumes) -> None:
        """Freeze the bridge, copy its encoder half into the branch, embed the knowledge base."""
        branch = GuidedUNet(self._bridge).control
        self._guided.control.load_state_dict(branch.state_dict())
        self._base = KnownSlices(training, self._encoder.eval())
        self._third = BudgetOptimiser(self._guided.control)

    def _loss(
        self, network: BridgeUNet | GuidedUNet, source: Tensor, target: Tensor, head: Tensor,
        rng: SampleRng, guide: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        unknown = torch.full_like(source, -1.0)
        batch = Batch(
            conditioning=torch.cat([source, unknown, source, source], dim=1),
            distances_mm=torch.zeros(len(source), 3),
            x0=target,
            weight=_OUTSIDE + head,
            head=head,
        )
        times = torch.cat([draw_time_step(self._training, rng) for _ in range(len(source))])
        draws = Draws(times, rng.normal(*target.shape))
        objective = Loss(network, self._training)
        loss: Tensor = objective(batch, draws, batch.weight.sum(), guide)
        return loss

    def _encoder_loss(self, training: TrainingVolumes, rng: SampleRng) -> Tensor:
        """Return equation 11 on runs of successive slices."""
        slices: list[Tensor] = []
        subjects: list[int] = []
        numbers: list[int] = []
        places: list[int] = []
        for _ in range(_RUNS):
            subject = rng.integer(len(training.sources))
            volume = training.sources[subject]
            first = rng.integer(len(volume) - _RUN_LENGTH + 1)
            slices.append(volume[first : first + _RUN_LENGTH])
            subjects += [subject] * _RUN_LENGTH
            numbers += range(first, first + _RUN_LENGTH)
            # counted from the top, which all heads show
            places += [len(volume) - first - k for k in range(_RUN_LENGTH)]
        positives, negatives = pairs(
            np.array(subjects, np.int32),
            np.array(numbers, np.int32),
            np.array(places, np.float64),
            _REACH,
            _NEAR_SLICES,
        )
        images = augmented(_resized(torch.cat(slices)[:, None]), rng)
        none = torch.zeros_like(positives)
        batch = SliceBatch(images, positives, negatives, none, none)
        output = self._encoder.encode(images)
        loss = contrast(output.embedding, batch, 1.0)
        return loss + _PERCEPT * percept(output.middle, batch, 1.0)

    def guides(self, given: GridCase) -> Tensor:
        """Return the guide of every position synthesised, (n, rows, columns).

        The most similar slice of the knowledge base where it is similar enough, else the
        spherical interpolation of both neighbours.

        Raises
        ------
        PeerError
            The control branch was not trained: there is no knowledge base.
        """
        if self._base is None:
            raise PeerError(
                "the budget ended before the control branch of ReBrain-paper was trained, which "
                "is from 65 % of it on; give a larger --budget or more --iterations"
            )
        embedding = embedded(self._encoder, given.source).numpy()
        below, shares = given.case.bracket()
        found = []
        for k, share in zip(below, shares, strict=True):
            above = min(int(k) + 1, len(embedding) - 1)
            query = slerp_directions(embedding[k], embedding[above], float(share))
            if query is None:
                query = embedding[k]
            likeness = self._base.embedding @ torch.from_numpy(query.astype(np.float32))
            best = int(likeness.argmax())
            if float(likeness[best]) >= self._base.threshold:
                found.append(self._base.source[best])
            else:
                sides = given.slices[int(k)].brain, given.slices[above].brain
                found.append(torch.from_numpy(slerp(*sides, float(share))))
        return torch.stack(found)

    def synthesise(self, given: GridCase) -> Volume:
        """Sample measured positions by the bridge, missing ones with their guide."""
        nearest = np.abs(given.case.targets_mm[:, None] - given.case.positions_mm).argmin(axis=1)
        conditionings = [
            at_measured(SourceSlice(piece.brain, np.full_like(piece.brain, -1), 0.0))
            for piece in (given.slices[int(k)] for k in nearest)
        ]
        guides, measured = self.guides(given), given.case.measured
        volume = np.empty((len(measured), *self._grid.shape), np.float32)
        for chosen, network in ((measured, self._bridge), (~measured, self._guided)):
            for rows in np.array_split(np.flatnonzero(chosen), max(1, int(chosen.sum()) // 16)):
                if len(rows):
                    hint = (guides[rows][:, None],) if network is self._guided else ()
                    volume[rows] = self._sampled(network, [conditionings[k] for k in rows], *hint)
        return volume

    def _sampled(
        self, network: nn.Module, conditionings: list[Conditioning], *guide: Tensor
    ) -> list[Image]:
        def evaluate(x: Image, s: Image) -> Image:
            return evaluated(network, x, s, *guide)

        noise = noise_field(self._grid.shape, 0)
        return sample_slices(evaluate, conditionings, self._sampling, eta=0.0, noise=noise)
