"""The layouts of source data in folders, and the subjects in each."""

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from trainer.data import archive, dicom, simulated
from trainer.data.dataset import DatasetError, Layout, SourceSubject
from trainer.data.nifti import read_pair, read_stripped_pair

_NIFTI = (".nii.gz", ".nii")
#: (source, target) of one subject by the endings of BraTS to 2021 and from 2023
_BRATS = (("_flair", "_t1"), ("-t2f", "-t1n"))
#: the challenge ships a folder of pictures beside the subjects
_SYNTHRAD_ASIDE = ("overview",)


def _stem(path: Path) -> str:
    for ending in _NIFTI:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.stem


def _nifti(folder: Path, stem: str) -> Path:
    """Return the file of that stem; the compressed name where there is none."""
    plain = folder / f"{stem}.nii"
    return plain if plain.is_file() else folder / f"{stem}.nii.gz"


def _folders(source: Path) -> list[Path]:
    if not source.is_dir():
        raise DatasetError(f"{source} is no folder")
    return sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))


def _once_each(subjects: Iterable[SourceSubject]) -> list[SourceSubject]:
    """List every subject once; one that occurs twice is ambiguous and becomes a problem."""
    by_name: dict[str, list[SourceSubject]] = {}
    for subject in subjects:
        by_name.setdefault(subject.name, []).append(subject)
    return [
        same[0] if len(same) == 1 else replace(same[0], problem=_occurs(same))
        for same in by_name.values()
    ]


def _occurs(same: list[SourceSubject]) -> str:
    paths = ", ".join(str(next(iter(subject.files.values()), "?")) for subject in same)
    return f"subject {same[0].name} occurs {len(same)} times: {paths}"


def _synthrad(source: Path) -> list[SourceSubject]:
    inner = source / "Task1" / "brain"
    return [
        SourceSubject(
            folder.name,
            {
                "source": _nifti(folder, "ct"),
                "target": _nifti(folder, "mr"),
                "mask": _nifti(folder, "mask"),
            },
        )
        for folder in _folders(inner if inner.is_dir() else source)
        if folder.name not in _SYNTHRAD_ASIDE
    ]


def _brats(source: Path) -> list[SourceSubject]:
    graded = [g for g in ("HGG", "LGG") if (source / g).is_dir()]
    roots = [source / grade for grade in graded] or [source]
    return _once_each(_brats_subject(folder) for root in roots for folder in _folders(root))


def _brats_subject(folder: Path) -> SourceSubject:
    endings = next(
        (pair for pair in _BRATS if _nifti(folder, folder.name + pair[1]).is_file()), _BRATS[0]
    )
    return SourceSubject(
        folder.name,
        {
            "source": _nifti(folder, folder.name + endings[0]),
            "target": _nifti(folder, folder.name + endings[1]),
        },
    )


def _flair_t1(source: Path) -> list[SourceSubject]:
    _folders(source)
    names = {
        _stem(path).removesuffix(ending)
        for path in source.iterdir()
        for ending in ("_T1", "_FLAIR")
        if _stem(path).endswith(ending)
    }
    return [
        SourceSubject(
            name,
            {"source": _nifti(source, f"{name}_FLAIR"), "target": _nifti(source, f"{name}_T1")},
        )
        for name in sorted(names)
    ]


def _two_folders_or_table(source: Path) -> list[SourceSubject]:
    return _once_each(_table(source) if source.is_file() else _two_folders(source))


def _two_folders(source: Path) -> list[SourceSubject]:
    parts = [p for p in ("source", "target", "mask") if (source / p).is_dir()]
    if parts[:2] != ["source", "target"]:
        raise DatasetError(
            f"{source} holds no folders source and target (and perhaps mask), nor is it a table"
        )
    names = sorted(
        {_stem(p) for part in parts for p in (source / part).iterdir() if p.name.endswith(_NIFTI)}
    )
    return [
        SourceSubject(name, {part: _nifti(source / part, name) for part in parts}) for name in names
    ]


def _table(path: Path) -> list[SourceSubject]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    needed = {"source", "target"}
    if not rows or not needed <= set(rows[0]):
        raise DatasetError(
            f"{path}: the first line must name the columns source,target[,mask][,subject]"
        )
    found = []
    for number, row in enumerate(rows, start=2):
        files = {
            what: path.parent / row[what].strip()
            for what in ("source", "target", "mask")
            if (row.get(what) or "").strip()
        }
        problem = None if needed <= set(files) else f"{path} line {number}: source or target empty"
        name = (row.get("subject") or "").strip() or _stem(
            files.get("source", Path(f"line{number}"))
        )
        found.append(SourceSubject(name, files, problem))
    return found


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "synthrad", "ct", _synthrad, read_pair,
            "SOURCE/<subject>/ct.nii.gz, mr.nii.gz and mask.nii.gz",
            "CC BY-NC 4.0 (SynthRAD2023)",
        ),
        Layout(
            "brats", "mr", _brats, read_stripped_pair,
            "SOURCE/<subject>/<subject>_flair.nii.gz and <subject>_t1.nii.gz, or -t2f and -t1n",
            "terms of the BraTS challenge",
        ),
        Layout(
            "flair-t1", "mr", _flair_t1, read_pair,
            "SOURCE/<subject>_FLAIR.nii.gz and <subject>_T1.nii.gz",
            "see LICENSE beside the images",
        ),
        Layout(
            "nifti", None, _two_folders_or_table, read_pair,
            "SOURCE/source/<subject>.nii.gz and SOURCE/target/<subject>.nii.gz, or a table .csv",
        ),
        Layout(
            "dicom", None, dicom.find, dicom.read,
            "SOURCE/<subject>/ with two folders of one series each, one named target, mr or t1",
        ),
        Layout(
            "maps", "ct", simulated.find, simulated.read,
            "SOURCE/<head>.npz, written by rebrain-train tissue-maps",
            simulated.LICENCE, default_split="as the heads are catalogued",
        ),
        Layout(
            "archive", "ct-window", archive.find, archive.read,
            "one .npz with the keys ct, t1, patient and slice",
            volumetric=False, default_split="0/0/1",
        ),
    )
}  # fmt: skip

#: layouts that are recognised by the names of their files
_OF_IMAGES = ("synthrad", "brats", "flair-t1", "nifti", "dicom")
#: folders looked into for subjects that are not where they were expected
_MOST_FOLDERS = 200


def where_instead(layout: Layout, source: Path) -> str | None:
    """Say which folder or layout would be right, where `source` holds no subject of the layout.

    Looks one and two levels down and one up, for this layout and then for the others.

    Returns
    -------
    str or None
        A sentence; None where `source` is right, or nothing is found.
    """
    if _fits(layout, source):
        return None
    below = [child for pattern in ("*", "*/*") for child in sorted(source.glob(pattern))]
    places = [source, *(p for p in below[:_MOST_FOLDERS] if p.is_dir()), source.parent]
    others = [each for each in LAYOUTS.values() if each.name in _OF_IMAGES and each is not layout]
    for each in (layout, *others):
        for place in places:
            if _fits(each, place):
                return f"{place} holds subjects of the layout {each.name}: give that"
    return None


def _fits(layout: Layout, source: Path) -> bool:
    """Return whether a folder has a subject of the layout with all its files."""
    try:
        found = layout.find(source)
    except DatasetError:
        return False
    return any(all(path.exists() for path in each.files.values()) for each in found)
