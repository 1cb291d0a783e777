"""An exemplar is laid onto the head of the series by a transform found from the CT alone."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.domain.volume import PlaneRegistration
from rebrain_node.model.registration import MOST_ROTATION_DEG, moved, register
from rebrain_node.model.resample import doubled, halved

PIXEL_MM = 1.8
IDENTITY = PlaneRegistration(rotation_deg=0.0, scale=1.0, posterior_mm=0.0, left_mm=0.0)
TURNED = PlaneRegistration(rotation_deg=7.0, scale=1.08, posterior_mm=6.0, left_mm=-4.0)


def head(rows: int = 128, columns: int = 104, ventricle_mm: float = 12.0) -> np.ndarray:
    """An axial slice in the brain window, [-1, 1]: scalp, skull, brain, ventricles, a falx."""
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] * PIXEL_MM
    x = (np.arange(columns) - (columns - 1) / 2)[None, :] * PIXEL_MM
    radius = np.hypot(y / 88, x / 70)
    plane = np.full((rows, columns), -1.0, np.float32)
    for outer, value in ((1.0, 0.3), (0.94, 1.0), (0.85, -0.1)):
        plane[radius < outer] = value
    plane[(np.abs(x) < 2) & (radius < 0.85)] = 0.2
    plane[np.hypot((y + 5) / 2, np.abs(x) - 10) < ventricle_mm] = -0.8
    return plane


def moved_by(plane: np.ndarray, by: PlaneRegistration) -> np.ndarray:
    return halved(moved(plane, by, PIXEL_MM / 2, -1.0))


def test_the_transform_that_moved_a_slice_is_found_again():
    found = register(head(), moved_by(head(), TURNED), PIXEL_MM)
    assert found is not None
    assert found.rotation_deg == pytest.approx(TURNED.rotation_deg, abs=0.3)
    assert found.scale == pytest.approx(TURNED.scale, abs=0.005)
    assert found.posterior_mm == pytest.approx(TURNED.posterior_mm, abs=0.4)
    assert found.left_mm == pytest.approx(TURNED.left_mm, abs=0.4)


def test_a_registered_exemplar_lies_nearer_to_the_series_though_its_ventricles_differ():
    fixed, exemplar = moved_by(head(), TURNED), head(ventricle_mm=20.0)
    found = register(exemplar, fixed, PIXEL_MM)
    assert found is not None
    before, after = (
        float(np.abs(plane - fixed).mean()) for plane in (exemplar, moved_by(exemplar, found))
    )
    assert after < 0.5 * before


def test_the_shift_is_to_the_posterior_and_to_the_left_of_the_patient():
    plane = np.full((32, 24), -1.0, np.float32)
    plane[10, 5] = 1.0
    by = PlaneRegistration(
        rotation_deg=0.0, scale=1.0, posterior_mm=3 * PIXEL_MM, left_mm=4 * PIXEL_MM
    )
    assert np.argwhere(moved_by(plane, by) > 0).tolist() == [[13, 9]]


def test_a_rotation_goes_from_posterior_towards_left():
    plane = np.full((33, 25), -1.0, np.float32)
    plane[24, 12] = 1.0  # 8 pixels posterior of the middle
    by = PlaneRegistration(rotation_deg=90.0, scale=1.0, posterior_mm=0.0, left_mm=0.0)
    row, column = np.unravel_index(moved_by(plane, by).argmax(), plane.shape)
    assert (row, column) == (16, 20)


def test_a_scale_above_one_enlarges():
    larger = moved_by(head(), PlaneRegistration(**{**vars(IDENTITY), "scale": 1.1}))
    assert (larger > -0.9).sum() > 1.15 * (head() > -0.9).sum()


def test_without_a_transform_the_plane_is_only_enlarged_to_the_grid():
    plane = head()
    np.testing.assert_allclose(moved(plane, IDENTITY, 0.9, -1.0)[2:-2, 2:-2],
                               doubled(plane)[2:-2, 2:-2], atol=1e-6)  # fmt: skip


def test_what_lies_beyond_the_exemplar_is_the_value_for_outside():
    by = PlaneRegistration(rotation_deg=0.0, scale=1.0, posterior_mm=40.0, left_mm=0.0)
    assert (moved(np.zeros((32, 24), np.float32), by, 0.9, -5.0)[:20] == -5.0).all()


def test_the_same_slices_give_the_same_numbers():
    fixed = moved_by(head(), TURNED)
    assert register(head(), fixed, PIXEL_MM) == register(head(), fixed, PIXEL_MM)


@pytest.mark.parametrize(
    ("exemplar", "fixed"),
    [
        (np.full((128, 104), -1.0, np.float32), head()),
        (head(), np.full((128, 104), -1.0, np.float32)),
        (head(), moved_by(head(), PlaneRegistration(**{**vars(IDENTITY), "scale": 0.6}))),
        (head(), moved_by(head(), PlaneRegistration(
            **{**vars(IDENTITY), "rotation_deg": 2 * MOST_ROTATION_DEG}))),
    ],
    ids=["no head in the exemplar", "no head in the series", "too small", "turned too far"],
)  # fmt: skip
def test_a_failed_fit_is_no_transform(exemplar, fixed):
    found = register(exemplar, fixed, PIXEL_MM)
    assert found is None
