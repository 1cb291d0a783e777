"""Heads drawn from label maps: anatomy, disease and level agree between CT and T1."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rebrain_node.errors import SettingsError
from rebrain_node.model.recipe import Grid
from tests.support.ball_head import ball_maps
from tests.support.label_head import ball_labels, label_maps
from trainer.config import SampleDraws, TrainConfig
from trainer.evaluate.release_scores import cases
from trainer.sample_rng import SampleRng
from trainer.simulate import pool
from trainer.simulate.hounsfield import Anatomy, DrawnHead, mni_from_voxel, tissues
from trainer.simulate.labels import CLASSES, LabelHead, classes_of, read_maps
from trainer.simulate.pathology import (
    CSF_T1,
    LEAST_ABOVE_CSF,
    Canvas,
    Levels,
    TissueParts,
    cyst,
    haemorrhage,
    infarct,
    leukoaraiosis,
    paint,
    shunt,
)
from trainer.simulate.pool import Pool, PoolIndex, PoolRecord, draw_samples
from trainer.simulate.scanner import scan, with_pathology
from trainer.simulate.slabs import Block, Plan, rotation
from trainer.train.bridge import (
    Loss,
    draw_time_steps,
    fresh_state,
    lost_amplitude,
    lost_detail,
    train,
)
from trainer.train.guided import GuidedSource
from trainer.train.samples import PoolSource, draw_batch, sample_weights

DEMO = TrainConfig.load(Path(__file__).parents[2] / "conf" / "train" / "demo.toml")
NUMBER = {name: k for k, name in enumerate(CLASSES)}
LEVELS = Levels(grey=37.0, white=30.0, csf=8.0)
SHAPE = (48, 48, 48)
SEEDS = range(6)


@pytest.fixture(scope="module")
def head() -> LabelHead:
    return LabelHead.of(label_maps())


def _white_block(seed: int) -> Canvas:
    """White matter of one level with a ventricle in one corner."""
    hollow = np.zeros(SHAPE, bool)
    hollow[:8, :8, :8] = True
    z, y, x = np.indices(SHAPE)
    away = np.sqrt(sum(np.maximum(axis - 7, 0) ** 2 for axis in (z, y, x))).astype(np.float32)
    white = (~hollow).astype(np.float32)
    sites = TissueParts(white, white, np.where(hollow, -1, away).astype(np.float32), away + 5)
    hu = np.where(hollow, LEVELS.csf, LEVELS.white).astype(np.float32)
    t1 = np.where(hollow, CSF_T1, 0.62).astype(np.float32)
    return Canvas(hu, t1, sites, LEVELS, np.random.default_rng(seed))


def test_labels_become_classes_and_air_within_the_head_is_air() -> None:
    labels = ball_labels()
    labels[30:34, 8:12, 30:34] = 0  # a cavity in the scalp, open to nothing
    labels[0, 0, 0] = 507  # a voxel apart from the head

    classes, inside = classes_of(labels)

    assert classes[31, 32, 32] == NUMBER["ventricle"]
    assert classes[31, 32, 46] == NUMBER["white"]
    assert classes[31, 32, 50] == NUMBER["cortex"]
    assert classes[32, 10, 32] == NUMBER["air"]
    assert inside[32, 10, 32]
    assert classes[0, 0, 0] == NUMBER["outside"]


@pytest.mark.parametrize("seed", SEEDS)
def test_leukoaraiosis_is_never_csf_on_ct_and_at_most_a_quarter_darker_on_t1(seed: int) -> None:
    canvas = _white_block(seed)
    before = canvas.hu.copy()

    leukoaraiosis(canvas, 30.0)  # more than there is room for

    white = canvas.sites.white > 0
    assert canvas.hu[white].min() >= LEVELS.csf + LEAST_ABOVE_CSF - 1e-4
    assert canvas.t1[white].min() >= 0.62 * 0.75 - 1e-4
    assert (before - canvas.hu)[white].max() > 5
    assert np.array_equal(canvas.hu[~white], before[~white])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_t1_of_an_infarct_follows_from_its_hounsfield_units(seed: int) -> None:
    canvas = _white_block(seed)

    infarct(canvas)

    white = canvas.sites.white > 0
    share = (LEVELS.white - canvas.hu[white]) / (LEVELS.white - LEVELS.csf - 1)
    assert share.max() > 0.05
    expected = 0.62 + share**2 * (CSF_T1 + 0.01 - 0.62)
    np.testing.assert_allclose(canvas.t1[white], expected, atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cyst_is_csf_on_ct_and_on_t1(seed: int) -> None:
    canvas = _white_block(seed)

    cyst(canvas)

    deepest = canvas.hu < LEVELS.csf + 4
    deepest &= canvas.sites.white > 0
    assert deepest.any()
    assert canvas.t1[deepest].max() < 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_blood_is_dense_and_as_bright_as_grey_matter_with_oedema_round_it(seed: int) -> None:
    canvas = _white_block(seed)

    haemorrhage(canvas)

    assert canvas.hu.max() > 45
    assert 0.33 < canvas.t1[canvas.hu > 45].mean() < 0.57
    assert (canvas.hu[canvas.sites.white > 0] < LEVELS.white - 1).any()


def test_a_shunt_leads_from_a_ventricle_to_beyond_the_brain() -> None:
    canvas = _white_block(1)
    before = canvas.hu.copy()

    shunt(canvas)

    catheter = np.argwhere(canvas.hu > 80)
    assert len(catheter) > 20
    assert before[tuple(catheter.T)].min() == LEVELS.csf  # its tip lies in the ventricle
    assert canvas.t1[canvas.hu > 80].max() < 0.15


def test_painting_leaves_the_given_volumes_alone() -> None:
    canvas = _white_block(0)
    hu, t1 = canvas.hu.copy(), canvas.t1.copy()

    painted = [
        paint(hu, t1, canvas.sites, LEVELS, np.random.default_rng(seed))[0] for seed in range(12)
    ]

    assert np.array_equal(hu, canvas.hu)
    assert np.array_equal(t1, canvas.t1)
    healthy = sum(np.array_equal(each, hu) for each in painted)
    assert 1 <= healthy <= 9


def test_oedema_painted_into_a_slice_is_not_fluid() -> None:
    hu, brain = torch.full((3, 64, 64), 24.0), torch.ones(64, 64)
    t1 = torch.full((64, 64), 0.62)

    for step in range(200):
        painted, painted_t1 = with_pathology(hu, t1, brain, SampleRng(5, step))
        between = (painted[1] > 13.5) & (painted[1] < 15.9)
        assert not (between & (painted_t1 > 0.5)).any()


def test_one_seed_draws_one_person_and_another_seed_another(head: LabelHead) -> None:
    first, again, other = (head.drawn(np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.anatomy.t1, again.anatomy.t1)
    assert not np.array_equal(first.hu, other.hu)


def _sure(head: LabelHead, name: str) -> np.ndarray:
    """Voxels of a class far from its surface whatever the shape drawn."""
    z, y, x = np.indices(head.classes.shape) - 31.5
    radius = np.sqrt(z**2 + y**2 + x**2)
    low, high = {"ventricle": (0, 1), "white": (10, 13), "bone": (23, 24)}[name]
    return (radius >= low) & (radius <= high)


def test_white_matter_bone_and_ventricle_have_their_levels(head: LabelHead) -> None:
    people = [head.drawn(np.random.default_rng(seed)) for seed in range(8)]

    white = [np.median(p.hu[_sure(head, "white")]) for p in people]
    assert 20 < min(white) < max(white) < 36
    assert np.median([p.anatomy.t1[_sure(head, "white")].mean() for p in people]) > 0.5
    assert np.median([p.anatomy.t1[_sure(head, "ventricle")].mean() for p in people]) < 0.3
    assert np.median([p.hu[_sure(head, "bone")].mean() for p in people]) > 400


def test_ventricles_differ_in_size_from_person_to_person(head: LabelHead) -> None:
    sizes = [
        int((head.drawn(np.random.default_rng(seed)).anatomy.t1[20:44, 20:44, 20:44] < 0.25).sum())
        for seed in range(10)
    ]

    assert max(sizes) > 1.5 * min(sizes)


def test_both_parts_of_the_training_of_the_demonstration_have_one_recipe() -> None:
    second = TrainConfig.load(Path(__file__).parents[2] / "conf" / "train" / "demo-second.toml")

    assert second.recipe == DEMO.recipe
    assert second.samples.leukoaraiosis > DEMO.samples.leukoaraiosis


@pytest.mark.parametrize("section", ["simulate", "gaps"])
@pytest.mark.parametrize("preset", ["demo.toml", "gpu.toml"])
def test_the_node_shifts_a_series_to_the_level_of_the_training(
    tmp_path: Path, preset: str, section: str
) -> None:
    shipped = Path(__file__).parents[2] / "conf" / "train" / preset
    text = shipped.read_text()
    assert TrainConfig.load(shipped).recipe.tissue_level_hu == 34.0
    before, _, after = text.partition(f"[{section}]")
    other = tmp_path / preset
    other.write_text(before + f"[{section}]" + after.replace("= 34.0", "= 30.0", 1))

    with pytest.raises(SettingsError, match=rf"{section}.tissue_level_hu 30.0 .* 34.0"):
        TrainConfig.load(other)


@pytest.mark.parametrize("kind", ["labels", "t1"])
def test_a_person_is_levelled_to_the_tissue_of_the_brain_and_bone_stays(kind: str) -> None:
    person = (LabelHead.of(label_maps()) if kind == "labels" else tissues(ball_maps())).drawn(
        np.random.default_rng(3)
    )
    lifted = replace(person, hu=person.hu + np.float32(7) * (person.hu > -500))

    for each in (person, lifted):
        levelled = each.levelled(34.0)
        assert levelled.tissue_hu() == pytest.approx(34.0, abs=2)  # a peak of two
        dense = each.hu > 300
        assert np.array_equal(levelled.hu[dense], each.hu[dense])


def test_the_level_lies_between_grey_and_white_matter() -> None:
    hu = np.where(np.arange(32**3) % 2, 37.0, 29.0).reshape(32, 32, 32).astype(np.float32)
    whole = np.ones_like(hu)
    anatomy = Anatomy(whole, whole, whole, np.tile([-np.inf, np.inf], (3, 1)), (whole,) * 3)

    assert DrawnHead(anatomy, hu).tissue_hu() == pytest.approx(33.0, abs=1.5)


def test_a_slab_of_a_label_head_averages_its_planes(head: LabelHead) -> None:
    person = head.drawn(np.random.default_rng(2))
    middle = np.array(person.hu.shape) / 2
    plan = Plan(middle, rotation(0, 0, 0), 40.0, 40.0, 40.0, missing=False)

    thick = Block.of(person.anatomy, person.hu).cut(plan)
    thin = Block.of(person.anatomy, person.hu).cut(replace(plan, thickness_mm=1.0))

    centre = np.s_[140:148, 116:124]
    assert thin.t1[centre].mean() / 255 < 0.3  # the ventricle alone
    assert thick.t1[centre].mean() > thin.t1[centre].mean() + 20  # with what lies above and below
    assert thick.hu[1][centre].mean() > thin.hu[1][centre].mean()


def test_maps_of_both_kinds_are_read_as_heads_to_draw(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", **label_maps())
    np.savez(tmp_path / "t1.npz", **ball_maps())

    heads = [read_maps(tmp_path / f"{name}.npz", 1.0) for name in ("labels", "t1")]

    assert isinstance(heads[0], LabelHead)
    for each in heads:
        assert np.isfinite(mni_from_voxel(each)).all()
        assert np.isfinite(each.drawn(np.random.default_rng(0)).hu).all()


@pytest.fixture(scope="module")
def mixed_pool(head: LabelHead, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("mixed")
    heads = {"label01": (head, "labels", 6), "ball": (tissues(ball_maps()), "t1", 12)}
    records = [
        PoolRecord(
            name=name,
            role="train",
            sharp=True,
            whole_head_truth=True,
            kind=kind,
            samples=count,
            sha256=pool.write_subject(
                folder / name,
                draw_samples(each, name, count, seed=1, tissue_level_hu=34.0),
                count,
            ),
        )
        for name, (each, kind, count) in heads.items()
    ]
    pool.write_index(folder, PoolIndex(seed=1, subjects=tuple(records)))
    return Pool.open(folder, "train")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_label_maps_have_their_share_of_the_draws(mixed_pool: Pool, share: float) -> None:
    weights = sample_weights(mixed_pool, SampleDraws(label_share=share))

    assert float(weights[:6].sum() / weights.sum()) == pytest.approx(share)


def test_slices_with_little_brain_are_drawn_less_often(mixed_pool: Pool) -> None:
    alike = sample_weights(mixed_pool, SampleDraws())
    fewer = sample_weights(mixed_pool, SampleDraws(little_brain=0.2))

    brain = np.concatenate([(a["brain"] > 127).mean(axis=(1, 2)) for a in mixed_pool.arrays])
    ratio = (fewer / alike).numpy()
    assert ratio[brain < 0.05] == pytest.approx(0.2)
    assert (ratio[brain > 0.07] == 1).all()


def test_a_levelled_scan_errs_by_no_more_than_twice_the_deviation() -> None:
    hu, brain = torch.full((1, 64, 64), 34.0), torch.ones(64, 64)
    means = [float(scan(hu, SampleRng(1, k), 2.0, brain).mean()) for k in range(60)]
    wide = [float(scan(hu, SampleRng(1, k)).mean()) for k in range(60)]

    assert max(abs(mean - 34) for mean in means) < 4.5
    assert np.std(means) > 1
    assert max(wide) > 40


def test_the_control_branch_learns_from_samples_levelled_as_the_bridge_has_them(
    mixed_pool: Pool,
) -> None:
    only = torch.zeros(18)
    only[2] = 1.0
    assert DEMO.control is not None
    draws = SampleDraws(level_sd_hu=2.0, leukoaraiosis=0.5)
    guided = GuidedSource(mixed_pool, only, DEMO.recipe, DEMO.control, [None] * 18, draws=draws)
    bridge = PoolSource(mixed_pool, only, DEMO.recipe, draws)

    drawn, _ = guided.draw(SampleRng(3, 1))

    assert torch.equal(drawn.conditioning, bridge.draw(SampleRng(3, 1)).conditioning)


def test_held_out_slices_are_scored_as_level_as_they_are_trained(mixed_pool: Pool) -> None:
    def spread(level_sd_hu: float | None) -> float:
        sources = (
            (case.conditioning.source, case.brain)
            for case in cases(mixed_pool, DEMO.recipe, 1, level_sd_hu)
        )
        return float(np.std([plane[brain].mean() for plane, brain in sources if brain.any()]))

    assert spread(0.0) < spread(None)


def _grain(seed: int) -> torch.Tensor:
    return torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed)) * 0.3


def test_detail_is_lost_by_blur_more_than_by_low_amplitude_and_not_by_the_truth() -> None:
    truth, one = _grain(1), torch.ones(1, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)

    losses = [
        float(lost_detail(image, truth, one, one.sum()))
        for image in (truth, 0.5 * truth, blurred, 0 * truth)
    ]

    assert losses[0] == 0
    assert losses == sorted(losses)


def test_beside_the_weighted_error_speckle_is_worse_than_no_detail() -> None:
    truth, one = _grain(1), torch.ones(1, 1, 64, 64)
    at_start = 1 / 0.5  # weight of the error at m = 1 for the usual contrast

    def loss(image: torch.Tensor) -> float:
        weighted = at_start * (image - truth).abs().mean()
        return float(weighted + lost_detail(image, truth, one, one.sum()))

    assert loss(_grain(2)) > loss(0 * truth) > loss(0.5 * truth)


def test_missing_amplitude_is_that_of_blur_and_not_of_detail_in_another_place() -> None:
    truth, one = _grain(1), torch.ones(1, 1, 64, 64)

    def loss(image: torch.Tensor) -> float:
        return float(lost_amplitude(image, truth, one, one.sum()))

    assert loss(truth) == 0
    assert loss(torch.roll(truth, 2, 3)) < 0.1 * loss(0.5 * truth)
    assert loss(0.5 * truth) < loss(torch.nn.functional.avg_pool2d(truth, 3, 1, 1))


def test_the_missing_amplitude_counts_from_its_share_of_the_steps_on(mixed_pool: Pool) -> None:
    parameters = {"steps": 10, "amplitude_weight": 4.0, "amplitude_from": 0.7}
    training = DEMO.train.model_copy(update=parameters)
    grid = Grid(rows=64, columns=48, pixel_mm=0.9)
    recipe = DEMO.recipe.model_copy(update={"grid": grid, "widths": (8, 16)})
    config = DEMO.model_copy(update={"train": training, "recipe": recipe})
    loss = Loss(fresh_state(config, torch.device("cpu")).network, training)
    rng = [SampleRng(1, 0)]
    batch = draw_batch(PoolSource.of(mixed_pool, recipe), rng)
    draws = draw_time_steps(training, grid.shape, rng)

    losses = []
    for step in (0, 6, 7):
        loss.begin(step)
        losses.append(loss(batch, draws, batch.weight.sum()).item())

    assert losses[0] == losses[1] < losses[2]


def test_a_network_learns_from_heads_of_both_kinds(mixed_pool: Pool, tmp_path: Path) -> None:
    grid = Grid(rows=64, columns=48, pixel_mm=0.9)
    config = DEMO.model_copy(
        update={
            "recipe": DEMO.recipe.model_copy(update={"grid": grid, "widths": (8, 16)}),
            "train": DEMO.train.model_copy(update={"steps": 2, "batch": 2}),
        }
    )
    source = PoolSource.of(mixed_pool, config.recipe, config.samples)
    state = fresh_state(config, torch.device("cpu"))
    losses: list[float] = []

    train(config, source, state, tmp_path, lambda _step, loss: losses.append(loss))

    assert state.step == 2
    assert np.isfinite(losses).all()
