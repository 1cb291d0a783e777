"""The heads the trainer may look at: where each lies, its licence, and the one role it plays."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["train", "validation", "demonstration"]

VALIDATION = frozenset({"sub21", "sub22", "sub23"})
DEMONSTRATION = "colin27"

# name -> (licence, truth outside the brain is usable)
_HIGHRES: dict[str, tuple[str, bool]] = {
    "colin27": ("BSD-3-Clause, (C) 1993-2009 McConnell Brain Imaging Centre, McGill", True),
    "mprage_siemens": ("MIT, FNNDSC/SAG-anon", True),
    "t1w_biolab": ("PDDL-1.0, datalad/example-dicom-structural", False),
}
_TWO_MM_LICENCE = "SBIA licence v1.1, NiChart demonstration data"


@dataclass(frozen=True)
class Terms:
    """What is known of a head by its name; the attributes are those of `Head`."""

    licence: str
    sharp: bool
    whole_head_truth: bool


@dataclass(frozen=True)
class Head:
    """One whole-head T1 volume and what may be done with it.

    Attributes
    ----------
    name : str
        Opaque subject name, unique.
    t1, flair : Path
        NIfTI files; `flair` is None where none was acquired.
    licence : str
        Licence of the source, copied into the model card.
    role : {"train", "validation", "demonstration"}
        Only "train" heads may change a weight.
    sharp : bool
        Acquired at 1 mm; these are sampled more often.
    whole_head_truth : bool
        False where the T1 is fat-suppressed or defaced: loss counts inside the brain only.
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
        raise FileNotFoundError(f"no data at {folder}; set REBRAIN_DATA to the shared data folder")
    return folder


def role_of(name: str) -> Role:
    """Return the one role of a subject; the split is fixed here and nowhere else."""
    if name == DEMONSTRATION:
        return "demonstration"
    return "validation" if name in VALIDATION else "train"


def terms_of(name: str) -> Terms:
    """Return what is known of a head of the catalogue by its name."""
    licence, whole = _HIGHRES.get(name, (_TWO_MM_LICENCE, True))
    return Terms(licence, name in _HIGHRES, whole)


def catalogue(data: Path) -> list[Head]:
    """List every licence-clean head under `data`, sharp ones first, in a fixed order."""
    sharp = [
        Head(
            name, data / "t1_highres" / f"{name}.nii.gz", None, licence, role_of(name), True, whole
        )
        for name, (licence, whole) in sorted(_HIGHRES.items())
    ]
    two_mm = [
        Head(
            name=path.name.removesuffix("_T1.nii.gz"),
            t1=path,
            flair=path.with_name(path.name.replace("_T1", "_FLAIR")),
            licence=_TWO_MM_LICENCE,
            role=role_of(path.name.removesuffix("_T1.nii.gz")),
            sharp=False,
            whole_head_truth=True,
        )
        for path in sorted((data / "t1_flair_2mm").glob("*_T1.nii.gz"))
    ]
    return sharp + two_mm
