"""Parameters of a training run, read from `conf/train/*.toml`; an unknown key is an error."""

import hashlib
import tomllib
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rebrain_node.errors import SettingsError
from rebrain_node.model.recipe import Objective, Recipe
from rebrain_node.validation import faults_of
from trainer.heads import Head


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_File = TypeVar("_File", bound=_Section)


def _read(kind: type[_File], path: Path) -> _File:
    """Read a TOML file of parameters.

    Raises
    ------
    SettingsError
        It cannot be read, is not TOML, or a key is missing, unknown or unfit.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; give --config FILE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise SettingsError(f"{path}: {faults_of(error)}") from error


class Simulation(_Section):
    """How many samples the pool holds per head, by the kind of head.

    Attributes
    ----------
    gap_mm : tuple of float or None
        Draw missing positions alone, between slabs so far apart: least and most.
    """

    seed: int
    samples_2mm: int = Field(gt=0)
    samples_sharp: int = Field(gt=0)
    samples_brain_only: int = Field(gt=0)
    samples_validation: int = Field(gt=0)
    gap_mm: tuple[float, float] | None = None

    def samples(self, head: Head) -> int:
        """Return the number of samples to draw of `head`."""
        if head.role == "validation":
            return self.samples_validation
        if not head.sharp:
            return self.samples_2mm
        return self.samples_sharp if head.whole_head_truth else self.samples_brain_only


class Training(_Section):
    """The loop of `trainer.train.bridge`.

    Attributes
    ----------
    batch : int
        Samples per step, over all processes together.
    bridge_steps : int or None
        T of the grid m = t/T, t = 1 .. T, that places are drawn from; None draws m ~ U(0, 1).
    clip : float
        Largest norm of the gradient.
    start_share : float
        Share of draws at m = 1; the rest is uniform on (0, 1).
    ssim_weight : float
        Weight of 1 - SSIM beside the weighted L1.
    """

    objective: Objective
    seed: int
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema: float = Field(gt=0, lt=1)
    clip: float = Field(gt=0)
    bridge_steps: int | None = Field(default=None, gt=0)
    start_share: float = Field(ge=0, le=1)
    ssim_weight: float = Field(ge=0)
    checkpoint_every: int = Field(gt=0)


class EncoderTraining(_Section):
    """The loop of `trainer.train.encoder`.

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
    across_mm : float
        Slices of other series nearer than this attract each other, in a term of its own beside
        equation 11; 0 is the paper, which knows the slices of one series alone.
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
    across_mm: float = Field(default=0.0, ge=0)
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


class ControlTraining(_Section):
    """What the loop of `trainer.train.control` does otherwise than [train].

    Attributes
    ----------
    target : {"self", "donor"}
        Whose MR is drawn: the query's own at the missing position, or, as in the paper, the one
        that belongs to the exemplar.
    retrieved_share, slerp_share : float
        How often the guide is the exemplar, and how often the SLERP of the slices beside the
        position; else it is a blank slice. A sample without an exemplar takes the SLERP.
    """

    target: Literal["self", "donor"] = "self"
    seed: int
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    retrieved_share: float = Field(ge=0, le=1)
    slerp_share: float = Field(ge=0, le=1)
    checkpoint_every: int = Field(gt=0)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.retrieved_share + self.slerp_share > 1:
            raise ValueError(
                f"retrieved_share {self.retrieved_share} and slerp_share {self.slerp_share} "
                "must not add up to more than 1"
            )
        return self


class TrainConfig(_Section):
    """One `conf/train/*.toml`; a stage whose section is absent cannot be run from it.

    Without [simulate] the bridge trains on prepared data alone; [gaps] draws the pool of missing
    positions that [control] learns from.
    """

    simulate: Simulation | None = None
    gaps: Simulation | None = None
    train: Training
    recipe: Recipe
    encoder: EncoderTraining | None = None
    control: ControlTraining | None = None

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
        """Read a TOML file; raises `SettingsError` naming each key at fault."""
        return _read(cls, path)

    @property
    def training_digest(self) -> str:
        """Return the SHA-256 of what shapes the weights; a resume must not change it."""
        relevant = self.train.model_dump_json(exclude_defaults=True) + self.recipe.model_dump_json(
            include={"grid", "widths", "brain_window", "wide_window"}
        )
        return hashlib.sha256(relevant.encode()).hexdigest()


class Trial(_Section):
    """What `trainer.evaluate.objectives` compares.

    Attributes
    ----------
    samples : int
        Drawn once for each kind of data.
    score_every : int
        Steps from one scoring to the next; a multiple of `train_bridge.REPORT_EVERY`.
    cases : int
        Held-out positions of each subject.
    """

    objectives: tuple[Objective, ...] = Field(min_length=2)
    seeds: tuple[int, ...] = Field(min_length=2)
    samples: int = Field(gt=0)
    score_every: int = Field(gt=0)
    cases: int = Field(gt=1)


class TrialConfig(_Section):
    """`conf/train/objectives.toml`."""

    trial: Trial
    train: Training
    recipe: Recipe

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; raises `SettingsError` naming each key at fault."""
        return _read(cls, path)

    def of(self, objective: Objective, seed: int) -> TrainConfig:
        """Return the parameters of one run; the regression draws in one step."""
        places = (1.0,) if objective == "regression" else self.recipe.sampling
        return TrainConfig(
            train=self.train.model_copy(update={"objective": objective, "seed": seed}),
            recipe=self.recipe.model_copy(update={"objective": objective, "sampling": places}),
        )
