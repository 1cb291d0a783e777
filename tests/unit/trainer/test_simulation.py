"""The simulated CT: known truth in, known levels out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage as ndi

from tests.support.ball_head import ball_maps
from trainer.config import TrainConfig
from trainer.simulate.hounsfield import Tissues, draw_hu, sharpened, tissues
from trainer.simulate.slabs import COLUMNS, ROWS, Block, Plan, rotation
from trainer.train.samples import picture_alone

DEMO = Path(__file__).parents[3] / "conf" / "train" / "demo.toml"


@pytest.fixture(scope="module")
def head() -> Tissues:
    return tissues(ball_maps())


def _plan(head: Tissues, z: float, *, missing: bool = False) -> Plan:
    middle = np.array(head.t1.shape) / 2
    return Plan(
        centre=np.array([z, middle[1], middle[2]]),
        rotation=rotation(0, 0, 0),
        thickness_mm=4.0,
        below_mm=1.0 if missing else 4.0,
        above_mm=3.0 if missing else 4.0,
        missing=missing,
    )


@pytest.mark.parametrize("seed", range(4))
def test_brain_skull_and_air_have_the_hounsfield_units_of_ct(head: Tissues, seed: int) -> None:
    hu = draw_hu(head, np.random.default_rng(seed))

    middle = np.array(hu.shape) // 2
    core = hu[tuple(slice(m - 4, m + 5) for m in middle)]
    assert 18 < np.median(core) < 40
    assert np.median(hu[head.bone > 0.99]) > 400
    assert hu[0, 0, 0] == -1000


def test_white_matter_is_darker_than_grey_on_ct_and_brighter_on_t1(head: Tissues) -> None:
    hu = draw_hu(head, np.random.default_rng(1))
    white, grey = head.t1 == np.float32(0.62), head.t1 == np.float32(0.42)
    inner = head.brain > 0.99

    assert np.median(hu[white & inner]) < np.median(hu[grey & inner]) - 2
    assert head.t1[white].mean() > head.t1[grey].mean()


def test_the_same_seed_draws_the_same_volume_and_another_seed_another(head: Tissues) -> None:
    first, again, other = (draw_hu(head, np.random.default_rng(seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1


def test_truth_ends_where_the_head_runs_out_of_the_volume_and_nowhere_else() -> None:
    whole, with_neck = tissues(ball_maps()), tissues(ball_maps(neck=True))

    assert np.isinf(whole.known).all()
    assert np.isfinite(with_neck.known[0, 0])
    assert np.isinf(with_neck.known[0, 1])
    assert np.isinf(with_neck.known[1:]).all()


def test_a_slab_through_the_middle_shows_the_truth_of_its_own_plane(head: Tissues) -> None:
    block = Block.of(head, draw_hu(head, np.random.default_rng(0)))

    sample = block.cut(_plan(head, head.t1.shape[0] / 2))

    assert sample.hu.shape == (3, ROWS, COLUMNS)
    assert sample.t1[ROWS // 2, COLUMNS // 2] == pytest.approx(0.62 * 255, abs=3)
    assert sample.hu[0, 0, 0] == -1000
    assert (sample.known == 255).all()


def test_nothing_is_measured_at_a_missing_position(head: Tissues) -> None:
    block = Block.of(head, draw_hu(head, np.random.default_rng(0)))

    sample = block.cut(_plan(head, head.t1.shape[0] / 2, missing=True))

    assert (sample.hu[1] == -1000).all()
    assert sample.hu[[0, 2]].max() > 0
    assert sample.t1.max() > 0


def test_a_plane_above_the_vertex_is_black_on_ct_and_t1(head: Tissues) -> None:
    block = Block.of(head, draw_hu(head, np.random.default_rng(0)))

    sample = block.cut(_plan(head, head.t1.shape[0] + 12))

    assert (sample.hu == -1000).all()
    assert (sample.t1 == 0).all()
    assert (sample.known == 255).all()


def test_sharpening_undoes_most_of_the_blur_of_two_millimetre_voxels_and_invents_no_level(
    head: Tissues,
) -> None:
    blurred = replace(head, smooth_t1=ndi.gaussian_filter(head.smooth_t1, 1.0))
    restored = sharpened(blurred, 2.0)

    left, before = (
        np.abs(t1 - head.smooth_t1)[head.brain > 0.5].mean()
        for t1 in (restored.smooth_t1, blurred.smooth_t1)
    )
    assert left < 0.7 * before
    np.testing.assert_array_equal(restored.t1, restored.smooth_t1)
    assert restored.t1.max() <= blurred.smooth_t1.max()
    assert restored.t1.min() >= blurred.smooth_t1.min()


def test_a_picture_that_comes_alone_is_its_own_neighbour_in_eight_bits() -> None:
    recipe = TrainConfig.load(DEMO).recipe
    hu = np.random.default_rng(3).uniform(-1000, 1500, recipe.grid.shape).astype(np.float32)

    source, wide, below, above = picture_alone(hu, recipe).channels

    np.testing.assert_array_equal(below, source)
    np.testing.assert_array_equal(above, source)
    assert (wide == -1).all()
    assert np.unique(source).size <= 256
    assert picture_alone(hu, recipe).distances_mm == (0.0, 0.0, 0.0)
