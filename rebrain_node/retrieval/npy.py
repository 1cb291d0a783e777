"""Plain arrays from verified bytes: no pickle, no copy, and no larger than the bytes say."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY\x01\x00"


class NpyError(ValueError):
    """The bytes are no plain array of the kind that was expected."""


def read_npy(content: bytes, dtype: str, axes: int) -> npt.NDArray[Any]:
    """Read a ``.npy`` file as a read-only view of its bytes.

    Parameters
    ----------
    content : bytes
        The whole file.
    dtype : str
        Expected, in numpy's words, e.g. ``<f4``.
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
        raise NpyError("is no .npy file of version 1.0")
    stream.seek(len(_MAGIC))
    try:
        header = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise NpyError(f"has no readable head: {error}") from error
    shape, fortran_order, found = header
    if found.hasobject or found != np.dtype(dtype):
        raise NpyError(f"holds {found}, expected {np.dtype(dtype)}")
    if fortran_order or len(shape) != axes:
        raise NpyError(f"has the shape {shape}, expected {axes} axes in C order")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    held = len(content) - stream.tell()
    if count * found.itemsize != held:
        raise NpyError(f"holds {held} bytes of values, its header says {count * found.itemsize}")
    return np.frombuffer(content, dtype=found, offset=stream.tell(), count=count).reshape(shape)


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """Write an array as a ``.npy`` file of version 1.0 in C order."""
    stream = io.BytesIO()
    np.lib.format.write_array(
        stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
    )
    return stream.getvalue()
