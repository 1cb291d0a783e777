"""Reads the voxels of a NIfTI-1 file: enough to look at each slice.

Field offsets: NIfTI-1, https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h. The orientation
is not read; rows and columns are the first two axes of the file.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

_HEADER: Final = 348  #: bytes; also the first field
_MOST_BYTES: Final = 1 << 30
_TYPES: Final = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
}  # fmt: skip


def read_nifti(path: Path) -> npt.NDArray[np.generic]:
    """Read a volume, (x, y, z), or more axes; values as stored, the scaling is not applied.

    Raises
    ------
    ValueError
        No NIfTI-1 file of one part, damaged, of another type of values, or larger than 1 GiB.
    OSError
        The file cannot be read.
    """
    opening = gzip.open if path.suffix == ".gz" else open
    try:
        with opening(path, "rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name} is no complete gzip file") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(
            f"{path.name} has more than {_MOST_BYTES} bytes, which are not searched; cut a part of "
            "the slices out"
        )
    order = next((o for o in "<>" if content[:4] == struct.pack(f"{o}i", _HEADER)), None)
    if order is None or len(content) < _HEADER or content[344:347] != b"n+1":
        raise ValueError(f"{path.name} is no NIfTI-1 file of one part (.nii, .nii.gz)")
    axes, *sizes = struct.unpack_from(f"{order}8h", content, 40)
    (code,) = struct.unpack_from(f"{order}h", content, 70)
    (offset,) = struct.unpack_from(f"{order}f", content, 108)
    shape = tuple(sizes[: max(0, min(axes, 7))])
    if code not in _TYPES or len(shape) < 2 or min(shape) < 1 or not _HEADER <= offset < 1e6:
        raise ValueError(
            f"{path.name} has values of type {code}, the size {shape} and its voxels at byte "
            f"{offset:g}; read are two to seven axes of whole or real numbers (types "
            f"{', '.join(map(str, _TYPES))}) behind the header"
        )
    kind = np.dtype(order + _TYPES[code])
    count = int(np.prod(shape, dtype=object))
    if len(content) < int(offset) + count * kind.itemsize:
        raise ValueError(f"{path.name} ends before its last voxel")
    values = np.frombuffer(content, kind, count, int(offset))
    return values.reshape(shape, order="F")
