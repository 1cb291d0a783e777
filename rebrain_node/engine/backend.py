"""Protocols of an inference library: it loads networks of a bundle and runs them on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.bundle import ModelBundle

#: networks of a bundle
GraphName = Literal["network", "control", "encoder", "scale"]


class Graph(Protocol):
    """One loaded network; not thread-safe."""

    @property
    def identity(self) -> str:
        """Library, version and precision (``openvino 2026.4.1 bf16``), part of the provenance."""

    @property
    def deviation_limit(self) -> float:
        """Limit of the RMS of the deviation divided by the RMS of the golden output."""

    def run(self, arrays: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        """Evaluate once.

        Parameters
        ----------
        arrays : mapping of str to FloatArray
            ``x`` and ``s`` for the network and the residual-scale head; ``guide`` as well for the
            control branch; ``image`` for the encoder. The network also takes ``c0``, ``c1``, ...:
            features that the control branch adds to its levels, finest first; zero by default.

        Returns
        -------
        mapping of str to FloatArray
            ``f`` of the network, ``c0``, ``c1``, ... of the control branch, ``embedding`` of the
            encoder, ``b`` of the residual-scale head. float32; a later run does not change them.

        Raises
        ------
        EngineError
            The shapes differ from those of the network's inputs.
        """


class Backend(Protocol):
    """One inference library."""

    @property
    def batch(self) -> int:
        """Most slices of one evaluation; 1 where more at once gain nothing."""

    def load(self, name: GraphName, bundle: ModelBundle) -> Graph:
        """Load one network of a verified bundle.

        Raises
        ------
        EngineError
            The library cannot load it, or its weights do not match the network of this version.
        BundleError
            The bundle has no such network.
        """
