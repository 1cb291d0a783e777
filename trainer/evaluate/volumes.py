"""Volumes of brain, ventricles and grey matter in a synthetic T1, against those in the true T1.

Both images are segmented alike by code of others: the brain by deepbet (Fisch et al., Computers in
Biology and Medicine 2024; MIT; extra `volumes`), the classes by K-means of SimpleITK. A
synthetic T1 is smoother than a real one: thin CSF between gyri is counted as grey matter and narrow
parts of the ventricles are lost, so that volumes measured in it are not the patient's (hazard H25).
"""

import importlib
import importlib.util
from typing import Any, Final

import numpy as np

from trainer.data.dataset import Mask, Volume
from trainer.evaluate.scanned_heads import NodeResult
from trainer.evaluate.tissue import tissue_volumes

EXTRA: Final = "volumes"
_MISSING: Final = (
    "deepbet is not installed (pip install 'rebrain-node[volumes]'): the volume of the brain was "
    "not compared, those of ventricles and grey matter inside the skull of the CT"
)


def relative_errors(result: NodeResult, truth: Volume) -> tuple[dict[str, float], str]:
    """Return by how much each volume in the synthetic T1 is larger than in the true T1.

    Parameters
    ----------
    result : NodeResult
        A whole head.
    truth : Volume
        (slice, row, column), the true T1 at its voxels.

    Returns
    -------
    errors : dict of float
        `volume_error_brain`, `volume_error_ventricles` and `volume_error_grey_matter`: 0.05 is 5 %
        too large.
    note : str
        What was not measured, and how to; empty where all was.
    """
    grid = result.volume.grid
    spacing = (result.volume.prepared.spacing_mm, grid.pixel_mm, grid.pixel_mm)
    head = result.volume.head
    images = [np.where(head, each, np.float32(0)) for each in (result.image, truth)]
    segmented = importlib.util.find_spec("deepbet") is not None
    masks = [_brain(each, spacing) if segmented else result.brain for each in images]
    if not all(mask.any() for mask in masks):
        return {}, "no brain was found in the synthetic or in the true T1: no volume was compared"
    own, true = (
        tissue_volumes(each, mask, spacing) for each, mask in zip(images, masks, strict=True)
    )
    errors = {
        f"volume_error_{name.replace(' ', '_')}": own[name] / true[name] - 1
        for name in own
        if true[name] > 0 and (segmented or name != "brain")
    }
    return errors, "" if segmented else _MISSING


def _brain(image: Volume, spacing_mm: tuple[float, float, float]) -> Mask:
    """Segment the brain with deepbet, (slice, row, column); its networks are in its package."""
    deepbet: Any = importlib.import_module("deepbet")
    nibabel: Any = importlib.import_module("nibabel")  # deepbet installs it
    along, down, across = spacing_mm
    affine = np.diag([-across, -down, along, 1.0])  # columns to the left, rows to the back
    nifti = nibabel.Nifti1Image(image.transpose(2, 1, 0), affine)
    _, mask, _ = deepbet.BrainExtraction(no_gpu=True).run(nifti)
    return np.asarray(np.asarray(mask.dataobj).transpose(2, 1, 0) > 0.5)
