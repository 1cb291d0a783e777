"""Parameters of training, read from `conf/train/*.toml`; an unknown key is an error."""

import hashlib
import tomllib
from importlib import resources
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
        The file cannot be read, is not TOML, or a key is missing, unknown or invalid.
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
    """Number of simulated samples per head, by kind of head.

    Attributes
    ----------
    samples_labels : int
        Of a label map.
    gap_mm : tuple of float or None
        Least and largest distance of the slabs beside a missing position; None: no restriction to
        missing positions.
    tissue_level_hu : float or None
        HU that the brain tissue of every person is shifted to, as the node levels a series; None:
        as drawn.
    """

    seed: int
    samples_2mm: int = Field(gt=0)
    samples_sharp: int = Field(gt=0)
    samples_brain_only: int = Field(gt=0)
    samples_validation: int = Field(gt=0)
    samples_labels: int = Field(default=1, gt=0)
    tissue_level_hu: float | None = None
    gap_mm: tuple[float, float] | None = None

    def samples(self, head: Head) -> int:
        """Return the number of samples of `head`."""
        if head.role == "validation":
            return self.samples_validation
        if head.kind == "labels":
            return self.samples_labels
        if not head.sharp:
            return self.samples_2mm
        return self.samples_sharp if head.whole_head_truth else self.samples_brain_only


class SampleDraws(_Section):
    """How samples of a pool are drawn and scanned in training.

    Attributes
    ----------
    label_share : float or None
        Share of the draws from heads of label maps; None: each sample alike.
    little_brain : float
        How often a slice with little brain is drawn, against another of the same head.
    level_sd_hu : float or None
        SD of the calibration error that remains after the node has levelled a series, cut at twice
        the SD; None: -5 to 13 HU, as scanners differ.
    leukoaraiosis : float
        How often hypodense white matter is painted around the ventricles of a drawn slice.
    """

    label_share: float | None = Field(default=None, ge=0, le=1)
    little_brain: float = Field(default=1.0, gt=0, le=1)
    level_sd_hu: float | None = Field(default=None, ge=0)
    leukoaraiosis: float = Field(default=0.0, ge=0, le=1)


class Training(_Section):
    """The loop of `trainer.train.bridge`.

    Attributes
    ----------
    batch : int
        Samples per step, over all processes together.
    bridge_steps : int or None
        T of the grid m = t/T, t = 1 .. T, of the time steps; None: m ~ U(0, 1).
    clip : float
        Largest norm of the gradient.
    start_share : float
        Share of time steps at m = 1; the others are uniform on (0, 1).
    ssim_weight : float
        Weight of 1 - SSIM beside the weighted L1.
    detail_weight : float
        Weight of the error of fine detail (`trainer.train.bridge.lost_detail`).
    amplitude_weight : float
        Weight of the missing amplitude (`trainer.train.bridge.lost_amplitude`).
    amplitude_from : float
        Share of the steps after which the missing amplitude counts.
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
    detail_weight: float = Field(default=0.0, ge=0)
    amplitude_weight: float = Field(default=0.0, ge=0)
    amplitude_from: float = Field(default=0.0, ge=0, le=1)
    checkpoint_every: int = Field(gt=0)


class EncoderTraining(_Section):
    """The loop of `trainer.train.encoder`.

    Attributes
    ----------
    runs, run_length : int
        Runs in a batch, and successive slices in a run.
    dense_share : float
        Share of the runs that come from the series with 1 mm spacing.
    reach : int
        K, number of following slices that are positives.
    near_mm : float
        Slices of other series closer than this are not negatives.
    alpha : float
        Temperature of equation 7; 1 in the paper.
    beta : float
        Scale of equation 9.
    percept_weight : float
        Lambda of equation 11; 0: no perceptual loss.
    across_mm : float
        Slices of other series closer than this are positives of a further term; 0, as in the
        paper: no such term.
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
        """Return the SHA-256 of all that determines the weights; equal in a resumed run.

        Parameters
        ----------
        *inputs : str
            Digests of the stacks and of the starting weights.
        """
        relevant = "".join([self.model_dump_json(), *inputs])
        return hashlib.sha256(relevant.encode()).hexdigest()


class ControlTraining(_Section):
    """The loop of `trainer.train.control`, where it differs from [train].

    Attributes
    ----------
    target : {"self", "donor"}
        The MR to synthesise: of the subject at the missing position, or, as in the paper, of the
        exemplar.
    registration : {"none", "similarity"}
        Whether the exemplar is registered in its plane before it guides, as the node does by the
        field of the same name of the recipe; the bundle made of the branch says the same.
    retrieved_share, slerp_share : float
        Shares of samples whose guide is the exemplar, or the SLERP of the neighbouring slices; the
        others have a blank guide. A sample without an exemplar has the SLERP.
    """

    target: Literal["self", "donor"] = "self"
    registration: Literal["none", "similarity"] = "none"
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
    """One file of `conf/train`; a command needs its section.

    [simulate] and [gaps] are of `simulate`; the samples of [gaps], missing positions only, are for
    [control].
    """

    simulate: Simulation | None = None
    gaps: Simulation | None = None
    samples: SampleDraws = SampleDraws()
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

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        for name, section in (("simulate", self.simulate), ("gaps", self.gaps)):
            if section is not None and section.tissue_level_hu != self.recipe.tissue_level_hu:
                raise ValueError(
                    f"{name}.tissue_level_hu {section.tissue_level_hu} and recipe.tissue_level_hu "
                    f"{self.recipe.tissue_level_hu} must be the same: the network would see other "
                    "HU from the node than in training"
                )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; raises `SettingsError` naming each key at fault."""
        return _read(cls, path)

    @property
    def training_digest(self) -> str:
        """Return the SHA-256 of all that determines the weights; equal in a resumed run."""
        relevant = self.train.model_dump_json(exclude_defaults=True) + self.recipe.model_dump_json(
            include={"grid", "widths", "brain_window", "wide_window"}
        )
        if self.samples != SampleDraws():
            relevant += self.samples.model_dump_json()
        return hashlib.sha256(relevant.encode()).hexdigest()


def preset_config(name: str) -> TrainConfig:
    """Read a preset of `make`; the files are those of `conf/train`."""
    with resources.as_file(resources.files("trainer") / "presets" / f"{name}.toml") as path:
        return TrainConfig.load(path)


class Trial(_Section):
    """The comparison of `trainer.evaluate.objectives`.

    Attributes
    ----------
    samples : int
        Training samples of each data set.
    score_every : int
        Steps between scores; a multiple of `trainer.train.bridge.REPORT_EVERY`.
    cases : int
        Held-out positions per subject.
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
        """Return the parameters of one run; the regression has one time step."""
        sampling = (1.0,) if objective == "regression" else self.recipe.sampling
        return TrainConfig(
            train=self.train.model_copy(update={"objective": objective, "seed": seed}),
            recipe=self.recipe.model_copy(update={"objective": objective, "sampling": sampling}),
        )
