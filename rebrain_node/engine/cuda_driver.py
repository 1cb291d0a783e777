"""Memory and one stream of the first NVIDIA GPU, by the CUDA driver's own library.

TensorRT takes addresses of the GPU's memory and gives none. The driver's library comes with every
driver, so no further package is needed.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy.typing as npt

from rebrain_node.errors import EngineError

_LIBRARY: Final = "libcuda.so.1"
_CAPABILITY: Final = (75, 76)  #: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_TO_CPU: Final = 'install the NVIDIA driver, or set model.engine to "openvino"'


class GpuStream:
    """Memory of the first GPU, and the stream on which it is copied and computed with.

    Raises
    ------
    EngineError
        There is no driver, or it finds no GPU.
    """

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise EngineError(f"there is no NVIDIA driver here ({error}); {_TO_CPU}") from error
        self._call("cuInit", 0)
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self.handle = int(stream.value or 0)

    def enter(self) -> None:
        """Let the calling thread use the GPU."""
        self._call("cuCtxSetCurrent", self._context)

    @property
    def target(self) -> str:
        """Compute capability, e.g. ``SM89``."""
        parts = []
        for attribute in _CAPABILITY:
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
            parts.append(value.value)
        return f"SM{parts[0]}{parts[1]}"

    def allocate(self, size: int) -> int:
        """Return the address of new memory on the GPU, held until the process ends."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def write(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU."""
        self._copy("cuMemcpyHtoD_v2", ctypes.c_uint64(address), _pointer(array), array.nbytes)

    def read(self, address: int, array: npt.NDArray[Any]) -> None:
        """Wait for the stream and fill a contiguous array from the GPU."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.handle))
        self._copy("cuMemcpyDtoH_v2", _pointer(array), ctypes.c_uint64(address), array.nbytes)

    def _copy(self, name: str, target: object, source: object, size: int) -> None:
        self._call(name, target, source, ctypes.c_size_t(size))

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise EngineError(f"{name} of the NVIDIA driver answered {code}; {_TO_CPU}")


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
