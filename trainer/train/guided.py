"""Training samples of the control branch: each with the guide that the node would retrieve.

The guide of a missing position is found by the node's own query (`find_exemplar`); slices of the
subject itself are excluded.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rebrain_node.domain.volume import PlaneRegistration
from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.registration import moved, register
from rebrain_node.model.resample import doubled, halved
from rebrain_node.ports import Encoder, Exemplars
from rebrain_node.retrieval.knowledge_base import check_usable, read
from rebrain_node.retrieval.open import check_encoder
from rebrain_node.retrieval.search import FaissExemplars
from rebrain_node.steps.retrieve import ExemplarQuery, find_exemplar
from trainer.config import ControlTraining, SampleDraws
from trainer.sample_rng import SampleRng
from trainer.simulate.pool import Pool
from trainer.simulate.slabs import Sample
from trainer.simulate.stacks import Stacks
from trainer.train.samples import Batch, augmented, centred, sample_weights
from trainer.train.workers import TrainingError

_DIGITS = 16  # of the SHA-256 of a picture, as in `KnowledgeBase.key`
_OUTSIDE = 0.15  # weight of a pixel outside the head, as in `trainer.train.samples`


@dataclass(frozen=True)
class Donors:
    """CT and MR slices by the key of an exemplar."""

    #: ct, mr: (n, rows / 2, columns / 2): brain window, canonical T1
    ct: NDArray[np.uint8]
    mr: NDArray[np.uint8]
    rows: dict[str, int]  #: by key: keyed hash of the subject and digits of the picture

    @classmethod
    def of(cls, stacks: Stacks, hash_of: Callable[[str], str]) -> "Donors":
        """Find the key of every slice of `stacks`; `hash_of` as of the knowledge base."""
        hashes = [hash_of(name) for name in stacks.names]
        rows = {}
        for row, (subject, plane) in enumerate(zip(stacks.subject, stacks.slices, strict=True)):
            picture = hashlib.sha256(plane.tobytes()).hexdigest()[:_DIGITS]
            rows[f"{hashes[subject]}{picture}"] = row
        return cls(stacks.slices, stacks.mr, rows)

    def truth(self, key: str, placement: "ExemplarPlacement") -> dict[str, Tensor]:
        """Return the parts of a `Batch` of one whose target is the MR of the donor.

        It lies where `placement` puts the exemplar.

        Raises
        ------
        KeyError
            No slice has this key: the stacks are not those of the knowledge base.
        """
        row = self.rows[key]
        head = placement.onto(self.ct[row].astype(np.float32), 0.0) > 0
        return {
            "x0": placement.onto(self.mr[row].astype(np.float32), 0.0) / 127.5 - 1,
            "head": head.float(),
            "weight": _OUTSIDE + head.float(),
        }


@dataclass(frozen=True)
class ExemplarPlacement:
    """Where on the model grid an exemplar lies: CT and MR of one slice lie in the same place."""

    by: PlaneRegistration | None  #: None: where it lay in its own series
    pixel_mm: float  #: of the grid

    @classmethod
    def of(cls, image: Image, source: Tensor, recipe: Recipe) -> "ExemplarPlacement":
        """Register `image`, (rows / 2, columns / 2), onto `source`, (rows, columns); in [-1, 1]."""
        pixel_mm = recipe.grid.pixel_mm
        return cls(register(image, halved(source.numpy()), 2.0 * pixel_mm), pixel_mm)

    def onto(self, plane: Image, outside: float) -> Tensor:
        """Put (rows / 2, columns / 2) on the grid, (1, 1, rows, columns)."""
        if self.by is None:
            return torch.from_numpy(doubled(plane))[None, None]
        return torch.from_numpy(moved(plane, self.by, self.pixel_mm, outside))[None, None]


#: a slice of nothing but air: the guide that says nothing
BLANK = -1.0


@dataclass(frozen=True)
class KnownGuide:
    """The exemplar of one sample."""

    image: Image  #: (rows / 2, columns / 2) of the grid, brain window, [-1, 1]
    key: str  #: keyed hash of the slice


@dataclass(frozen=True)
class ExemplarSource:
    """The encoder and the knowledge base that the guides are retrieved with."""

    encoder: Encoder
    exemplars: Exemplars
    recipe: Recipe
    hashes: dict[str, str]  #: keyed hash of each subject of the pool: its own slices are excluded

    @classmethod
    def open(
        cls, recipe: Recipe, graph: Path, base: Path, hashes: dict[str, str]
    ) -> "ExemplarSource":
        """Open the encoder and the knowledge base, checked against each other as in the node.

        Raises
        ------
        KnowledgeBaseError
            The base is not fit to be searched, or was made with another encoder.
        """
        encoder = encoder_of_graph(graph.read_bytes())
        held = read(base)
        check_usable(held, str(base))
        check_encoder(held, encoder, str(base))
        return cls(encoder, FaissExemplars(held, held.tau(recipe.retrieval.p)), recipe, hashes)

    def guide(self, sample: Sample, subject: str) -> KnownGuide | None:
        """Find the exemplar of a missing position; None where the node would interpolate."""
        below_mm, above_mm = sample.distances_mm
        if not sample.missing or not np.isfinite(sample.position_mm):
            return None
        query = ExemplarQuery(
            below=self._embedded(sample.hu[0]),
            above=self._embedded(sample.hu[2]),
            alpha=below_mm / (below_mm + above_mm),
            gap_mm=below_mm + above_mm,
            position_mm=sample.position_mm,
            plausibility=1.0,  # the positions of simulated samples are known
            excluded=self.hashes[subject],
        )
        match = find_exemplar(query, self.exemplars, self.recipe.retrieval.window_mm)
        if match.exemplar is None:
            return None
        return KnownGuide(self.recipe.brain_window.apply(match.exemplar.hu), match.exemplar.key)

    def _embedded(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        plane = halved(centred(self.recipe.brain_window.apply(hu), self.recipe))
        return self.encoder.embed(plane[None, None])


@dataclass(frozen=True)
class GuidedSource:
    """Missing positions of a pool, each with its guide; draws a `Batch` and the guide beside it."""

    pool: Pool
    weights: Tensor
    recipe: Recipe
    training: ControlTraining
    guides: Sequence[KnownGuide | None]  #: of every sample of the pool, in order
    donors: Donors | None = None  #: where the MR of the exemplars is, for the target "donor"
    draws: SampleDraws = field(default_factory=SampleDraws)

    @classmethod
    def of(
        cls,
        pool: Pool,
        recipe: Recipe,
        training: ControlTraining,
        guides: Sequence[KnownGuide | None],
        donors: Donors | None = None,
        draws: SampleDraws | None = None,
    ) -> "GuidedSource":
        """Draw the missing positions of `pool` as often as their heads deserve.

        Raises
        ------
        TrainingError
            The pool has no missing position, or the target "donor" no exemplar with its MR.
        """
        draws = draws or SampleDraws()
        weights = sample_weights(pool, draws)
        missing = np.concatenate([arrays["missing"] for arrays in pool.arrays])
        weights = weights * torch.from_numpy(missing.astype(np.float32))
        if training.target == "donor":
            weights = weights * torch.tensor([float(guide is not None) for guide in guides])
        if not weights.sum() > 0:
            raise TrainingError(
                "nothing to learn from: no missing position, or none with an exemplar"
            )
        return cls(pool, weights, recipe, training, guides, donors, draws)

    def draw(self, rng: SampleRng) -> tuple[Batch, Tensor]:
        """Draw a batch of one and its guide, (1, 1, rows, columns), [-1, 1]."""
        number = int(rng.choice(self.weights, 1))
        batch = augmented(self.pool, number, self.recipe, rng, self.draws)
        known = self.guides[number]
        if self.donors is not None and known is not None:
            placement = self._placement(known, batch)
            truth = self.donors.truth(known.key, placement)
            return replace(batch, **truth), placement.onto(known.image, BLANK)
        return batch, self._guide(batch, known, rng)

    def _placement(self, known: KnownGuide, batch: Batch) -> ExemplarPlacement:
        """Place an exemplar as the node would, on the sample as it was augmented."""
        if self.training.registration == "none":
            return ExemplarPlacement(None, self.recipe.grid.pixel_mm)
        return ExemplarPlacement.of(known.image, batch.conditioning[0, 0], self.recipe)

    def _guide(self, batch: Batch, known: KnownGuide | None, rng: SampleRng) -> Tensor:
        shares = self.training
        chance = rng.between(0, 1)
        if known is not None and chance < shares.retrieved_share:
            return self._placement(known, batch).onto(known.image, BLANK)
        if chance < shares.retrieved_share + shares.slerp_share:
            return batch.conditioning[:, :1].clone()
        return torch.full_like(batch.x0, BLANK)


def find_guides(
    pool: Pool, exemplars: ExemplarSource, advance: Callable[[], None]
) -> list[KnownGuide | None]:
    """Find the exemplar of every sample of a pool, in order; `advance` is called after each."""
    found = []
    for subject, record in enumerate(pool.records):
        for row in range(record.samples):
            found.append(exemplars.guide(pool.sample(subject, row), record.name))
            advance()
    return found
