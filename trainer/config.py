"""Parameters of a training run, read from `conf/train/*.toml`; an unknown key is an error."""

import hashlib
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rebrain_node.model.recipe import Recipe
from trainer.heads import Head


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Simulation(_Section):
    """How many samples the pool holds per head, by the kind of head."""

    seed: int
    samples_2mm: int = Field(gt=0)
    samples_sharp: int = Field(gt=0)
    samples_brain_only: int = Field(gt=0)
    samples_validation: int = Field(gt=0)

    def samples(self, head: Head) -> int:
        """Return the number of samples to draw of `head`."""
        if head.role == "validation":
            return self.samples_validation
        if not head.sharp:
            return self.samples_2mm
        return self.samples_sharp if head.whole_head_truth else self.samples_brain_only


class Training(_Section):
    """The loop of `trainer.train_bridge`.

    Attributes
    ----------
    clip : float
        Largest norm of the gradient.
    start_share : float
        Share of draws at m = 1; the rest is uniform on (0, 1).
    ssim_weight : float
        Weight of 1 - SSIM beside the weighted L1.
    """

    objective: Literal["directional", "raw", "regression"]
    seed: int
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema: float = Field(gt=0, lt=1)
    clip: float = Field(gt=0)
    start_share: float = Field(ge=0, le=1)
    ssim_weight: float = Field(ge=0)
    checkpoint_every: int = Field(gt=0)


class EncoderTraining(_Section):
    """The loop of `trainer.train_encoder`.

    Attributes
    ----------
    runs, run_length : int
        A batch holds so many runs of so many successive slices.
    dense_share : float
        Share of the runs from the series in steps of 1 mm.
    reach : int
        K, the slices ahead that are positives.
    near_mm : float
        Slices of other series nearer than this are not negatives.
    alpha : float
        Temperature of equation 7; the paper's is 1.
    beta : float
        Scale of equation 9.
    percept_weight : float
        Lambda of equation 11; 0 leaves the perceptual loss out.
    """

    seed: int
    steps: int = Field(gt=0)
    runs: int = Field(gt=1)
    run_length: int = Field(gt=1)
    dense_share: float = Field(ge=0, le=1)
    reach: int = Field(gt=0)
    near_mm: float = Field(ge=0)
    alpha: float = Field(gt=0)
    beta: float = Field(gt=0)
    percept_weight: float = Field(ge=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warm_up: int = Field(gt=0)
    ema: float = Field(gt=0, lt=1)
    clip: float = Field(gt=0)
    checkpoint_every: int = Field(gt=0)

    def digest(self, *inputs: str) -> str:
        """Return the SHA-256 of what shapes the weights; a resume must not change it.

        Parameters
        ----------
        *inputs : str
            Digests of the stacks and of the starting weights.
        """
        relevant = "".join([self.model_dump_json(), *inputs])
        return hashlib.sha256(relevant.encode()).hexdigest()


class TrainConfig(_Section):
    """One `conf/train/*.toml`; without `encoder` no encoder can be trained from it."""

    simulate: Simulation
    train: Training
    recipe: Recipe
    encoder: EncoderTraining | None = None

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.train.objective != self.recipe.objective:
            raise ValueError(
                f"train.objective {self.train.objective} and recipe.objective "
                f"{self.recipe.objective} must be the same"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; raises `pydantic.ValidationError` naming the key at fault."""
        return cls.model_validate(tomllib.loads(path.read_text()))

    @property
    def training_digest(self) -> str:
        """Return the SHA-256 of what shapes the weights; a resume must not change it."""
        relevant = self.train.model_dump_json() + self.recipe.model_dump_json(
            exclude={"sampling", "eta"}
        )
        return hashlib.sha256(relevant.encode()).hexdigest()
