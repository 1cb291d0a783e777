"""What an inference library must offer: the networks of a bundle, run on named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.bundle import ModelBundle

#: the networks that a bundle may hold
GraphName = Literal["network", "control", "encoder", "scale"]


class Graph(Protocol):
    """One network, ready to run; not for two threads at a time."""

    @property
    def identity(self) -> str:
        """Library, version and precision, e.g. ``openvino 2026.4.1 bf16``; of the provenance."""

    @property
    def deviation_limit(self) -> float:
        """Largest RMS of the deviation over RMS of the golden output at this precision."""

    def run(self, arrays: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        """Evaluate once.

        Parameters
        ----------
        arrays : mapping of str to FloatArray
            ``x`` and ``s`` for the network and the residual-scale head; ``guide`` as well for the
            control branch; ``image`` for the encoder. The network also takes ``c0``, ``c1``, ...:
            what the control branch adds to its levels, finest first; zero where left out.

        Returns
        -------
        mapping of str to FloatArray
            ``f`` of the network, ``c0``, ``c1``, ... of the control branch, ``embedding`` of the
            encoder, ``b`` of the residual-scale head. float32; a later run does not change them.

        Raises
        ------
        EngineFailed
            The shapes are not those that the network takes.
        """


class Backend(Protocol):
    """One inference library."""

    def load(self, name: GraphName, bundle: ModelBundle) -> Graph:
        """Load one network of a verified bundle.

        Raises
        ------
        EngineFailed
            The library cannot load it, or its weights do not fit the network of this version.
        BundleRefused
            The bundle has no such network.
        """
