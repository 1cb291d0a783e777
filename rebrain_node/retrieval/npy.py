"""Strict reading of ``.npy`` files from bytes: no pickle, no copy, size checked before use."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY\x01\x00"


class NpyError(ValueError):
    """The bytes are not a ``.npy`` file of the expected type and shape."""


def read_npy(content: bytes, dtype: str, axes: int) -> npt.NDArray[Any]:
    """Read a ``.npy`` file as a read-only view of its bytes.

    Parameters
    ----------
    content : bytes
        The whole file.
    dtype : str
        Expected, as numpy writes it, e.g. ``<f4``.
    axes : int
        Expected number of axes.

    Raises
    ------
    NpyError
        Not a ``.npy`` file, pickled objects, another dtype or number of axes, or more or fewer
        bytes than its own header says.
    """
    stream = io.BytesIO(content)
    if not content.startswith(_MAGIC):
        raise NpyError("is not a .npy file of version 1.0")
    stream.seek(len(_MAGIC))
    try:
        header = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise NpyError(f"has no readable header: {error}") from error
    shape, fortran_order, actual = header
    if actual.hasobject or actual != np.dtype(dtype):
        raise NpyError(f"contains {actual}, expected {np.dtype(dtype)}")
    if fortran_order or len(shape) != axes:
        raise NpyError(f"has the shape {shape}, expected {axes} axes in C order")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    size = len(content) - stream.tell()
    if count * actual.itemsize != size:
        raise NpyError(
            f"contains {size} bytes of values, its header says {count * actual.itemsize}"
        )
    return np.frombuffer(content, dtype=actual, offset=stream.tell(), count=count).reshape(shape)


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """Write an array as a ``.npy`` file of version 1.0 in C order."""
    stream = io.BytesIO()
    np.lib.format.write_array(
        stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
    )
    return stream.getvalue()
