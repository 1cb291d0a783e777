"""The baseline `template`: heads that agree in the head frame are drawn as they are."""

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.model.recipe import Grid, Recipe
from tests.support.ball_head import ball_subject
from tests.support.located_heads import PIXEL_MM, Pose, places_of, posed
from tests.support.tiny_bundle import tiny_recipe
from trainer.data.dataset import ROLES, PreparedData, Subject
from trainer.data.placing import truth_unit
from trainer.data.protocols import Sparsity, thinned
from trainer.evaluate.baselines import Baselines, MeanT1, Template, statistics_of, why_no_template

POSES = {
    "a": Pose(nod_deg=-12.0, turn_deg=5.0, shift_mm=(3.0, -4.0, 0.0)),
    "b": Pose(nod_deg=9.0, lean_deg=4.0, shift_mm=(-4.0, 6.0, 0.0)),
}


SPOT = 300.0


def spot_of(name: str) -> np.ndarray:
    return np.asarray(np.linalg.norm(places_of(POSES[name]) - (25, 20, 30), axis=-1) < 14)


def a_head(name: str) -> Subject:
    """The demonstration head in one pose, its T1 a function of the place; `a` alone has a spot."""
    volume, _ = posed(POSES[name])
    x, y, z = np.moveaxis(places_of(POSES[name]), -1, 0)
    target = 500 + 200 * np.sin(x / 15) + 150 * np.cos(y / 14) + 150 * np.sin(z / 11)
    if name == "a":
        target[spot_of("a")] += SPOT
    return Subject(
        name=name,
        source=volume.hu,
        target=target.astype(np.float32),
        mask=volume.head,
        brain=None,
        positions_mm=volume.distances_mm,
        pixel_mm=(PIXEL_MM, PIXEL_MM),
    )


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    grid = Grid(rows=64, columns=64, pixel_mm=PIXEL_MM)
    return tiny_recipe().model_copy(update={"grid": grid})


@pytest.fixture(scope="module")
def heads() -> PreparedData:
    subjects = {name: a_head(name) for name in POSES}
    air = np.full_like(subjects["a"].source, -1000)
    subjects["air"] = replace(subjects["a"], name="air", source=air)
    return PreparedData(
        source_kind="ct",
        volumetric=True,
        split={"train": ("a", "b", "air"), "validation": (), "test": ("air",)},
        licence="none needed",
        origin="the demonstration head in other poses",
        digest="none",
        load=subjects.__getitem__,
    )


@pytest.fixture(scope="module")
def template(heads: PreparedData, recipe: Recipe) -> Template:
    made = Template.fit(heads, recipe, lambda: None)
    assert isinstance(made, Template)
    return made


def test_a_training_head_is_drawn_by_the_others_laid_over_its_sparse_slices(
    heads: PreparedData, template: Template
) -> None:
    assert list(template.places) == ["a", "b"]
    subject = heads.subject("a")
    case = thinned(subject, Sparsity.parse("thick:2"))
    truth = truth_unit(subject.target, subject.mask)
    spot = spot_of("a")
    middle = (np.linalg.norm(places_of(POSES["a"]), axis=-1) < 60) & ~spot

    drawn = np.zeros_like(truth)
    drawn[case.rows] = template.synthesise(case)

    drawn, truth, middle, spot = (of[case.rows] for of in (drawn, truth, middle, spot))
    assert np.corrcoef(drawn[middle], truth[middle])[0, 1] > 0.98
    # b as it lies, not laid over: it is the affine that does it
    assert np.corrcoef(heads.subject("b").target[case.rows][middle], truth[middle])[0, 1] < 0.9
    above = (truth - drawn)[spot].mean() / (truth - drawn)[middle].std()
    assert above > 3


def test_the_mean_is_over_the_heads_that_are_seen_at_a_place() -> None:
    ball = ball_subject("one")
    half = ball.mask & (np.arange(20) < 10)
    other = replace(ball, name="two", mask=half, target=ball.target[:, :, ::-1])
    affine = np.diag([1.25, 1.5, 1.0, 1.0])

    one = MeanT1.empty().plus(ball, affine)
    both = one.plus(other, affine)
    first, second, mean = (
        sums.resampled(thinned(ball, Sparsity.parse("none")), affine)
        for sums in (one, MeanT1.empty().plus(other, affine), both)
    )

    seen_twice, seen_once = np.s_[2:8, 6:18, 4:8], np.s_[2:8, 6:18, 12:16]
    np.testing.assert_allclose(mean[seen_twice], (first + second)[seen_twice] / 2, atol=1e-5)
    assert np.abs(first - second)[seen_twice].mean() > 0.05
    np.testing.assert_array_equal(mean[seen_once], first[seen_once])
    assert not mean[:, 0, 0].any()  # no head was seen in the corner
    np.testing.assert_allclose(both.minus(other, affine).coverage, one.coverage, atol=1e-6)


def test_a_head_that_cannot_be_placed_is_left_out_and_has_no_figure(
    heads: PreparedData, template: Template, recipe: Recipe
) -> None:
    statistics = {"a": statistics_of(heads.subject("a"), heads, recipe)}
    baselines = Baselines(heads, recipe, statistics, template, [])

    drawn = dict(baselines.synthesise(thinned(heads.subject("air"), Sparsity.parse("none"))))

    assert set(template.left_out) == {"air"}
    assert "exemplar" in drawn
    assert "template" not in drawn
    (remark,) = baselines.remarks
    assert remark.startswith(
        "template: no figure for air: NOT-HEAD: no slice shows anything but air"
    )


def test_it_is_said_what_is_missing_for_a_template(heads: PreparedData, recipe: Recipe) -> None:
    nobody = replace(heads, split=dict.fromkeys(ROLES, ()))
    only_air = replace(nobody, split={"train": ("air",), "validation": (), "test": ("a",)})

    assert why_no_template(heads) is None
    assert "no CT in HU" in str(why_no_template(replace(heads, source_kind="mr")))
    assert "no positions" in str(why_no_template(replace(heads, volumetric=False)))
    assert "no training subjects" in str(Template.fit(nobody, recipe, lambda: None))
    assert "no training head can be placed" in str(Template.fit(only_air, recipe, lambda: None))
