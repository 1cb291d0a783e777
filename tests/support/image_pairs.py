"""Tiny pairs of heads as files: one asymmetric head with CT and MR brightness."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

SIZE = (12, 40, 32)  # slices, rows, columns
SPACING = (5.0, 5.0, 12.0)  # columns, rows, slices, mm


def head(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw CT (HU), MR and mask, (slice, row, column) LPS; no two axes or sides look the same."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    radius = np.sqrt((z * 0.7) ** 2 + y**2 + x**2)
    inside, brain = radius < 0.85, radius < 0.7
    left = brain & (x > 0.1) & (y < 0.2) & (z > 0)
    nose = (np.abs(x) < 0.15) & (y < -0.6) & (z < 0) & (radius < 1)
    ct = np.select([left, brain, inside | nose], [5.0, 38.0, 900.0], -1000.0)
    mr = np.select([left, brain, inside | nose], [40.0, 200.0, 60.0], 0.0)
    noise = rng.normal(0, 1, (2, *SIZE))
    shown = inside | nose
    return np.round(ct + shown * noise[0]), mr + shown * np.abs(noise[1]), shown


def image_of(array: np.ndarray, degrees: float = 0.0) -> sitk.Image:
    """Return an image along LPS, turned about the left-right axis by so many degrees."""
    image = sitk.GetImageFromArray(np.asarray(array, np.float32))
    image.SetSpacing(SPACING)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    image.SetDirection([1, 0, 0, 0, cosine, -sine, 0, sine, cosine])
    image.SetOrigin((-80.0, -100.0, -60.0))
    return image


def save(array: np.ndarray, path: Path, degrees: float = 0.0, axes: str = "LPS") -> Path:
    """Write a NIfTI file with its axes stored in another order, at the same place in space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image_of(array, degrees), axes), str(path))
    return path


def synthrad(folder: Path, name: str, seed: int = 0, axes: str = "LPS") -> Path:
    """Write one subject in the layout of SynthRAD2023."""
    ct, mr, mask = head(seed)
    for what, array in (("ct", ct), ("mr", mr), ("mask", mask)):
        save(array, folder / name / f"{what}.nii.gz", axes=axes)
    return folder / name
