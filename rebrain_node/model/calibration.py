"""`calibration.json`: factors from the residual scale to prediction intervals, and their evidence.

The factors are conformal (Angelopoulos et al., Conformal Risk Control, 2022), with one subject as
one observation: voxels of one subject are not exchangeable with those of another.
"""

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.domain.volume import SliceKind

#: a calibration holds for exactly these files
CALIBRATED_FILES = ("network.onnx", "scale.onnx")
SHA256 = "^[0-9a-f]{64}$"


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
        Written beside every map: "calibrated, n = 25" or "UNCALIBRATED, n = 4".
    set_digest : str
        SHA-256 of the calibration set: the residuals of every subject.
    subjects : tuple of str
        Opaque names of the subjects.
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
        label = UncertaintyInterpretation(alpha=self.alpha, subjects=self.people).label
        if self.label != label:
            return f"its label is {self.label!r}, by alpha and people it must be {label!r}"
        return None

    def to_json(self) -> str:
        """Write it, one key a line."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
