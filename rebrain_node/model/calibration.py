"""`calibration.json`: how many scales of the residual-scale head hold the truth, and who says so.

The widths are conformal (Angelopoulos et al., Conformal Risk Control, 2022), with one person as
one observation: voxels of a head are not exchangeable with those of another.
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
    """How wide the intervals of one kind of slice are.

    Attributes
    ----------
    scales : float
        lambda: the half-width of the interval is so many b.
    people : int
        n for this kind; 0 where no held-out slice was of it and the width is that of another.
    conformal : bool
        Whether lambda is the conformal one; False where n is too small for any and lambda is the
        plain quantile of the people there are.
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
        Share of a head's voxels that the intervals may miss.
    people : int
        n, the smallest over the kinds that were met.
    label : str
        As written beside every map: "calibrated, n = 25" or "UNCALIBRATED, n = 4".
    set_digest : str
        SHA-256 that names the calibration set: the residuals of every person.
    subjects : tuple of str
        Opaque names of the people.
    files : mapping of str to str
        SHA-256 of each of `CALIBRATED_FILES`: another network has other residuals.
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
        """Say why this calibration is not that of a bundle, or None.

        Parameters
        ----------
        digests : mapping of str to str
            SHA-256 of the files of the bundle by name.
        """
        for name in CALIBRATED_FILES:
            wanted, found = self.files.get(name), digests.get(name)
            if wanted != found or found is None:
                return f"it was made with {name} of SHA-256 {wanted}, the bundle has {found}"
        if set(self.widths) != {"measured", "retrieved", "interpolated"}:
            return f"it has widths of {sorted(self.widths)}, not of every kind of slice"
        label = UncertaintyInterpretation(alpha=self.alpha, people=self.people).label
        if self.label != label:
            return f"its label is {self.label!r}, by alpha and people it must be {label!r}"
        return None

    def to_json(self) -> str:
        """Write it, one key a line, for people as well."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
