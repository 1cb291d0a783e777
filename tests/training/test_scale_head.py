"""The residual-scale head learns where residuals are large; figures tell when it does."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.calibrate.figures import SubjectResiduals, ause, by_kind, likelihood, order
from trainer.calibrate.residuals import Residuals
from trainer.calibrate.scale_head import ScaleTraining, scales, teach

SHAPE = (32, 24)


def heteroscedastic(person, seed, count=12):
    """Slices whose residuals are ten times as large where the drawn picture is bright."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 0.05, (count, 5, *SHAPE)).astype(np.float32)
    bright = np.zeros((count, *SHAPE), dtype=bool)
    for k in range(count):
        at = rng.integers(0, SHAPE[0] // 2)
        bright[k, at : at + SHAPE[0] // 2] = True
    x[:, 0] += np.where(bright, 0.8, -0.8)
    scale = np.where(bright, 0.2, 0.02)
    return Residuals(
        person=person,
        x=x.astype(np.float16),
        s=np.tile(np.array([[2.0, 0.0]], dtype=np.float32), (count, 1)),
        error=np.abs(rng.laplace(0.0, scale)).astype(np.float16),
        rule=np.full((count, *SHAPE), 0.1, dtype=np.float16),
        spread=None,
        inside=np.ones((count, *SHAPE), dtype=bool),
        kinds=("measured", "interpolated") * (count // 2),
        series=np.zeros(count, dtype=np.int32),
    )


@pytest.fixture(scope="module")
def head():
    return teach(heteroscedastic("teacher", 1), ScaleTraining(seed=1, steps=100))


@pytest.fixture(scope="module")
def judged(head):
    new = [heteroscedastic(name, seed) for name, seed in (("a", 2), ("b", 3), ("c", 4))]
    return [SubjectResiduals(each, scales(head, each)) for each in new]


def test_the_head_beats_the_best_constant_on_people_it_never_saw(judged):
    found = likelihood(judged)
    assert found["scale"] < found["constant"] - 0.2


def test_it_orders_errors_better_than_a_constant_and_the_rule_of_thumb(judged):
    found = order(judged)
    assert found["spearman"]["scale"] > 0.4
    assert found["ause"]["scale"] < 0.75 * found["ause"]["constant"]
    assert found["ause"]["rule of thumb"] == found["ause"]["constant"]  # it is constant here


def test_every_person_is_held_against_widths_of_the_others(judged):
    found = by_kind(judged)
    assert set(found) == {"measured", "interpolated"}
    for kind in found.values():
        assert kind["people"] == 3
        assert kind["levels"]["90%"]["mean"] == pytest.approx(0.9, abs=0.03)
        assert kind["levels"]["50%"]["mean"] == pytest.approx(0.5, abs=0.05)
        assert len(kind["quartiles"]) == 4
        assert kind["worst_series"] <= kind["levels"]["90%"]["mean"] + 1e-6


def test_the_same_seed_teaches_the_same_head_and_leaves_the_world_alone():
    import torch

    taught_by = heteroscedastic("teacher", 1)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, again = (teach(taught_by, ScaleTraining(seed=5, steps=3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_sparsification_of_an_oracle_is_nothing_and_of_a_constant_the_whole():
    error = np.random.default_rng(0).exponential(size=4000).astype(np.float32)
    assert ause(error, error) == 0.0
    constant = ause(np.ones_like(error), error)
    assert 0.4 < constant < 0.8
    assert ause(-error, error) > constant
