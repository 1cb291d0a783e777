"""Series for the out-of-domain score: drawn once, kept, and counted without flattery."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import load_bundle, write_bundle
from tests.support import phantom_conditions as conditions
from tests.support.ball_head import ball_maps
from tests.support.ood_models import ood_features, ood_model
from tests.support.phantoms import Ellipsoid
from tests.support.plain_bundle import plain_contents
from tests.support.tiny_bundle import tiny_recipe
from trainer.ood.report import exact_interval, markdown, rows, verdict
from trainer.ood.series import (
    CONDITIONS,
    IN_DOMAIN,
    EvaluatedSeries,
    SeriesEvaluator,
    in_distribution,
    kept_series,
)
from trainer.release.bundle import release_ood
from trainer.simulate.conditions import BODIES
from trainer.simulate.hounsfield import tissues

WAY = SeriesEvaluator(limits=shipped_limits(), recipe=tiny_recipe())
SINUS = Ellipsoid((0.0, -66.0, -42.0), (14.0, 14.0, 14.0), -1000.0)


class _Means:
    """An encoder of two numbers that notes how often it was asked."""

    identity = "means"

    def __init__(self):
        self.asked = 0

    def embed(self, image):
        self.asked += 1
        mean = float(image.mean())
        return np.array([mean, np.sqrt(1.0 - mean**2)], dtype=np.float32)


@pytest.mark.parametrize("name", BODIES)
def test_each_body_keeps_the_places_of_the_scan_and_changes_from_slice_to_slice(name):
    places = tuple(-52.0 + 9.0 * k for k in range(16))
    head = conditions.changed(parts=(SINUS,), slice_distances_mm=places)
    for seed in range(2):
        body = BODIES[name](head, np.random.default_rng(seed))
        assert body.hu.shape == head.hu.shape
        assert len(body.positions_mm) == len(head.positions_mm)
        assert np.isfinite(body.hu).all()
        assert (body.hu > -500).sum(axis=(1, 2)).std() > 50
        assert not np.array_equal(body.hu, head.hu)


def test_a_series_is_drawn_once_and_comes_back_as_it_was(tmp_path):
    wanted = {0: (IN_DOMAIN,), 1: ("scale shifted",)}
    drawn = [*kept_series(WAY, lambda: tissues(ball_maps()), "ball", wanted, 0, tmp_path)]

    def nobody():
        raise AssertionError("drawn again")

    again = [*kept_series(WAY, nobody, "ball", wanted, 0, tmp_path)]
    assert [seen.condition for seen in again] == [IN_DOMAIN, "scale shifted"]
    for first, second in zip(drawn, again, strict=True):
        assert (first.refused, first.flagged) == (second.refused, second.flagged)
        assert np.array_equal(first.slices, second.slices)
    assert np.array_equal(drawn[0].look.picture, again[0].look.picture, equal_nan=True)
    assert "HU" in again[1].refused  # after the first draw no look is taken of what is refused
    assert again[1].look is None
    assert len(list(tmp_path.iterdir())) == 2


def test_every_slice_that_is_looked_at_is_embedded_once():
    seen = _seen(IN_DOMAIN, ood_features(np.random.default_rng(0)))
    encoder = _Means()
    assert seen.embedded(encoder).look.embeddings.shape == (len(seen.slices), 2)
    assert encoder.asked == len(seen.slices)
    assert _seen(IN_DOMAIN, None).embedded(encoder).look is None


def _seen(condition, looked, refused=(), flagged=()):
    return EvaluatedSeries(
        person="sub", condition=condition, draw=0, refused=refused, flagged=flagged,
        look=looked, slices=np.zeros((0 if looked is None else 12, 32, 24), np.uint8),
    )  # fmt: skip


def test_a_series_counts_once_however_it_was_caught():
    rng, known = np.random.default_rng(4), ood_model()
    sound, strange = ood_features(rng), ood_features(rng, 6.0)
    seen = [
        _seen(IN_DOMAIN, sound),
        _seen(IN_DOMAIN, sound, flagged=("OOD",)),
        _seen("METAL", None, refused=("METAL", "NOISE")),
        _seen("METAL", strange, refused=("METAL",)),
        _seen("animal", strange),
        _seen("animal", sound),
    ]
    table = {row["condition"]: row for row in rows([verdict(one, known) for one in seen])}
    assert list(table) == [IN_DOMAIN, "METAL", "animal"]
    counted = ("n", "refused_by_rules", "flagged_by_rules_only", "by_score_only", "caught")
    assert [table[IN_DOMAIN][name] for name in counted] == [2, 0, 1, 0, 1]
    assert [table["METAL"][name] for name in counted] == [2, 2, 0, 0, 2]
    assert [table["animal"][name] for name in counted] == [2, 0, 0, 1, 1]
    assert (table["METAL"]["looked_at"], table["METAL"]["above_threshold"]) == (1, 1)
    assert "| METAL | 2 | 2 | 0 | 0 | 100.0 % | 15.8 to 100.0 % |" in markdown([*table.values()])


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(20, 20, 0.832, 1.0), (0, 72, 0.0, 0.050), (57, 60, 0.861, 0.990)],
)
def test_the_interval_is_clopper_and_pearson_s(hits, n, low, high):
    assert exact_interval(hits, n) == pytest.approx((low, high), abs=0.001)


def test_what_must_be_caught_is_what_the_report_counts():
    assert {"METAL", "CRANIECTOMY", "NOISE", "scale shifted", "upside down"} <= set(CONDITIONS)
    assert BODIES.keys() <= set(CONDITIONS)


def test_the_domain_is_written_into_a_new_bundle_and_every_other_byte_stays(tmp_path):
    write_bundle(tmp_path / "old", "tiny", "0.1", plain_contents())
    old = load_bundle(tmp_path / "old")
    made = release_ood(old, ood_model(), tmp_path / "new")
    assert made.ood_model == ood_model()
    assert made.digest != old.digest == load_bundle(tmp_path / "old").digest
    assert all(made.read(name) == old.read(name) for name in old.manifest.files)
    with pytest.raises(FileExistsError, match="new folder"):
        release_ood(old, ood_model(), tmp_path / "new")


def test_a_series_that_a_rule_refuses_teaches_nothing():
    sound = ood_features(np.random.default_rng(0))
    chosen = in_distribution(
        [
            _seen(IN_DOMAIN, sound),
            _seen(IN_DOMAIN, sound, flagged=("OOD",)),
            _seen(IN_DOMAIN, sound, refused=("MOTION",)),
            _seen(IN_DOMAIN, None),
        ]
    )
    assert len(chosen) == 2
