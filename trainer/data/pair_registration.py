"""In-plane registration of 2-D pairs: each real T1 slice onto its CT slice, frozen as a file.

Each shift is found from the CT and the REAL T1 of its slice alone (mutual information of Mattes et
al., IEEE TMI 22(1), 2003, by SimpleITK): no network takes part, so that no bundle is favoured. Only
shifts, in whole pixels, so that nothing is interpolated. A scale does not pay: fat is black in the
window of this CT and bright on T1, and mutual information shrinks the T1 until its scalp lies on
the bone (mean scale 1.05; the correlation of bundle 1.2.0 in the skull falls from .43 to .37).

The file has the SHA-256 of the archive and of its own transforms; it holds no image.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage as ndi

from trainer.data.dataset import DatasetError, Volume, digest_of
from trainer.data.masks import head_in_window

SHIPPED: Final = "ct_t1_pairs_7patients.json"
#: a slice that would be moved by more of its side is left as it is
MOST_SHIFT: Final = 0.12
_BINS = 32
_AROUND_PX = 12  # of the head that counts too: its outline guides the shift
_SHIFT_ALONE = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0)  # weights of the affine's parameters

Transform = tuple[int, int]  # columns to the right and rows down, pixels
IDENTITY: Final[Transform] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class PairRegistration:
    """The transforms of one archive.

    Attributes
    ----------
    data_sha256 : str
        Of the archive that they belong to.
    transforms : mapping of str to Transform
        By `PATIENT/SLICE`: from a point of the CT to the same point of the T1.
    """

    data_sha256: str
    transforms: Mapping[str, Transform]

    @property
    def digest(self) -> str:
        """SHA-256 of archive digest and transforms."""
        content = json.dumps([self.data_sha256, dict(self.transforms)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def to_json(self) -> str:
        """Write the file, one slice a line."""
        head = json.dumps(
            {"format": 1, "data_sha256": self.data_sha256, "digest": self.digest}, indent=1
        )
        rows = ",\n  ".join(
            f"{json.dumps(key)}: {json.dumps(values)}" for key, values in self.transforms.items()
        )
        return head.removesuffix("\n}") + f',\n "transforms": {{\n  {rows}\n }}\n}}\n'

    def onto_ct(self, t1: Volume, key: str) -> Volume:
        """Move a T1 slice, (rows, columns), onto its CT; black where it ends.

        Raises
        ------
        DatasetError
            The slice is not in the file.
        """
        if key not in self.transforms:
            raise DatasetError(f"slice {key} is not in the registration of the pairs")
        right, below = self.transforms[key]
        moved: Volume = ndi.shift(t1, (-below, -right), order=0, mode="constant", cval=0.0)
        return moved


def shipped_registration(archive: Path) -> PairRegistration:
    """Read the registration that ships with the trainer and check that it is of this archive.

    Raises
    ------
    DatasetError
        The archive has other bytes, or the file was altered.
    """
    file = resources.files("trainer.data") / SHIPPED
    return registration_of(file.read_bytes(), archive)


def registration_of(content: bytes, archive: Path) -> PairRegistration:
    """Parse a registration and check its digest and that of the archive.

    Raises
    ------
    DatasetError
        It is damaged, was altered, or belongs to another archive.
    """
    try:
        values: dict[str, Any] = json.loads(content)
        found = PairRegistration(
            data_sha256=values["data_sha256"],
            transforms={key: _transform(each) for key, each in values["transforms"].items()},
        )
        stated = values["digest"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"the registration of the pairs cannot be read: {error}") from error
    if stated != found.digest:
        raise DatasetError(
            f"the registration of the pairs was altered: its digest is {found.digest}, it states "
            f"{stated}; make it again by `rebrain-train register-pairs`"
        )
    actual = digest_of(archive)
    if actual != found.data_sha256:
        raise DatasetError(
            f"{archive} has the SHA-256 {actual}; the registration is of {found.data_sha256}. "
            "Make one for this archive by `rebrain-train register-pairs`"
        )
    return found


def _transform(values: Any) -> Transform:
    right, below = map(int, values)
    return right, below


def register_pairs(
    ct: NDArray[np.uint8], t1: NDArray[np.uint8], advance: Callable[[], None]
) -> list[Transform]:
    """Register every T1 slice to its CT slice.

    Parameters
    ----------
    ct, t1 : ndarray of uint8
        (n, rows, columns), CT through the window C40 W80.
    advance : callable
        Called after each slice.
    """
    found = []
    for fixed, moving in zip(ct, t1, strict=True):
        found.append(_registered(fixed.astype(np.float32), moving.astype(np.float32)))
        advance()
    return found


def _registered(ct: Volume, t1: Volume) -> Transform:
    """Register one slice from coarse to fine; `IDENTITY` where the result is not plausible."""
    near = ndi.binary_dilation(head_in_window(ct / np.float32(255)), iterations=_AROUND_PX)
    rows, columns = ct.shape
    affine = sitk.AffineTransform(2)
    affine.SetCenter(((columns - 1) / 2, (rows - 1) / 2))
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(sitk.GetImageFromArray(near.astype(np.uint8)))
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, 200, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerWeights(_SHIFT_ALONE)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 1])
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(affine, inPlace=True)
    try:
        method.Execute(sitk.GetImageFromArray(ct), sitk.GetImageFromArray(t1))
    except RuntimeError:  # a slice of one brightness has no information to share
        return IDENTITY
    *_, right, below = affine.GetParameters()
    if max(abs(right) / columns, abs(below) / rows) > MOST_SHIFT:
        return IDENTITY
    return round(right), round(below)
