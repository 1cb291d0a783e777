"""Simulated CT: its tissues, its stacks, and a real study within what the simulation draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pydicom.encaps
import pytest
import torch
from scipy import ndimage as ndi

from rebrain_node.model import encoder
from tests.support.ball_head import SCALE, ball_maps
from trainer.config import TrainConfig
from trainer.heads import Head
from trainer.sample_rng import SampleRng
from trainer.simulate.hounsfield import (
    MOST_STRETCH,
    Tissues,
    draw_hu,
    mni_from_voxel,
    sharpened,
    stretch,
    tissues,
)
from trainer.simulate.pool import write_index
from trainer.simulate.scanner import scan, with_leukoaraiosis
from trainer.simulate.shipped_heads import SEED
from trainer.simulate.slabs import COLUMNS, ROWS, Block, Plan, rotation
from trainer.simulate.stacks import (
    Stack,
    StackIndex,
    StackRecord,
    Stacks,
    draw_stack,
    stack_head,
    write_subject,
)
from trainer.train.samples import picture_alone

ROOT = Path(__file__).parents[2]
RECIPE = TrainConfig.load(ROOT / "conf/train/demo.toml").recipe


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


def _slice_with_ventricle(ventricle: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """White matter of 28 HU and T1 .62 with a ventricle of a radius in pixels in the middle."""
    y, x = torch.meshgrid(torch.arange(-60.0, 61), torch.arange(-60.0, 61), indexing="ij")
    radius = torch.hypot(y, x)
    brain, fluid = (radius < 55).float(), (radius < ventricle).float()
    hu = torch.where(fluid > 0, 7.0, 28.0) * brain
    return hu.expand(3, -1, -1), torch.where(fluid > 0, 0.13, 0.62) * brain, brain


@pytest.mark.parametrize("seed", range(8))
def test_leukoaraiosis_lies_at_the_ventricle_and_stays_tissue(seed: int) -> None:
    hu, t1, brain = _slice_with_ventricle(12.0)

    sick, sick_t1 = with_leukoaraiosis(hu, t1, brain, SampleRng(seed, 0))

    changed = (hu - sick)[1] > 1.0
    assert int(changed.sum()) > 100
    rows, columns = torch.nonzero(changed, as_tuple=True)
    from_middle = torch.hypot(rows - 60.0, columns - 60.0)
    assert float(from_middle.min()) >= 11.0  # not the ventricle
    assert float(from_middle.max()) < 45.0  # nor the rim of the brain
    assert float(sick[:, changed].min()) > 10.0
    ratio = (sick_t1 / t1.clamp(min=0.1))[changed]
    assert float(ratio.min()) > 0.69
    assert float(ratio.max()) < 1.0


def test_a_slice_without_ventricle_gets_no_leukoaraiosis() -> None:
    hu, t1, brain = _slice_with_ventricle(2.0)

    assert torch.equal(with_leukoaraiosis(hu, t1, brain, SampleRng(1, 0))[0], hu)


def test_a_picture_that_comes_alone_is_its_own_neighbour_in_eight_bits() -> None:
    hu = np.random.default_rng(3).uniform(-1000, 1500, RECIPE.grid.shape).astype(np.float32)

    source, wide, below, above = picture_alone(hu, RECIPE).channels

    np.testing.assert_array_equal(below, source)
    np.testing.assert_array_equal(above, source)
    assert (wide == -1).all()
    assert np.unique(source).size <= 256
    assert picture_alone(hu, RECIPE).distances_mm == (0.0, 0.0, 0.0)


def test_the_affine_is_that_of_the_coordinates(head):
    affine = mni_from_voxel(head)
    assert np.abs(affine[:3, :3] - np.diag([-SCALE, -SCALE, SCALE])).max() < 0.02
    assert stretch(affine) == pytest.approx(1.0, abs=0.01)


def test_a_stack_is_widest_in_the_middle_of_the_ball_and_steps_evenly(head):
    stack = draw_stack(head, np.random.default_rng(5), 4.0, 2.0, RECIPE)
    assert stack.slices.shape[1:] == (encoder.ROWS, encoder.COLUMNS)
    steps = np.diff(stack.position_mm) / np.diff(stack.rank)
    assert steps.min() > 0
    assert np.ptp(steps) < 1e-6
    widest = (stack.slices > 0).sum(axis=(1, 2)).argmax()
    assert abs(stack.position_mm[widest]) < 5.0 * SCALE


def _stack(first: int, count: int) -> Stack:
    slices = np.full((count, encoder.ROWS, encoder.COLUMNS), first, dtype=np.uint8)
    return Stack(slices, slices // 2, 5.0 * np.arange(count), np.arange(count, dtype=np.int32))


def test_stacks_are_numbered_through_all_subjects_and_the_dense_one_is_left_out(tmp_path):
    records = []
    for name, role in (("a", "train"), ("b", "validation"), ("c", "train")):
        drawn = [_stack(1, 3), _stack(2, 2)]
        count, digest = write_subject(tmp_path / f"{name}.npz", iter(drawn))
        records.append(
            StackRecord(name=name, role=role, licence="none", slices=count, sha256=digest)
        )
    write_index(tmp_path, StackIndex(seed=1, subjects=tuple(records)))
    read = Stacks.open(tmp_path, "train")
    assert read.names == ("a", "c")
    assert read.stack.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert read.thick().stack.tolist() == [0, 0, 0, 2, 2, 2]

    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes() + b" ")
    with pytest.raises(ValueError, match="expected SHA-256"):
        Stacks.open(tmp_path, "train")
    with pytest.raises(ValueError, match="no subject with a role of demonstration"):
        Stacks.open(tmp_path, "demonstration")


def test_a_head_whose_coordinates_went_astray_is_left_out(tmp_path):
    maps = ball_maps()
    maps["mni_z"] = np.clip(maps["mni_z"] * (MOST_STRETCH + 0.1), -125, 125).astype(np.int8)
    np.savez(tmp_path / "ball.npz", **maps)
    ball = Head("ball", Path(), None, "none", "train", sharp=False, whole_head_truth=True)
    assert stack_head(ball, tmp_path, tmp_path / "stacks", 1, RECIPE) is None


SERIES = "Brain Head 5.0"
DRAWS = 80
# Grey matter is drawn between 34 and 41 HU for a head; the demonstration head is one such draw.
GREY_HU = (34.0, 41.0)


def _figures(hu: np.ndarray) -> tuple[float, float]:
    """Return the mean and the high-pass SD (HU) of the brain of one slice at about 0.9 mm."""
    brain = ndi.binary_opening((hu > 0) & (hu < 80), iterations=3)
    labels, count = ndi.label(brain)
    largest = labels == 1 + np.argmax(ndi.sum_labels(brain, labels, range(1, count + 1)))
    inside = ndi.binary_erosion(ndi.binary_fill_holes(largest), iterations=8)
    return float(hu[inside].mean()), float((hu - ndi.gaussian_filter(hu, 2))[inside].std())


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[tuple[float, float]]:
    found = []
    for path in sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.get("SeriesDescription") != SERIES or not 15 <= header.InstanceNumber <= 21:
            continue
        dataset = pydicom.dcmread(path)
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        stored = imagecodecs.ljpeg_decode(frame).view(np.int16)
        hu = stored.astype(np.float32) * dataset.RescaleSlope + dataset.RescaleIntercept
        fine = np.maximum(hu, -1000).astype(np.float32)
        found.append(_figures(ndi.zoom(fine, dataset.PixelSpacing[0] / 0.9, order=1)))
    return found


def _simulated() -> list[tuple[float, float]]:
    with np.load(ROOT / "rebrain_node" / "demo_head" / "head.npz") as head:
        slab = head["hu"][95:100].mean(0).astype(np.float32)
    slabs = [
        scan(torch.from_numpy(slab)[None], SampleRng(0, draw))[0].numpy() for draw in range(DRAWS)
    ]
    return [_figures(plane) for plane in slabs]


def test_brain_and_noise_of_a_real_study_lie_within_the_simulated_range(
    real: list[tuple[float, float]],
) -> None:
    simulated = np.array(_simulated())
    drawn_grey = np.random.default_rng(SEED).uniform(*GREY_HU)
    low = simulated.min(axis=0) + np.array([GREY_HU[0] - drawn_grey, 0])
    high = simulated.max(axis=0) + np.array([GREY_HU[1] - drawn_grey, 0])

    measured = np.median(np.array(real), axis=0)

    assert len(real) == 7
    assert (low < measured).all(), f"{measured} below {low}"
    assert (measured < high).all(), f"{measured} above {high}"
