"""The registration of 2-D pairs: found from CT and T1, frozen, and verified."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage as ndi

from trainer.data.archive import open_any, registration_of_archive
from trainer.data.dataset import DatasetError, digest_of
from trainer.data.pair_registration import (
    IDENTITY,
    PairRegistration,
    register_pairs,
    registration_of,
)
from trainer.evaluate.scanned_heads import demonstration_head

DOWN, RIGHT = 5, -4  # of the T1 against the CT, pixels


@cache
def a_pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A CT slice, a T1 slice that was cropped otherwise, and the T1 as it should lie."""
    head = demonstration_head()
    hu, t1 = head.hu[110], head.t1[110] * 255
    moved = ndi.shift(t1, (DOWN, RIGHT), order=0)
    return (np.clip(hu / 80, 0, 1) * 255).astype(np.uint8), moved.astype(np.uint8), t1


def archive(folder: Path) -> Path:
    ct, t1, _ = a_pair()
    path = folder / "pairs.npz"
    np.savez(
        path, ct=np.stack([ct, ct]), t1=np.stack([t1, t1]), patient=np.array([3, 3]),
        slice=np.array([7, 8]),
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def found(pairs: Path) -> PairRegistration:
    return registration_of_archive(pairs, lambda: None)


def test_the_shift_of_a_pair_is_found_from_ct_and_t1_alone(found: PairRegistration) -> None:
    right, below = found.transforms["3/7"]

    assert (right, below) == pytest.approx((RIGHT, DOWN), abs=1)


def test_the_t1_is_brought_onto_its_ct() -> None:
    _, t1, wanted = a_pair()
    known = PairRegistration(data_sha256="", transforms={"3/7": (RIGHT, DOWN)})

    moved = known.onto_ct(t1.astype(np.float32), "3/7")

    np.testing.assert_allclose(moved, wanted, atol=1)  # the levels are whole numbers


def test_the_same_pairs_have_the_same_transforms(pairs: Path, found: PairRegistration) -> None:
    assert registration_of_archive(pairs, lambda: None) == found


def test_a_pair_without_anything_in_it_is_left_as_it_is() -> None:
    ct, _, _ = a_pair()

    assert register_pairs(ct[None], np.zeros((1, *ct.shape), np.uint8), lambda: None) == [IDENTITY]


def test_a_registration_is_read_back_for_its_own_archive(
    pairs: Path, found: PairRegistration
) -> None:
    assert registration_of(found.to_json().encode(), pairs) == found


def test_a_registration_of_another_archive_is_refused(
    tmp_path: Path, pairs: Path, found: PairRegistration
) -> None:
    other = tmp_path / "other.npz"
    other.write_bytes(pairs.read_bytes() + b"x")

    with pytest.raises(DatasetError, match=digest_of(other)):
        registration_of(found.to_json().encode(), other)


def test_an_altered_transform_is_refused(pairs: Path, found: PairRegistration) -> None:
    values = json.loads(found.to_json())
    values["transforms"]["3/8"][0] += 1

    with pytest.raises(DatasetError, match="was altered"):
        registration_of(json.dumps(values).encode(), pairs)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"transforms": {"1/1": [1]}}'])
def test_a_damaged_registration_is_refused(pairs: Path, content: bytes) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        registration_of(content, pairs)


def test_the_shipped_registration_is_refused_for_an_archive_that_it_does_not_fit(
    pairs: Path,
) -> None:
    with pytest.raises(DatasetError, match="register-pairs"):
        open_any(pairs, registered=True)
