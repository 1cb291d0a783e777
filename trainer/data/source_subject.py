"""What a layout finds and what a reader makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.data.dataset import Role, SourceKind, Subject

Affine = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class SourceSubject:
    """One subject of a source folder, not yet read.

    Attributes
    ----------
    files : dict
        File or folder by what it holds: source, target, mask.
    problem : str or None
        Why the subject cannot be used, where the names alone tell.
    role : {"train", "validation", "test"} or None
        Fixed by the source; None where a split is drawn.
    """

    name: str
    files: dict[str, Path]
    problem: str | None = None
    role: Role | None = None


@dataclass(frozen=True)
class Reading:
    """One subject, read.

    Attributes
    ----------
    affine : Affine or None
        4 x 4: LPS mm = affine @ (column, row, slice, 1); None where there is none.
    notes : tuple of str
        What was done to the voxels beyond copying them.
    """

    subject: Subject
    affine: Affine | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """One way in which source data lie in folders.

    Attributes
    ----------
    kind : {"ct", "ct-window", "mr"} or None
        What the source is; None where it has to be said.
    default_split : str
        Shares of the roles train/validation/test.
    find : Callable
        Lists the subjects of a source folder.
    read : Callable
        Reads one of them.
    """

    name: str
    kind: SourceKind | None
    find: Callable[[Path], list[SourceSubject]]
    read: Callable[[SourceSubject, SourceKind], Reading]
    licence: str = "not stated"
    volumetric: bool = True
    default_split: str = "0.7/0.15/0.15"
