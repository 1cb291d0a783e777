"""The MR that belongs to each exemplar: what the paper lets the control branch draw.

Kept for parity. A network that learns it draws the anatomy of another person (limitation E of the
paper); nothing that is released learned from it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rebrain_node.model.resample import doubled
from trainer.simulate.stacks import Stacks

_DIGITS = 16  # of the SHA-256 of a picture, as in `KnowledgeBase.key`
_OUTSIDE = 0.15  # weight of a pixel outside the head, as in `trainer.train.samples`


@dataclass(frozen=True)
class Donors:
    """CT and MR slices by the key of an exemplar.

    Attributes
    ----------
    ct, mr : ndarray of uint8
        (n, rows / 2, columns / 2): brain window, canonical T1.
    rows : dict of str to int
        By key: keyed hash of the person and digits of the picture.
    """

    ct: NDArray[np.uint8]
    mr: NDArray[np.uint8]
    rows: dict[str, int]

    @classmethod
    def of(cls, stacks: Stacks, hash_of: Callable[[str], str]) -> "Donors":
        """Find the key of every slice of `stacks`; `hash_of` as of the knowledge base."""
        hashes = [hash_of(name) for name in stacks.names]
        rows = {}
        for row, (subject, plane) in enumerate(zip(stacks.subject, stacks.slices, strict=True)):
            picture = hashlib.sha256(plane.tobytes()).hexdigest()[:_DIGITS]
            rows[f"{hashes[subject]}{picture}"] = row
        return cls(stacks.slices, stacks.mr, rows)

    def truth(self, key: str) -> dict[str, Tensor]:
        """Return the parts of a `Batch` of one that the donor's MR is to be drawn by.

        Raises
        ------
        KeyError
            No slice has this key: the stacks are not those of the knowledge base.
        """
        row = self.rows[key]
        head = _doubled(self.ct[row]) > 0
        return {
            "x0": _doubled(self.mr[row]) / 127.5 - 1,
            "head": head.float(),
            "weight": _OUTSIDE + head.float(),
        }


def _doubled(plane: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(doubled(plane.astype(np.float32)))[None, None]
