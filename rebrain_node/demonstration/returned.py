"""A result as a volume again, from what is in the archive: source and derived instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, ParametricMapStorage
from scipy import ndimage

from rebrain_node.domain import marks
from rebrain_node.domain.volume import FloatArray, Guide, PreparedVolume, SliceKind, SyntheticVolume
from rebrain_node.model.recipe import Recipe
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.preprocess import preprocess

_MR: Final = (MRImageStorage, EnhancedMRImageStorage)


def volume_of(
    source: Sequence[Dataset], derived: Sequence[Dataset], recipe: Recipe
) -> SyntheticVolume:
    """Rebuild the volume from its objects, with the prepared source it was made from.

    Parameters
    ----------
    source : sequence of Dataset
        The series the result was made from.
    derived : sequence of Dataset
        The objects the destination received.
    recipe : Recipe
        Of the bundle that made it.
    """
    prepared = preprocess(assemble(source), recipe)
    intensity = _intensity(derived)
    return SyntheticVolume(
        intensity=intensity,
        uncertainty=_uncertainty(derived, intensity),
        calibrated=False,
        head=np.stack([ndimage.binary_fill_holes(drawn) for drawn in intensity > 0.0]),
        guides=_guides(prepared, derived),
        prepared=prepared,
    )


def _guides(prepared: PreparedVolume, derived: Sequence[Dataset]) -> tuple[Guide, ...]:
    """How each slice came about, as its private block says."""
    kinds: dict[str, SliceKind] = {marks.POSITION_KINDS[k]: k for k in get_args(SliceKind)}
    return tuple(
        Guide(target=target, kind=kinds[_kind(told)], reason="as the received instance says")
        for target, told in zip(prepared.targets, _slices(derived), strict=True)
    )


def _slices(derived: Sequence[Dataset]) -> list[Dataset]:
    """What is told of each slice: by its instance, or by its frame of an Enhanced MR."""
    return [
        told
        for image in _images(derived)
        for told in image.get("PerFrameFunctionalGroupsSequence", [image])
    ]


def _kind(told: Dataset) -> str:
    block = told.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
    return str(block[marks.POSITION_KIND.offset].value)


def _images(derived: Sequence[Dataset]) -> list[Dataset]:
    """Return the MR series in the order of its numbers."""
    return sorted(
        (instance for instance in derived if instance.SOPClassUID in _MR),
        key=lambda instance: int(instance.InstanceNumber),
    )


def _intensity(derived: Sequence[Dataset]) -> FloatArray:
    """Intensity [0, 1] of the MR series, (slices, rows, columns), in the order of its numbers.

    An Enhanced MR holds its frames in that order (``GATE-ORDER``).
    """
    images = _images(derived)
    white = 2 ** int(images[0].BitsStored) - 1
    stored = np.concatenate(
        [image.pixel_array.reshape(-1, image.Rows, image.Columns) for image in images]
    )
    return np.asarray(stored, dtype=np.float32) / np.float32(white)


def _uncertainty(derived: Sequence[Dataset], intensity: FloatArray) -> FloatArray:
    """Uncertainty map in the same unit; zero where the node writes none."""
    for instance in derived:
        if instance.SOPClassUID == ParametricMapStorage:
            return np.asarray(instance.pixel_array, dtype=np.float32)
    return np.zeros_like(intensity)
