"""The heads of the shared data: files, licence, and the one role of each."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["train", "validation", "demonstration"]

Kind = Literal["t1", "labels"]

#: heads that no weight learns from: 3 and 8 acquired at 2 mm, and 8 label maps
VALIDATION = frozenset(
    {"sub21", "sub22", "sub23"}
    | {f"sub{n:02d}" for n in (2, 4, 7, 9, 11, 14, 16, 18)}
    | {f"label{n:02d}" for n in (2, 3, 5, 7, 9, 14, 18, 20)}
)
DEMONSTRATION = "colin27"

# name -> (licence, whether the truth outside the brain is usable)
_HIGHRES: dict[str, tuple[str, bool]] = {
    "colin27": ("BSD-3-Clause, (C) 1993-2009 McConnell Brain Imaging Centre, McGill", True),
    "mprage_siemens": ("MIT, FNNDSC/SAG-anon", True),
    "seg3d_mr": ("MIT, neurolabusc/VolumeRenderingData", True),
    "t1w_biolab": ("PDDL-1.0, datalad/example-dicom-structural", False),
}
_TWO_MM_LICENCE = "SBIA licence v1.1, NiChart demonstration data"
_LABELS, _LABELS_LICENCE = (
    "label",
    "Apache-2.0 (repository BBillot/SynthSeg); origin of the scans not stated",
)


@dataclass(frozen=True)
class Terms:
    """Facts of a head that follow from its name; see `Head`."""

    licence: str
    sharp: bool
    whole_head_truth: bool
    kind: Kind


@dataclass(frozen=True)
class Head:
    """One whole-head T1 volume or label map, its licence and role.

    Attributes
    ----------
    name : str
        Opaque subject name, unique.
    t1, flair : Path
        NIfTI files; `flair` is None if there is none, `t1` the label map of a head of that kind.
    licence : str
        Licence of the source, copied into the model card.
    role : {"train", "validation", "demonstration"}
        Only "train" heads may change a weight.
    sharp : bool
        Acquired at 1 mm, and sampled more often.
    whole_head_truth : bool
        False if the T1 is fat-suppressed or defaced: the loss is computed in the brain only.
    kind : {"t1", "labels"}
        Whether the T1 was acquired, or CT and T1 are drawn from labels.
    """

    name: str
    t1: Path
    flair: Path | None
    licence: str
    role: Role
    sharp: bool
    whole_head_truth: bool
    kind: Kind = "t1"


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
    if name.startswith(_LABELS):
        return Terms(_LABELS_LICENCE, sharp=True, whole_head_truth=True, kind="labels")
    licence, whole = _HIGHRES.get(name, (_TWO_MM_LICENCE, True))
    return Terms(licence, name in _HIGHRES, whole, kind="t1")


def catalogue(data: Path) -> list[Head]:
    """List the heads under `data` whose licence allows training: at 1 mm, 2 mm, label maps."""

    def head(name: str, t1: Path, flair: Path | None) -> Head:
        return Head(name, t1, flair, role=role_of(name), **vars(terms_of(name)))

    at_1mm = {name: data / "t1_highres" / f"{name}.nii.gz" for name in sorted(_HIGHRES)}
    sharp = (head(name, path, None) for name, path in at_1mm.items() if path.exists())
    labels = (
        head(f"{_LABELS}{path.name[7:9]}", path, None)
        for path in sorted((data / "head_labels_1mm").glob("labels_??.nii.gz"))
    )
    two_mm = (
        head(
            path.name.removesuffix("_T1.nii.gz"),
            path,
            path.with_name(path.name.replace("_T1", "_FLAIR")),
        )
        for path in sorted((data / "t1_flair_2mm").glob("*_T1.nii.gz"))
    )
    return [*sharp, *two_mm, *labels]
