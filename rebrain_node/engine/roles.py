"""Roles of a bundle's networks (ports ``Engine``, ``Encoder``, ``ResidualScale``)."""

from __future__ import annotations

from dataclasses import dataclass

from rebrain_node.domain.volume import FloatArray
from rebrain_node.engine.backend import Graph
from rebrain_node.errors import EngineError


@dataclass(frozen=True)
class BridgeEngine:
    """One evaluation of the bridge's network (port ``Engine``).

    Attributes
    ----------
    network : Graph
        From ``x``, ``s`` and the features of the control branch to ``f``.
    control : Graph or None
        From ``x``, ``s`` and ``guide`` to features; None where the bundle has no control branch.
    batch : int
        Most slices of one evaluation.
    """

    network: Graph
    control: Graph | None = None
    batch: int = 1

    @property
    def identity(self) -> str:
        """Library, version and precision, e.g. ``openvino 2026.4.1 bf16``."""
        return self.network.identity

    def evaluate(self, x: FloatArray, s: FloatArray, guide: FloatArray | None = None) -> FloatArray:
        """Evaluate f: x (n, channels, rows, columns), s (n, scalars) to (n, 1, rows, columns).

        n is 1 to `batch`; all slices have a guide, (n, 1, rows, columns), or none has.

        Raises
        ------
        EngineError
            A guide is given to a bundle without a control branch; or the shapes are not those
            that the network takes.
        """
        if guide is None:
            return self.network.run({"x": x, "s": s})["f"]
        if self.control is None:
            raise EngineError(
                f"{self.identity} has no control branch and was given a guide; "
                'use a bundle with a control branch, or one with retrieval.method "slerp"'
            )
        added = self.control.run({"x": x, "s": s, "guide": guide})
        return self.network.run({"x": x, "s": s, **added})["f"]


@dataclass(frozen=True)
class GraphEncoder:
    """Embeds a CT slice (port ``Encoder``)."""

    graph: Graph

    @property
    def identity(self) -> str:
        """Library, version and precision."""
        return self.graph.identity

    def embed(self, image: FloatArray) -> FloatArray:
        """Embed (1, 1, rows, columns), half the recipe's grid, brain window in [-1, 1], to (d,).

        Raises
        ------
        EngineError
            The shape is not that the encoder takes.
        """
        embedding: FloatArray = self.graph.run({"image": image})["embedding"][0]
        return embedding


@dataclass(frozen=True)
class GraphResidualScale:
    """Estimates the residual scale of a slice (port ``ResidualScale``)."""

    graph: Graph

    @property
    def identity(self) -> str:
        """Library, version and precision."""
        return self.graph.identity

    def estimate(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Estimate b: x (1, 5, rows, columns), s (1, 2) to (1, 1, rows, columns).

        Raises
        ------
        EngineError
            The shapes are not those that the head takes.
        """
        return self.graph.run({"x": x, "s": s})["b"]
