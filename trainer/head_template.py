"""Make the head template: the CT template of `trainer.template` at 4 mm, with its brain.

Every training head takes its MNI coordinates from this CT template, so the head frame of the node
and the true positions of the trainer are one frame by construction.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.model.headtemplate import ORIGIN_MM, SHAPE, SPACING_MM, levels
from trainer.template import Template, load_template

_LICENCE = "clinical_toolbox.LICENSE"  # BSD-2-Clause, beside the CT template
_NOTICE = """\
template.npz is derived from the CT template of the Clinical Toolbox for SPM (C. Rorden and others),
smoothed and sampled at 4 mm. Its licence:

"""


def coarse(template: Template) -> dict[str, NDArray[np.uint8]]:
    """Return the arrays of the template's file, each (z, y, x) uint8, 0 to 255.

    Raises
    ------
    ValueError
        The CT template is not the one the head frame is written down for.
    """
    spacing_mm = template.image.GetSpacing()[0]
    fold = round(SPACING_MM / spacing_mm)
    smooth = fold / 2.4  # voxels; the blur of a box of 4 mm

    def sampled(values: NDArray[np.floating], blur: float) -> NDArray[np.uint8]:
        thin = ndi.gaussian_filter(values, blur, mode="nearest")[::fold, ::fold, ::fold]
        return np.clip(np.rint(thin * 255), 0, 255).astype(np.uint8)

    brain = np.clip(template.grey + template.white + template.csf, 0, 1)
    arrays = {"level": sampled(levels(template.hu), smooth), "brain": sampled(brain, smooth)}
    found = template.image.GetOrigin(), arrays["level"].shape
    if found != (ORIGIN_MM, SHAPE):
        raise ValueError(f"the CT template lies at {found}, the head frame at {ORIGIN_MM}, {SHAPE}")
    return arrays


def write_head_template(data: Path, folder: Path) -> int:
    """Write `template.npz` and `LICENSE`; returns the size of the former in bytes."""
    arrays = coarse(load_template(data / "templates"))
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type] # arrays only
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.npz").write_bytes(stream.getvalue())
    licence = (data / "templates" / _LICENCE).read_text()
    (folder / "LICENSE").write_text(_NOTICE + licence)
    return len(stream.getvalue())
