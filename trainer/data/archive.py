"""Archives of 2-D pairs: `.npz` with the keys ct, t1, patient and slice."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import (
    DatasetError,
    PreparedData,
    Reading,
    SourceKind,
    SourceSubject,
    Subject,
    Volume,
    digest_of,
)
from trainer.data.masks import head_in_window, inside_skull_in_window
from trainer.data.pair_registration import PairRegistration, register_pairs, shipped_registration

_KEYS = ("ct", "t1", "patient", "slice")


def find(source: Path) -> list[SourceSubject]:
    """List the patients of an archive; raises `DatasetError` where it is none."""
    patients = np.unique(_read_pairs(source)["patient"].astype(str))
    return [SourceSubject(str(name), {"pairs": source}) for name in patients]


def read(subject: SourceSubject, kind: SourceKind) -> Reading:
    """Read one patient; head and brain are computed from the CT."""
    del kind  # an archive is windowed by definition
    pairs = _pair_subject(_read_pairs(subject.files["pairs"]), subject.name)
    return Reading(pairs, None, ("positions are slice numbers", "masks computed from the CT"))


def open_any(path: Path, *, registered: bool = False) -> PreparedData:
    """Open a prepared folder, or a `.npz` of 2-D pairs with the keys ct, t1, patient and slice.

    In an archive every patient has the role "test", positions are slice numbers and the pixel
    size is unknown. Head and brain are computed from the CT.

    Parameters
    ----------
    registered : bool
        Move each T1 slice of an archive onto its CT by the registration that ships.

    Raises
    ------
    DatasetError
        Neither, or a key is missing, or the arrays do not fit each other; or `registered` where
        the shipped registration is not of these data.
    """
    if path.is_dir():
        if registered:
            raise DatasetError(f"{path}: only an archive of 2-D pairs is registered slice by slice")
        return PreparedData.open(path)
    if path.suffix != ".npz" or not path.is_file():
        raise DatasetError(f"{path} is neither a prepared folder nor a .npz of pairs")
    arrays = _read_pairs(path)
    names = tuple(sorted({str(patient) for patient in arrays["patient"].tolist()}))
    return PreparedData(
        source_kind="ct-window",
        volumetric=False,
        split={"train": (), "validation": (), "test": names},
        licence="not stated in the archive",
        origin=path.name + (", T1 registered to CT slice by slice" if registered else ""),
        digest=digest_of(path),
        load=partial(
            _pair_subject,
            arrays,
            registration=shipped_registration(path) if registered else None,
        ),
    )


def registration_of_archive(path: Path, advance: Callable[[], None]) -> PairRegistration:
    """Register every pair of an archive; `advance` is called after each.

    Raises
    ------
    DatasetError
        It is no archive of pairs.
    """
    arrays = _read_pairs(path)
    keys = [_key(arrays, row) for row in range(len(arrays["ct"]))]
    found = register_pairs(arrays["ct"].astype(np.uint8), arrays["t1"].astype(np.uint8), advance)
    return PairRegistration(
        data_sha256=digest_of(path), transforms=dict(zip(keys, found, strict=True))
    )


def _key(arrays: dict[str, NDArray[np.generic]], row: int) -> str:
    return f"{arrays['patient'][row]}/{arrays['slice'][row]}"


def _read_pairs(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read ct and t1 (n, rows, columns) uint8, patient and slice (n,).

    Raises
    ------
    DatasetError
        The archive is damaged, a key is missing, or the arrays do not fit each other.
    """
    try:
        with np.load(path) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                raise DatasetError(f"{path}: keys {', '.join(missing)} are missing")
            arrays = {key: np.asarray(archive[key]) for key in _KEYS}
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path} cannot be read as .npz: {error}") from error
    ct, t1 = arrays["ct"], arrays["t1"]
    if ct.ndim != 3 or t1.shape != ct.shape or ct.dtype != np.uint8:
        raise DatasetError(
            f"{path}: ct {ct.shape} {ct.dtype} and t1 {t1.shape} must be (n, rows, columns), "
            "ct uint8 in the window C40 W80"
        )
    if any(arrays[key].shape != ct.shape[:1] for key in ("patient", "slice")):
        raise DatasetError(f"{path}: patient and slice must have one entry for each image")
    return arrays


def _pair_subject(
    arrays: dict[str, NDArray[np.generic]],
    name: str,
    registration: PairRegistration | None = None,
) -> Subject:
    """Return one patient of an archive of pairs, slices in the order of their numbers."""
    rows = np.flatnonzero(arrays["patient"].astype(str) == name)
    rows = rows[np.argsort(arrays["slice"][rows], kind="stable")]
    ct = arrays["ct"][rows].astype(np.float32)
    unit = ct / np.float32(255)
    return Subject(
        name=name,
        source=ct,
        target=np.stack([_t1(arrays, int(row), registration) for row in rows]),
        mask=np.stack([head_in_window(plane) for plane in unit]),
        brain=np.stack([inside_skull_in_window(plane) for plane in unit]),
        positions_mm=arrays["slice"][rows].astype(np.float64),
        pixel_mm=None,
    )


def _t1(
    arrays: dict[str, NDArray[np.generic]], row: int, registration: PairRegistration | None
) -> Volume:
    plane = arrays["t1"][row].astype(np.float32)
    return plane if registration is None else registration.onto_ct(plane, _key(arrays, row))
