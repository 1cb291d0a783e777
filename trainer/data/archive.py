"""Reads archives of 2-D pairs: `.npz` with the keys ct, t1, patient and slice."""

from pathlib import Path

import numpy as np

from trainer.data.dataset import SourceKind, pair_subject, read_pairs
from trainer.data.source_subject import Reading, SourceSubject


def find(source: Path) -> list[SourceSubject]:
    """List the patients of an archive.

    Raises
    ------
    DatasetError
        It is no such archive.
    """
    patients = np.unique(read_pairs(source)["patient"].astype(str))
    return [SourceSubject(str(name), {"pairs": source}) for name in patients]


def read(found: SourceSubject, kind: SourceKind) -> Reading:
    """Read one patient; head and brain are drawn from the CT.

    Raises
    ------
    DatasetError
        It is no such archive.
    """
    del kind  # an archive is windowed by definition
    subject = pair_subject(read_pairs(found.files["pairs"]), found.name)
    return Reading(subject, None, ("positions are slice numbers", "masks computed from the CT"))
