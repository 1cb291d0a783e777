"""The recipe: what must travel with the weights for the network to be used as it was trained.

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
    """How a missing position finds an exemplar slice of another head; "none" is SLERP alone.

    Attributes
    ----------
    tau : float or None
        Least cosine similarity for an exemplar to be used, -1 to 1; None takes the knowledge
        base's own threshold for `p`.
    p : int
        Which of the thresholds: the mean of the top `p` per cent of similarities between people.
    window_mm : float
        An exemplar lies at most this far from the target in the head frame, or 1.5 times the
        gap between the measured slices where that is more.
    k : int
        Number of candidates judged: the best one alone.
    """

    method: Literal["none", "exemplar"] = "none"
    tau: float | None = Field(default=None, ge=-1, le=1)
    p: Literal[1, 2, 5, 10, 20] = 5
    window_mm: float = Field(default=6.0, gt=0)
    k: Literal[1] = 1


class Abstain(_Frozen):
    """From where on the network does not know; in the unit of the uncertainty map.

    Attributes
    ----------
    voxel_above : float
        A voxel of larger uncertainty is in the mask of voxels not to be trusted.
    slice_above : float
        A slice of larger mean uncertainty inside the head is marked as not to be trusted.
    series_share : float
        A series of which more than this share of the slices is marked is refused, or published
        with the finding `UNCERTAIN`, as the site's policy says.
    """

    voxel_above: float = Field(gt=0, lt=1)
    slice_above: float = Field(gt=0, lt=1)
    series_share: float = Field(gt=0, lt=1)


class Output(_Frozen):
    """How the network's [-1, 1] becomes stored pixel values of the synthetic series.

    Attributes
    ----------
    black : int
        Stored value of -1.
    white : int
        Stored value of 1; at most 4095, the largest of 12 bits.
    """

    black: int = Field(ge=0)
    white: int = Field(gt=0, le=4095)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.black < self.white:
            raise ValueError(f"output black {self.black} must lie below white {self.white}")
        return self

    @property
    def stored_range(self) -> StoredRange:
        """The same as the writer applies it."""
        return StoredRange(black=self.black, white=self.white)


class Recipe(_Frozen):
    """Everything besides the weights that decides what one network evaluation means.

    Attributes
    ----------
    objective : {"directional", "raw", "unitized", "regression"}
        What the weights were trained for.
    widths : tuple of int
        Channels of the network per level; rows and columns are multiples of 2 ** levels.
    spacing_mm : float
        Slice spacing of the synthetic series.
    sampling : tuple of float
        Places on the bridge where the network is evaluated, from 1.0 downwards.
    eta : float
        Share of fresh noise per step: 0 deterministic, 1 the paper's (eq. 4).
    abstain : Abstain or None
        Limits on the uncertainty; None where no calibration set any.
    channels, scalars : tuple of str
        Order of the network's input, fixed; written out so that a bundle explains itself.
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
    def _walks_down(self) -> Self:
        places = (*self.sampling, 0.0)
        falls = all(a > b for a, b in pairwise(places))
        if places[0] != 1.0 or not falls:
            raise ValueError(
                f"sampling {self.sampling} must fall from exactly 1.0 and stay above 0"
            )
        return self

    @property
    def retrieves(self) -> bool:
        """Whether missing positions ask the knowledge base."""
        return self.retrieval.method != "none"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a recipe; raises `pydantic.ValidationError` naming the field at fault."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Write the recipe, one key a line, for people as well."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
