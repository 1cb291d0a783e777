"""Sparse protocols: which slices the methods are given, and which positions they synthesise.

`none`         every slice is given.
`decimate:K`   slices 0, K, 2K, ... are given, the rest is left out. The paper thins "200 slices
               to 100" and calls it x2 lower axial resolution; at x3 and x4 we read it the same
               way: one slice of every K remains. (Dropping one slice of every K is the same at
               K = 2 and would make K = 4 easier than K = 2.)
`thick:K`      every K neighbouring slices are averaged to one slab, given at the middle of their
               positions: clinical reality. With K even no slab lies on a slice, so every
               position is filled; with K odd the middle slices count as measured.

Positions below the first or above the last slice given are neither synthesised nor scored: nothing
lies on their other side. The mean of the masks decides where a slab is head (a half or more).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rebrain_node.errors import RebrainError
from rebrain_node.model.source import SAME_POSITION_MM
from trainer.data.dataset import Mask, Subject, Volume

FACTORS = (2, 3, 4, 8)


class ProtocolError(RebrainError):
    """A protocol that does not exist, or one that these data cannot be put under."""


@dataclass(frozen=True)
class Sparsity:
    """One protocol; `str()` gives its name as the command takes it."""

    kind: Literal["none", "decimate", "thick"]
    factor: int = 1

    @classmethod
    def parse(cls, text: str) -> "Sparsity":
        """Read `none`, `decimate:K` or `thick:K`.

        Raises
        ------
        ProtocolError
            Any other text.
        """
        if text == "none":
            return cls("none")
        kind, _, factor = text.partition(":")
        if factor in map(str, FACTORS):
            if kind == "decimate":
                return cls("decimate", int(factor))
            if kind == "thick":
                return cls("thick", int(factor))
        raise ProtocolError(
            f"protocol {text!r}: expected none, decimate:K or thick:K with K = 2, 3, 4 or 8"
        )

    def __str__(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind}:{self.factor}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One subject under a protocol."""

    subject: Subject  #: whole, with the truth; methods look at the fields below only
    source: Volume  #: (given, row, column), the slices given, in the unit of the data set
    head: Mask  #: (given, row, column)
    positions_mm: NDArray[np.float64]  #: (given,), rising
    rows: NDArray[np.int64]  #: (n,) slices of the subject that are synthesised and scored
    targets_mm: NDArray[np.float64]  #: (n,) their positions
    measured: Mask  #: (n,), true where a slice was given at that position

    def linear(self, given: Volume) -> Volume:
        """Interpolate (given, row, column) linearly to the positions synthesised."""
        below, share = self.bracket()
        weight = share.astype(np.float32)[:, None, None]
        above = np.minimum(below + 1, len(given) - 1)
        return np.asarray((1 - weight) * given[below] + weight * given[above])

    def bracket(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the slice given at or below each position, and the share to the next."""
        if len(self.positions_mm) == 1:
            return np.zeros(len(self.targets_mm), np.int64), np.zeros(len(self.targets_mm))
        last = len(self.positions_mm) - 2
        below = np.clip(np.searchsorted(self.positions_mm, self.targets_mm, "right") - 1, 0, last)
        gaps = self.positions_mm[below + 1] - self.positions_mm[below]
        return below, np.clip((self.targets_mm - self.positions_mm[below]) / gaps, 0, 1)


def thinned(subject: Subject, sparsity: Sparsity) -> Case:
    """Return the case of a subject under a protocol.

    Raises
    ------
    ProtocolError
        Too few slices remain: two are needed to fill what lies between.
    """
    source, head, positions = _given(subject, sparsity)
    if sparsity.kind != "none" and len(source) < 2:
        raise ProtocolError(
            f"subject {subject.name}: {len(subject.source)} slices leave {len(source)} under "
            f"{sparsity}, 2 are needed"
        )
    all_mm = subject.positions_mm
    within = (all_mm >= positions[0] - SAME_POSITION_MM) & (
        all_mm <= positions[-1] + SAME_POSITION_MM
    )
    targets = all_mm[within]
    return Case(
        subject=subject,
        source=source,
        head=head,
        positions_mm=positions,
        rows=np.flatnonzero(within),
        targets_mm=targets,
        measured=np.abs(targets[:, None] - positions[None, :]).min(axis=1) <= SAME_POSITION_MM,
    )


def _given(subject: Subject, sparsity: Sparsity) -> tuple[Volume, Mask, NDArray[np.float64]]:
    if sparsity.kind != "thick":
        kept = slice(None, None, sparsity.factor)
        return subject.source[kept], subject.mask[kept], subject.positions_mm[kept]
    slabs = len(subject.source) // sparsity.factor
    shape = (slabs, sparsity.factor)
    whole = slabs * sparsity.factor
    plane = subject.source.shape[1:]
    source = subject.source[:whole].reshape(*shape, *plane).mean(axis=1)
    head = subject.mask[:whole].reshape(*shape, *plane).mean(axis=1) >= 0.5
    return (
        source.astype(np.float32),
        np.asarray(head),
        subject.positions_mm[:whole].reshape(shape).mean(axis=1),
    )
