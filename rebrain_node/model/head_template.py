"""The head template: the mean of simulated head CTs of many subjects in MNI space, 4 mm.

It ships with the package, not with a bundle: by registration to it the node finds whether a series
shows a head and where each slice lies. A knowledge base names the template's digest, because
positions are comparable under one template only.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.volume import FloatArray, MaskArray, MillimetreArray

SPACING_MM = 4.0
#: LPS mm of the first voxel (x, y, z) and the size (z, y, x) of the template's grid
ORIGIN_MM = (-90.0, -90.0, -72.0)
SHAPE = (46, 55, 46)
#: HU and its brightness level: contrast of head to air, and of brain to water and bone
_HU = (-1000.0, -200.0, 0.0, 40.0, 80.0, 300.0, 1200.0)
_LEVEL = (0.0, 0.25, 0.38, 0.55, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True)
class HeadTemplate:
    """Arrays on the template's grid, axis order (z, y, x), LPS."""

    level: FloatArray  #: 0 to 1, see `levels`
    brain: FloatArray  #: 0 to 1, share of the heads with brain at the voxel
    known: MaskArray  #: where the fields of view of enough heads reach
    digest: str  #: SHA-256 of the file, hexadecimal


def levels(hu: npt.NDArray[np.floating]) -> FloatArray:
    """Map HU to the template's brightness, 0 to 1, any shape."""
    return np.asarray(np.interp(hu, _HU, _LEVEL), dtype=np.float32)


def points_mm() -> MillimetreArray:
    """LPS mm of every voxel of the template, (z, y, x, 3) in the order x, y, z."""
    axes = [
        start + SPACING_MM * np.arange(count)
        for start, count in zip(ORIGIN_MM, SHAPE[::-1], strict=True)
    ]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([x, y, z], axis=-1)


def read_head_template(content: bytes) -> HeadTemplate:
    """Read the template from the bytes of its file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return HeadTemplate(
            level=arrays["level"].astype(np.float32) / 255,
            brain=arrays["brain"].astype(np.float32) / 255,
            known=arrays["known"] > 0,
            digest=hashlib.sha256(content).hexdigest(),
        )


@cache
def load_head_template() -> HeadTemplate:
    """Read the template that ships with the package."""
    file = resources.files("rebrain_node") / "head_template" / "template.npz"
    return read_head_template(file.read_bytes())
