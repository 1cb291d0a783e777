"""Rebuild the volume of a result from the source and derived instances in the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, ParametricMapStorage
from scipy import ndimage

from rebrain_node.domain import marks
from rebrain_node.domain.volume import (
    FloatArray,
    Guide,
    PreparedVolume,
    SliceKind,
    StoredArray,
    SyntheticVolume,
)
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.recipe import Recipe
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.gate.context import frames_as_slices
from rebrain_node.steps.preprocess import preprocess


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
    prepared = preprocess(assemble(source, shipped_limits().geometry), recipe)
    stored_range = recipe.output.stored_range
    intensity = stored_range.intensity(_stored(derived))
    return SyntheticVolume(
        intensity=intensity,
        uncertainty=_uncertainty(derived, intensity),
        head=np.stack([ndimage.binary_fill_holes(drawn) for drawn in intensity > 0.0]),
        guides=_guides(prepared, derived),
        prepared=prepared,
        stored_range=stored_range,
    )


def _guides(prepared: PreparedVolume, derived: Sequence[Dataset]) -> tuple[Guide, ...]:
    """Return the guide kind of each slice as its private block states it."""
    kinds: dict[str, SliceKind] = {marks.POSITION_KINDS[k]: k for k in get_args(SliceKind)}
    return tuple(
        Guide(target=target, kind=kinds[_kind(image)], reason="as the received instance says")
        for target, image in zip(prepared.targets, _images(derived), strict=True)
    )


def _kind(image: Dataset) -> str:
    block = image.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
    return str(block[marks.POSITION_KIND.offset].value)


def _images(derived: Sequence[Dataset]) -> list[Dataset]:
    """Return the slices of the MR series in the order of its numbers, frames as slices."""
    images = [instance for instance in derived if instance.SOPClassUID == MRImageStorage]
    for enhanced in derived:
        if enhanced.SOPClassUID == EnhancedMRImageStorage:
            images.extend(_of_one_frame(frame) for frame in frames_as_slices(enhanced))
    return sorted(images, key=lambda image: int(image.InstanceNumber))


def _of_one_frame(frame: Dataset) -> Dataset:
    """Let a flattened frame, which still counts those of its instance, be read as an image."""
    frame.add_new("NumberOfFrames", "IS", 1)  # a new element: the old one is the instance's
    return frame


def _stored(derived: Sequence[Dataset]) -> StoredArray:
    """Stored values of the MR series, (slices, rows, columns), in the order of its numbers."""
    return np.stack([image.pixel_array for image in _images(derived)])


def _uncertainty(derived: Sequence[Dataset], intensity: FloatArray) -> FloatArray:
    """Uncertainty map in the same unit and order; zero where the node writes none.

    A frame says itself where it lies (PS3.3 C.7.6.16.2.3); their order says nothing.
    """
    for instance in derived:
        if instance.SOPClassUID == ParametricMapStorage:
            (shared,) = instance.SharedFunctionalGroupsSequence
            mapping = shared.RealWorldValueMappingSequence[0]
            stored = np.asarray(instance.pixel_array, dtype=np.float32)
            frames = stored * np.float32(mapping.RealWorldValueSlope)
            frames += np.float32(mapping.RealWorldValueIntercept)
            places = np.array(
                [
                    [float(part) for part in frame.PlanePositionSequence[0].ImagePositionPatient]
                    for frame in instance.PerFrameFunctionalGroupsSequence
                ]
            )
            images = _images(derived)
            ends = [np.asarray(images[k].ImagePositionPatient, dtype=float) for k in (0, -1)]
            return frames[np.argsort(places @ (ends[1] - ends[0]))]
    return np.zeros_like(intensity)
