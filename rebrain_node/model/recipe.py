"""The recipe: the settings with which the weights must be used.

Numpy and pydantic only; loading a recipe starts no inference engine.
"""

import json
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rebrain_node.domain.volume import StoredRange

Image = NDArray[np.float32]

Channels = tuple[
    Literal["bridge_state"],
    Literal["source_brain"],
    Literal["source_wide"],
    Literal["below_brain"],
    Literal["above_brain"],
]
Scalars = tuple[Literal["place"], Literal["below_mm"], Literal["above_mm"], Literal["gap_mm"]]

CHANNELS: Channels = (
    "bridge_state",
    "source_brain",
    "source_wide",
    "below_brain",
    "above_brain",
)
#: of the network at every level; what bundles without widths in their recipe were trained with
WIDTHS = (48, 96, 128, 192)
Width = Annotated[int, Field(gt=0, multiple_of=8)]

Objective = Literal["directional", "raw", "unitized", "regression"]

#: fields that nodes before them refuse; a recipe without them is written as before
_LATER_FIELDS = ("tissue_level_hu", "uncertainty_shifts_hu", "whole_face", "z_filter_mm")

SCALARS: Scalars = ("place", "below_mm", "above_mm", "gap_mm")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grid(_Frozen):
    """The plane the network works on.

    Rows run from anterior to posterior, columns from the patient's right to left (LPS +x).
    """

    rows: int = Field(gt=0, multiple_of=16)
    columns: int = Field(gt=0, multiple_of=16)
    pixel_mm: float = Field(gt=0)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        return self.rows, self.columns


class Window(_Frozen):
    """A range of Hounsfield units, mapped linearly to [-1, 1] and clipped."""

    low_hu: float
    high_hu: float

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.low_hu < self.high_hu:
            raise ValueError(f"window low_hu {self.low_hu} must lie below high_hu {self.high_hu}")
        return self

    def apply(self, hu: NDArray[np.floating] | NDArray[np.integer]) -> Image:
        """Map HU to [-1, 1]; any shape, float32 out."""
        span = self.high_hu - self.low_hu
        unit = (np.asarray(hu, dtype=np.float32) - np.float32(self.low_hu)) / np.float32(span)
        return np.asarray(np.clip(unit, 0, 1) * 2 - 1, dtype=np.float32)


class Retrieval(_Frozen):
    """How an exemplar slice of another subject is found for a target between measured slices.

    Attributes
    ----------
    method : {"none", "exemplar"}
        "none" interpolates every such target (SLERP).
    tau : float or None
        Minimum cosine similarity of an exemplar, -1 to 1; None takes the threshold for `p` from
        the knowledge base.
    p : int
        Which threshold: the mean of the top `p` per cent of similarities between subjects.
    window_mm : float
        Maximum distance of an exemplar from the target in the head frame, or 1.5 times the gap
        between the measured slices where that is more.
    k : int
        Read for the recipes of released bundles, which contain it; never written. Only the most
        similar candidate is used.
    """

    method: Literal["none", "exemplar"] = "none"
    tau: float | None = Field(default=None, ge=-1, le=1)
    p: Literal[1, 2, 5, 10, 20] = 5
    window_mm: float = Field(default=6.0, gt=0)
    k: Literal[1] = Field(default=1, exclude=True)


class Abstain(_Frozen):
    """Limits on the uncertainty above which the result is not trusted.

    Attributes
    ----------
    voxel_above : float
        Limit of the uncertainty of a voxel, in the unit of the uncertainty map (1 = black to
        white); voxels above it are in the abstention mask.
    slice_above : float
        Limit of the mean uncertainty of a slice inside the head, same unit; a slice above it is
        marked as not to be trusted.
    series_share : float
        Limit of the share of marked slices, 0 to 1; a series above it is refused, or published
        with the finding `UNCERTAIN`, as the site's policy says.
    """

    voxel_above: float = Field(gt=0, lt=1)
    slice_above: float = Field(gt=0, lt=1)
    series_share: float = Field(gt=0, lt=1)


class Output(_Frozen):
    """Stored pixel values of the synthetic series.

    Attributes
    ----------
    black, white : int
        Stored values of intensity 0 and 1, unsigned 12 bit (0 to 4095), without a unit: T1-like
        intensity has none. `black` is less than `white`.
    """

    black: int = Field(ge=0)
    white: int = Field(gt=0, le=4095)

    @model_validator(mode="after")
    def _black_below_white(self) -> Self:
        if not self.black < self.white:
            raise ValueError(f"output black {self.black} must be less than white {self.white}")
        return self

    @property
    def stored_range(self) -> StoredRange:
        """The same as the writer applies it."""
        return StoredRange(black=self.black, white=self.white)


class Recipe(_Frozen):
    """Everything besides the weights that determines the result.

    Attributes
    ----------
    objective : {"directional", "raw", "unitized", "regression"}
        What the weights were trained for.
    widths : tuple of int
        Channels of the network per level; rows and columns are multiples of 2 ** levels.
    spacing_mm : float
        Slice spacing of the synthetic series.
    sampling : tuple of float
        Time steps m at which the network is evaluated, falling from 1.0 (CT); 0 is MR.
    eta : float
        Share of fresh noise per step: 0 deterministic, 1 the paper's (eq. 4).
    output : Output
        Stored pixel values of the synthetic series.
    abstain : Abstain or None
        Limits on the uncertainty; None where no calibration set any.
    tissue_level_hu : float or None
        Level of brain tissue that the weights expect: the soft tissue of a series is shifted to
        it (`rebrain_node.model.tissue_level`). None leaves it as measured.
    uncertainty_shifts_hu : tuple of float
        Shifts of the soft tissue of the input; the residual-scale head has learned the spread of
        the drawings at these (`rebrain_node.model.residual_scale`). Empty for a head that has not.
    whole_face : bool
        Whether the head mask holds nose and maxilla where they are thin; the masks of bundles
        before 2.0 do not (`with_whole_face` of `rebrain_node.model.head_mask`).
    z_filter_mm : float
        Standard deviation of the Gaussian of the filter along the normal
        (`rebrain_node.model.z_filter`), which takes the stripes of measured slices away; 0 for no
        filter.
    channels, scalars : tuple of str
        Order of the network's input, fixed; written so that a bundle can be read on its own.
    """

    format: Literal[1] = 1
    objective: Objective
    grid: Grid
    widths: tuple[Width, ...] = Field(default=WIDTHS, min_length=2)
    brain_window: Window
    wide_window: Window
    spacing_mm: float = Field(gt=0)
    sampling: tuple[float, ...] = Field(min_length=1)
    eta: float = Field(ge=0, le=1)
    output: Output
    retrieval: Retrieval = Retrieval()
    abstain: Abstain | None = None
    tissue_level_hu: float | None = Field(default=None, ge=20, le=50)
    uncertainty_shifts_hu: tuple[Annotated[float, Field(ge=-15, le=15)], ...] = ()
    whole_face: bool = False
    z_filter_mm: float = Field(default=0.0, ge=0, le=3)
    channels: Channels = CHANNELS
    scalars: Scalars = SCALARS

    @model_validator(mode="after")
    def _levels_fit_the_grid(self) -> Self:
        multiple = 2 ** len(self.widths)
        if self.grid.rows % multiple or self.grid.columns % multiple:
            raise ValueError(
                f"grid {self.grid.rows} x {self.grid.columns} must be multiples of {multiple} "
                f"for a network of {len(self.widths)} levels"
            )
        return self

    @model_validator(mode="after")
    def _sampling_falls(self) -> Self:
        time_steps = (*self.sampling, 0.0)
        falls = all(a > b for a, b in pairwise(time_steps))
        if time_steps[0] != 1.0 or not falls:
            raise ValueError(
                f"sampling {self.sampling} must fall from exactly 1.0 and stay above 0"
            )
        return self

    @property
    def retrieves(self) -> bool:
        """Whether targets between measured slices are looked up in the knowledge base."""
        return self.retrieval.method != "none"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a recipe; raises `pydantic.ValidationError` naming the field at fault."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Write the recipe, one key a line; a field that recipes of format 1 may lack, if set."""
        unset = {name for name in _LATER_FIELDS if not getattr(self, name)}
        return json.dumps(self.model_dump(mode="json", exclude=unset), indent=2) + "\n"
