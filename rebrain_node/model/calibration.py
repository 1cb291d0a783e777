"""`calibration.json`: factors from the residual scale to prediction intervals, and their evidence.

The factors are conformal (Angelopoulos et al., Conformal Risk Control, 2022), with one subject as
one observation: voxels of one subject are not exchangeable with those of another.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rebrain_node.domain.uncertainty import CalibrationSource, UncertaintyInterpretation
from rebrain_node.domain.volume import FloatArray, SliceKind

#: a calibration holds for exactly these files
CALIBRATED_FILES = ("network.onnx", "scale.onnx")
SHA256 = "^[0-9a-f]{64}$"
Curve = tuple[tuple[float, float], ...]


class Width(BaseModel):
    """Width of the intervals of one kind of slice.

    Attributes
    ----------
    scales : float
        lambda: the half-width of the interval divided by b.
    people : int
        Number of subjects for this kind; 0 where no held-out slice was of it and the width is
        that of another kind.
    conformal : bool
        Whether lambda is the conformal one; False where there are too few subjects for one and
        lambda is the plain quantile over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    scales: float = Field(gt=0)
    people: int = Field(ge=0)
    conformal: bool


class Calibration(BaseModel):
    """`calibration.json` of a bundle.

    Attributes
    ----------
    alpha : float
        Share of the voxels of a head whose truth may lie outside the interval.
    people : int
        Number of subjects, the smallest over the kinds that occurred.
    label : str
        Written beside every map: "calibrated on simulated CT, n = 25" or "UNCALIBRATED, n = 4".
        Bundles before 2.0 may say "calibrated, n = 25".
    source : str
        What the subjects were; bundles before 2.2 do not say, and mean simulated CT.
    set_digest : str
        SHA-256 of the calibration set: the residuals of every subject.
    subjects : tuple of str
        Opaque names of the subjects.
    curve : tuple of (float, float)
        Points (scale, half-width for lambda 1), both rising; empty where the half-width is lambda
        times the scale.
    files : mapping of str to str
        SHA-256 of each of `CALIBRATED_FILES`; another network has other residuals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    format: Literal[1] = 1
    alpha: float = Field(gt=0, lt=1)
    people: int = Field(ge=1)
    label: str
    widths: dict[SliceKind, Width]
    set_digest: str = Field(pattern=SHA256)
    subjects: tuple[str, ...]
    files: dict[str, str]
    curve: Curve = ()
    source: CalibrationSource = "simulated CT"

    @model_validator(mode="after")
    def _curve_rises(self) -> Self:
        rises = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(self.curve))
        if self.curve and not (rises and len(self.curve) > 1 and min(self.curve[0]) > 0.0):
            raise ValueError("curve must be empty, or two or more points > 0 that rise in both")
        return self

    def half_width(self, scale: FloatArray, kind: SliceKind) -> FloatArray:
        """Return the half-widths of voxels of these scales, of a kind of slice, any shape."""
        wide = bent(scale, self.curve) if self.curve else scale
        return np.asarray(wide * np.float32(self.widths[kind].scales), dtype=np.float32)

    def width_of(self, kind: SliceKind) -> float:
        """Return lambda of a kind of slice."""
        return self.widths[kind].scales

    def fault(self, digests: Mapping[str, str]) -> str | None:
        """Return why this calibration does not belong to a bundle, or None.

        Parameters
        ----------
        digests : mapping of str to str
            SHA-256 of the files of the bundle by name.
        """
        for name in CALIBRATED_FILES:
            expected, actual = self.files.get(name), digests.get(name)
            if expected != actual or actual is None:
                return f"it was made with {name} of SHA-256 {expected}, the bundle has {actual}"
        if set(self.widths) != {"measured", "retrieved", "interpolated"}:
            return f"it has widths for {sorted(self.widths)}, not for every kind of slice"
        label = UncertaintyInterpretation(
            alpha=self.alpha, subjects=self.people, source=self.source
        ).label
        if self.label not in (label, label.replace(" on simulated CT", "")):
            return f"its label is {self.label!r}, by alpha and people it must be {label!r}"
        return None

    def to_json(self) -> str:
        """Write it, one key a line; what earlier nodes refuse only where it says something."""
        fields = type(self).model_fields
        unset = {
            name for name in ("curve", "source") if getattr(self, name) == fields[name].default
        }
        return json.dumps(self.model_dump(mode="json", exclude=unset), indent=2) + "\n"


def bent(scale: FloatArray, curve: Curve) -> FloatArray:
    """Map scales to half-widths by a curve, any shape.

    Between points it is linear; below the first and above the last proportional to the scale.
    """
    scales, widths = np.array(curve, dtype=np.float64).T
    inner = np.interp(scale, scales, widths)
    outer = scale / np.clip(scale, scales[0], scales[-1])
    return np.asarray(inner * outer, dtype=np.float32)
