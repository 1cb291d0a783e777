"""The heads of the shared data: files, licence, and the one role of each."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["train", "validation", "demonstration"]

VALIDATION = frozenset({"sub21", "sub22", "sub23"})
DEMONSTRATION = "colin27"

# name -> (licence, whether the truth outside the brain is usable)
_HIGHRES: dict[str, tuple[str, bool]] = {
    "colin27": ("BSD-3-Clause, (C) 1993-2009 McConnell Brain Imaging Centre, McGill", True),
    "mprage_siemens": ("MIT, FNNDSC/SAG-anon", True),
    "t1w_biolab": ("PDDL-1.0, datalad/example-dicom-structural", False),
}
_TWO_MM_LICENCE = "SBIA licence v1.1, NiChart demonstration data"


@dataclass(frozen=True)
class Terms:
    """Facts of a head that follow from its name; see `Head`."""

    licence: str
    sharp: bool
    whole_head_truth: bool


@dataclass(frozen=True)
class Head:
    """One whole-head T1 volume, its licence and role.

    Attributes
    ----------
    name : str
        Opaque subject name, unique.
    t1, flair : Path
        NIfTI files; `flair` is None if there is none.
    licence : str
        Licence of the source, copied into the model card.
    role : {"train", "validation", "demonstration"}
        Only "train" heads may change a weight.
    sharp : bool
        Acquired at 1 mm, and sampled more often.
    whole_head_truth : bool
        False if the T1 is fat-suppressed or defaced: the loss is computed in the brain only.
    """

    name: str
    t1: Path
    flair: Path | None
    licence: str
    role: Role
    sharp: bool
    whole_head_truth: bool


def data_folder() -> Path:
    """Return the folder of shared data: REBRAIN_DATA, else `../shared/data` beside the checkout.

    Raises
    ------
    FileNotFoundError
        No such folder.
    """
    named = os.environ.get("REBRAIN_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        raise FileNotFoundError(f"no data at {folder}; set REBRAIN_DATA or give --data")
    return folder


def role_of(name: str) -> Role:
    """Return the role of a subject; the split is fixed here."""
    if name == DEMONSTRATION:
        return "demonstration"
    return "validation" if name in VALIDATION else "train"


def terms_of(name: str) -> Terms:
    """Return the facts of a head by its name."""
    licence, whole = _HIGHRES.get(name, (_TWO_MM_LICENCE, True))
    return Terms(licence, name in _HIGHRES, whole)


def catalogue(data: Path) -> list[Head]:
    """List the heads under `data` whose licence allows training, those at 1 mm first."""

    def head(name: str, t1: Path, flair: Path | None) -> Head:
        return Head(name, t1, flair, role=role_of(name), **vars(terms_of(name)))

    sharp = (head(name, data / "t1_highres" / f"{name}.nii.gz", None) for name in sorted(_HIGHRES))
    two_mm = (
        head(
            path.name.removesuffix("_T1.nii.gz"),
            path,
            path.with_name(path.name.replace("_T1", "_FLAIR")),
        )
        for path in sorted((data / "t1_flair_2mm").glob("*_T1.nii.gz"))
    )
    return [*sharp, *two_mm]
