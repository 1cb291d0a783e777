"""Looks for NaN and infinity in the bytes of a NIfTI file.

The reader of SimpleITK replaces them by 0 without a word, so they have to be found beforehand.
Header fields by byte offset: NIfTI-1, https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

import gzip
import struct
from pathlib import Path

import numpy as np

_HEADER_BYTES = 348
_FLOATS = {16: "f4", 64: "f8"}  # datatype codes of float32 and float64


def not_finite(path: Path) -> int:
    """Return how many voxels of a NIfTI-1 file are NaN or infinite; 0 for whole numbers."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    if len(content) < _HEADER_BYTES:
        return 0
    order = "<" if struct.unpack_from("<i", content)[0] == _HEADER_BYTES else ">"
    (code,) = struct.unpack_from(f"{order}h", content, 70)
    (start,) = struct.unpack_from(f"{order}f", content, 108)
    if code not in _FLOATS:
        return 0
    voxels = content[int(start) :]
    kind = np.dtype(order + _FLOATS[code])
    whole = len(voxels) // kind.itemsize
    return int(np.count_nonzero(~np.isfinite(np.frombuffer(voxels, kind, whole))))
