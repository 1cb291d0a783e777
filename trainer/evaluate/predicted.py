"""Volumes that another method drew, read from a folder and held against the grid of the data.

`<subject>.nii.gz` or `<subject>.nii`, or `<subject>.npy`, or `<subject>.npz` with one array: all
slices of the subject, (slice, row, column) of the data set for arrays, in the unit of its target.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from rebrain_node.errors import RebrainError
from trainer.data.dataset import Subject

Volume = NDArray[np.float32]

SUFFIXES = (".nii.gz", ".nii", ".npy", ".npz")
_SPACING_TOLERANCE_MM = 0.01


class PredictionRefused(RebrainError):
    """A prediction cannot be scored; the message names its file."""


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions under the name of its method."""

    name: str
    folder: Path

    def path(self, subject: str) -> Path:
        """Return the file of a subject.

        Raises
        ------
        PredictionRefused
            There is none, or more than one.
        """
        found = [self.folder / f"{subject}{suffix}" for suffix in SUFFIXES]
        found = [path for path in found if path.is_file()]
        if len(found) != 1:
            raise PredictionRefused(
                f"{self.folder}: {len(found)} files for subject {subject}, expected one of "
                + ", ".join(f"{subject}{suffix}" for suffix in SUFFIXES)
            )
        return found[0]

    def read(self, subject: Subject) -> Volume:
        """Read one subject's volume, in the unit of the data set's target.

        Raises
        ------
        PredictionRefused
            The file is damaged, on another grid, or holds values that are not finite.
        """
        path = self.path(subject.name)
        volume = _array(path) if path.suffix in {".npy", ".npz"} else _nifti(path, subject)
        if volume.shape != subject.source.shape:
            raise PredictionRefused(
                f"{path}: shape {volume.shape}, expected {subject.source.shape} "
                "(slice, row, column) as the data set"
            )
        bad = int(np.count_nonzero(~np.isfinite(volume)))
        if bad:
            raise PredictionRefused(f"{path}: {bad} values are not finite")
        return volume


def _array(path: Path) -> Volume:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content.astype(np.float32)
        with content as archive:
            if len(archive.files) != 1:
                raise PredictionRefused(f"{path}: {len(archive.files)} arrays, expected one")
            return np.asarray(archive[archive.files[0]], dtype=np.float32)
    except (ValueError, OSError, EOFError) as error:
        raise PredictionRefused(f"{path} cannot be read: {error}") from error


def _nifti(path: Path, subject: Subject) -> Volume:
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise PredictionRefused(f"{path} cannot be read as NIfTI") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise PredictionRefused(f"{path}: {image.GetDimension()}-D, expected one 3-D volume")
    image = SimpleITK.DICOMOrient(image, "LPS")
    if subject.pixel_mm is not None:
        columns_mm, rows_mm, slices_mm = image.GetSpacing()
        found = (slices_mm, rows_mm, columns_mm)
        expected = (float(np.median(np.diff(subject.positions_mm))), *subject.pixel_mm)
        if not np.allclose(found, expected, rtol=0, atol=_SPACING_TOLERANCE_MM):
            raise PredictionRefused(
                f"{path}: voxels of {_mm(found)} mm, expected {_mm(expected)} "
                "(slice, row, column) as the data set"
            )
    return np.asarray(SimpleITK.GetArrayFromImage(image), dtype=np.float32)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.3f}" for value in spacing)
