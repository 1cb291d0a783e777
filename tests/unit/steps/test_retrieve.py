"""Which exemplar guides a slice, or why none does; every case gives a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.domain.guidance import COLUMNS, exemplars_of, guidance
from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.volume import Grid, PreparedVolume, Target
from rebrain_node.errors import BundleError
from rebrain_node.model.recipe import Recipe, Retrieval
from rebrain_node.model.resample import doubled
from rebrain_node.model.source import conditioning_at, windowed
from rebrain_node.retrieval.search import FaissExemplars
from rebrain_node.steps.retrieve import ExemplarQuery, embed, find_exemplar, retrieve
from rebrain_node.steps.synthesise import synthesise
from tests.support.geometry_cases import WindowedSource
from tests.support.knowledge_bases import subject_hash, verified, with_index
from tests.support.tiny_bundle import tiny_recipe

DISTANCES = np.array([0.0, 6.0, 12.0])
POSITIONS = DISTANCES + 20.0  #: head frame
TAU = 0.9


def _recipe(**retrieval) -> Recipe:
    update = {"retrieval": Retrieval(method="exemplar", **retrieval)}
    return tiny_recipe(rows=64, columns=48).model_copy(update=update)


def _prepared() -> PreparedVolume:
    targets = [
        Target(
            distance_mm=float(d),
            below=int(d // 6),
            above=int(d // 6) + (d % 6 > 0),
            alpha=float(d % 6) / 6,
        )
        for d in range(0, 13, 2)
    ]
    rng = np.random.default_rng(0)
    return PreparedVolume(
        hu=rng.uniform(0, 80, (3, 64, 48)).astype(np.float32),
        head=np.ones((3, 64, 48), dtype=bool),
        grid=Grid(
            origin_mm=np.zeros(3),
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, 1.0, 0.0]),
            pixel_mm=4.0,
            rows=64,
            columns=48,
        ),
        distances_mm=DISTANCES,
        thickness_mm=(6.0,) * 3,
        targets=tuple(targets),
        spacing_mm=2.0,
        sop_instance_uids=("1.2.1", "1.2.2", "1.2.3"),
        frame_numbers=(None,) * 3,
        frame_of_reference_uid="1.2",
    )


def _frame(**more) -> HeadFrame:
    fields = {
        "position_mm": POSITIONS,
        "head_from_patient": np.eye(4),
        "pitch_deg": 0.0,
        "roll_deg": 0.0,
        "yaw_deg": 0.0,
        "size": 1.0,
        "coverage": 1.0,
        "symmetry": 1.0,
        "likeness": 1.0,
        "plausibility": 0.9,
    }
    return HeadFrame(**(fields | more))


class _Turning:
    """An encoder in the plane: the three slices, in order, at 0, 60 and 120 degrees."""

    identity = "turning"

    def __init__(self, angles_deg=(0.0, 60.0, 120.0)):
        self._angles = iter(angles_deg)
        self.shapes = []

    def embed(self, image):
        self.shapes.append(image.shape)
        angle = np.radians(next(self._angles))
        return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def _exemplars(entries: dict[float, float], tau=TAU) -> FaissExemplars:
    """Slices by position in the head frame: the angle of each, degrees."""
    angles = np.radians([entries[position] for position in sorted(entries)])
    count = len(entries)
    base = with_index(
        embeddings=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        position_mm=np.array(sorted(entries)),
        subject=np.array([subject_hash(k % 2).encode() for k in range(count)], dtype="S32"),
        ct=np.arange(count * 32 * 24, dtype=np.int64).reshape(count, 32, 24).astype(np.uint8),
    )
    return FaissExemplars(verified(base), tau)


#: exact at 22 mm (20 degrees), near at 26.5, unlike (by 60 degrees) from 30 mm on
HELD = {22.0: 20.0, 26.5: 75.0, 31.0: 10.0}


def _guides(exemplars=None, frame=None, encoder=None, recipe=None):
    recipe = recipe or _recipe()
    embeddings = embed(_prepared(), encoder or _Turning(), recipe)
    return retrieve(
        _prepared(), recipe, frame or _frame(), embeddings, exemplars or _exemplars(HELD)
    )


def test_a_series_has_all_three_kinds_each_with_its_reason():
    guides = _guides(_exemplars(HELD, tau=0.97))
    kinds = [guide.kind for guide in guides]
    assert kinds[0::3] == ["measured"] * 3
    assert {"retrieved", "interpolated"} <= set(kinds)
    assert all(guide.reason for guide in guides)
    for guide in guides:
        if guide.kind == "retrieved":
            assert guide.similarity >= guide.tau == 0.97
            assert guide.exemplar is not None
            assert guide.exemplar_hu.shape == (64, 48)
        else:
            assert guide.exemplar is None
            assert guide.exemplar_hu is None


def test_the_query_is_interpolated_between_the_neighbours_and_the_difference_is_reported():
    first = _guides()[1]  # a third of the way from 0 to 60 degrees, at 22 mm
    assert first.kind == "retrieved"
    assert first.similarity == pytest.approx(1.0, abs=1e-6)
    assert first.position_difference_mm == pytest.approx(0.0, abs=1e-9)
    assert "+0.0 mm" in first.reason


def test_the_position_comes_before_the_likeness():
    # the same direction stands 9.5 mm away: beyond 1.5 gaps of 6 mm
    guide = _guides(_exemplars({22.0 + 9.5: 20.0, 24.0: 60.0}, tau=0.5))[1]
    assert guide.position_difference_mm == pytest.approx(2.0)
    assert guide.similarity == pytest.approx(np.cos(np.radians(40.0)), abs=1e-6)


@pytest.mark.parametrize(("window", "found"), [(6.0, 9.0), (12.0, 12.0)])
def test_the_window_is_the_wider_of_one_and_a_half_gaps_and_the_recipes(window, found):
    recipe = _recipe(window_mm=window)
    inside = _guides(_exemplars({22.0 + found - 0.01: 20.0, 200.0: 0.0}), recipe=recipe)[1]
    beyond = _guides(_exemplars({22.0 + found + 0.01: 20.0, 200.0: 0.0}), recipe=recipe)[1]
    assert (inside.kind, beyond.kind) == ("retrieved", "interpolated")


def test_below_the_threshold_the_slice_is_interpolated_and_says_by_how_much():
    guide = _guides(_exemplars({22.0: 80.0, 23.0: 90.0}))[1]
    assert guide.kind == "interpolated"
    assert guide.similarity == pytest.approx(0.5, abs=1e-6)
    assert guide.tau == TAU
    assert "0.500, below 0.900" in guide.reason
    assert "2.0 mm below and 4.0 mm above" in guide.reason


def test_with_all_candidates_outside_the_window_no_slice_is_retrieved():
    guides = _guides(_exemplars({120.0: 20.0, 130.0: 20.0}))
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}
    assert "no exemplar lies within 9.0 mm of 22.0 mm" in guides[1].reason
    assert guides[1].similarity is None


def test_a_query_outside_the_template_is_interpolated():
    guides = _guides(frame=_frame(position_mm=POSITIONS - 400.0))
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}


@pytest.mark.parametrize("plausibility", [0.49, float("nan")])
def test_where_the_head_frame_is_not_sure_nothing_is_retrieved(plausibility):
    guides = _guides(frame=_frame(plausibility=plausibility))
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}
    assert "the head frame is not sure" in guides[1].reason


def test_a_position_that_is_no_number_is_interpolated():
    guides = _guides(frame=_frame(position_mm=np.array([20.0, np.nan, 32.0])))
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}
    assert "not a number" in guides[1].reason


@pytest.mark.parametrize("angles", [(0.0, np.nan, 120.0), (0.0, 180.0, 0.0)])
def test_an_embedding_without_direction_is_interpolated(angles):
    guides = _guides(encoder=_Turning(angles))
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}
    assert "no direction" in guides[1].reason


def test_every_measured_slice_is_embedded_once_on_half_the_grid():
    encoder = _Turning()
    _guides(encoder=encoder)
    assert encoder.shapes == [(1, 1, 32, 24)] * 3


def test_a_recipe_without_retrieval_searches_no_knowledge_base():
    guides = retrieve(_prepared(), tiny_recipe(rows=64, columns=48))
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}
    assert "retrieves no exemplar" in guides[1].reason


def test_a_recipe_with_retrieval_without_a_knowledge_base_is_refused():
    with pytest.raises(BundleError, match="no encoder and knowledge base were opened"):
        retrieve(_prepared(), _recipe(), _frame(), np.eye(3, 2), None)


class _Guided(WindowedSource):
    """An engine that notes what it was guided by."""

    def __init__(self):
        super().__init__()
        self.guides = []

    def evaluate(self, x, s, guide=None):
        self.guides.append(guide)
        return super().evaluate(x, s)


def test_the_engine_is_guided_where_nothing_was_measured_and_nowhere_else():
    engine, guides = _Guided(), _guides()
    recipe = _recipe().model_copy(update={"sampling": (1.0,)})
    synthesise(_prepared(), guides, engine, recipe, 1)
    assert [g is not None for g in engine.guides] == [g.kind != "measured" for g in guides]
    given = next(g for g in engine.guides if g is not None)
    assert given.shape == (1, 1, 64, 48)
    assert -1.0 <= given.min() <= given.max() <= 1.0


def test_an_engine_that_takes_three_slices_at_once_makes_the_same_volume():
    singly, at_once, guides = _Guided(), _Guided(), _guides()
    at_once.batch = 3
    recipe, done = _recipe().model_copy(update={"sampling": (1.0,)}), []
    volumes = [
        synthesise(_prepared(), guides, engine, recipe, 1, progress=lambda k, _: done.append(k))
        for engine in (singly, at_once)
    ]
    np.testing.assert_array_equal(volumes[1].intensity, volumes[0].intensity)
    assert max(len(g) for g in at_once.guides if g is not None) == 3
    assert sum(len(g) for g in at_once.guides if g is not None) == sum(
        g.kind != "measured" for g in guides
    )
    assert done[len(guides) :][-1] == len(guides)


def test_without_an_exemplar_the_branch_is_shown_what_lies_between_the_slices():
    prepared, recipe = _prepared(), _recipe().model_copy(update={"sampling": (1.0,)})
    guides = _guides(_exemplars(HELD, tau=1.1))
    engine = _Guided()
    synthesise(prepared, guides, engine, recipe, 1)
    slices = [
        windowed(hu, float(d), recipe)
        for hu, d in zip(prepared.hu, prepared.distances_mm, strict=True)
    ]
    for guide, given in zip(guides, engine.guides, strict=True):
        if guide.kind == "interpolated":
            source = conditioning_at(slices, guide.target.distance_mm).source
            np.testing.assert_array_equal(given[0, 0], source)
    assert {guide.kind for guide in guides} == {"measured", "interpolated"}


def test_a_recipe_that_retrieves_none_guides_nothing():
    engine = _Guided()
    recipe = tiny_recipe(rows=64, columns=48)
    synthesise(_prepared(), retrieve(_prepared(), recipe), engine, recipe, 1)
    assert engine.guides
    assert all(guide is None for guide in engine.guides)


def _discs(rows: int, middle: tuple[float, float], radius: float) -> np.ndarray:
    """A skull around a brain, HU; middle and radius in pixels."""
    y, x = np.indices((rows, rows * 3 // 4))
    away = np.hypot(y - middle[0], x - middle[1])
    return np.where(away < 0.85 * radius, 36.0, np.where(away < radius, 80.0, 0.0))


def _of_heads() -> tuple[PreparedVolume, FaissExemplars]:
    """A series of round heads, and an exemplar that lies 2 pixels further to the right of one."""
    hu = np.stack([_discs(64, (31.5, 23.5), 20.0).astype(np.float32)] * 3)
    exemplars = _exemplars(HELD)
    ct = np.rint(_discs(32, (15.5, 9.5), 10.0) / 80 * 255).astype(np.uint8)
    base = replace(exemplars._base, ct=np.stack([ct] * len(HELD)))
    return replace(_prepared(), hu=hu), FaissExemplars(base, TAU)


def _guides_of_heads(**retrieval):
    prepared, exemplars = _of_heads()
    embeddings = embed(prepared, _Turning(), _recipe())
    return retrieve(prepared, _recipe(**retrieval), _frame(), embeddings, exemplars)


def test_a_registered_exemplar_lies_on_the_head_of_the_series_and_says_how_it_got_there():
    plain, guide = _guides_of_heads()[1], _guides_of_heads(registration="similarity")[1]
    assert plain.registration is None
    assert guide.registration is not None
    assert guide.registration.left_mm == pytest.approx(16.0, abs=1.0)  # 2 pixels of 8 mm
    assert guide.registration.scale == pytest.approx(1.0, abs=0.03)
    own = _of_heads()[0].hu[0]
    before, after = (np.abs(each.exemplar_hu - own).mean() for each in (plain, guide))
    assert after < 0.4 * before
    assert (guide.exemplar, guide.similarity) == (plain.exemplar, plain.similarity)
    row = guidance([guide], _frame(), None)["slices"][0]
    assert row[COLUMNS.index("registration")] == guide.registration.to_json()


def test_a_recipe_without_the_field_shows_the_exemplar_where_it_lies():
    text = _recipe().to_json()
    assert "registration" not in text  # nodes before the field would refuse it
    assert Recipe.from_json(text) == _recipe()
    registering = _recipe(registration="similarity")
    assert Recipe.from_json(registering.to_json()) == registering
    guide = _guides_of_heads()[1]
    exemplar = _of_heads()[1]._base.hu(0)
    np.testing.assert_array_equal(guide.exemplar_hu, doubled(exemplar))


def test_an_exemplar_that_cannot_be_registered_guides_as_it_is():
    prepared, _ = _of_heads()
    embeddings = embed(prepared, _Turning(), _recipe())
    recipe = _recipe(registration="similarity")
    air = replace(prepared, hu=np.full_like(prepared.hu, -1024.0))
    guide = retrieve(air, recipe, _frame(), embeddings, _of_heads()[1])[1]
    assert (guide.kind, guide.registration) == ("retrieved", None)
    np.testing.assert_array_equal(guide.exemplar_hu, doubled(_of_heads()[1]._base.hu(0)))


def _without_exemplars(method: str) -> Recipe:
    changes = {"retrieval": Retrieval(method=method), "sampling": (1.0,)}
    return tiny_recipe(rows=64, columns=48).model_copy(update=changes)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("none", "the recipe retrieves no exemplar: interpolated between the measured slices"),
        ("slerp", "the recipe retrieves no exemplar: interpolated between the measured slices"),
        ("linear", "the recipe draws none: the synthetic slices are interpolated between"),
    ],
)
def test_a_method_without_exemplars_needs_no_knowledge_base_and_says_what_it_does(method, reason):
    guides = retrieve(_prepared(), _without_exemplars(method))
    assert [g.kind for g in guides[:4]] == ["measured", "interpolated", "interpolated", "measured"]
    assert reason in guides[1].reason
    assert "2.0 mm below and 4.0 mm above" in guides[1].reason
    assert all(g.exemplar is None and g.registration is None for g in guides)


def test_the_linear_method_draws_the_measured_slices_alone_and_blends_the_results():
    engine, prepared, recipe = _Guided(), _prepared(), _without_exemplars("linear")
    done = []
    volume = synthesise(
        prepared, retrieve(prepared, recipe), engine, recipe, 1, progress=lambda *d: done.append(d)
    )
    assert engine.guides == [None] * len(DISTANCES)
    assert done[-1] == (len(prepared.targets), len(prepared.targets))
    first, second = volume.intensity[0], volume.intensity[3]
    np.testing.assert_allclose(volume.intensity[1], (2 * first + second) / 3, atol=1e-6)
    np.testing.assert_allclose(volume.intensity[2], (first + 2 * second) / 3, atol=1e-6)


def test_at_the_measured_slices_every_method_gives_the_same():
    prepared = _prepared()
    volumes = [
        synthesise(prepared, retrieve(prepared, recipe), _Guided(), recipe, 1).intensity
        for recipe in map(_without_exemplars, ("none", "slerp", "linear"))
    ]
    np.testing.assert_array_equal(volumes[0], volumes[1])
    np.testing.assert_array_equal(volumes[0][::3], volumes[2][::3])
    assert not np.array_equal(volumes[0][1], volumes[2][1])


def test_a_part_of_the_targets_is_blended_as_the_whole_series_is():
    prepared, recipe = _prepared(), _without_exemplars("linear")
    guides = retrieve(prepared, recipe)
    whole = synthesise(prepared, guides, _Guided(), recipe, 1).intensity
    part = synthesise(prepared, guides[2:3], _Guided(), recipe, 1).intensity
    np.testing.assert_array_equal(part[0], whole[2])


def test_the_audit_details_hold_a_row_for_every_slice():
    guides, frame = _guides(_exemplars(HELD, tau=0.97)), _frame()
    details = guidance(guides, frame, "d" * 64)
    assert details["slices_in_all"] == sum(details["kinds"].values()) == len(guides)
    assert details["kinds"]["measured"] == 3
    assert details["tau"] == 0.97
    assert details["plausibility"] == 0.9
    for row, guide in zip(details["slices"], guides, strict=True):
        assert row[1] == guide.kind
        assert row[4] == guide.exemplar
        assert details["reasons"][row[6]] == guide.reason
    assert exemplars_of(details) == [
        (k, guide.exemplar) for k, guide in enumerate(guides) if guide.exemplar
    ]


def test_the_audit_details_hold_no_exemplar_where_none_was_retrieved():
    guides = retrieve(_prepared(), tiny_recipe(rows=64, columns=48))
    details = guidance(guides, None, None)
    assert details["kinds"]["retrieved"] == 0
    assert (details["tau"], details["knowledge_base"], details["plausibility"]) == (
        None,
        None,
        None,
    )
    assert exemplars_of(details) == []


def test_the_exemplar_of_another_run_is_the_same():
    first, again = _guides(), _guides()
    assert [g.exemplar for g in first] == [g.exemplar for g in again]


def _query(**more) -> ExemplarQuery:
    fields = {
        "below": np.array([1.0, 0.0], dtype=np.float32),
        "above": np.array([0.0, 1.0], dtype=np.float32),
        "alpha": 0.5,
        "gap_mm": 6.0,
        "position_mm": 24.0,
        "plausibility": 1.0,
    }
    return ExemplarQuery(**(fields | more))


def test_the_slices_of_an_excluded_subject_are_not_candidates():
    exemplars = _exemplars({23.0: 45.0, 26.0: 60.0})
    best = find_exemplar(_query(), exemplars, 6.0).exemplar
    assert best.position_mm == 23.0
    other = find_exemplar(_query(excluded=best.key[:32]), exemplars, 6.0).exemplar
    assert other.position_mm == 26.0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"plausibility": 0.49}, "the head frame is not sure"),
        ({"position_mm": float("nan")}, "not a number"),
        ({"above": np.array([-1.0, 0.0], dtype=np.float32)}, "no direction"),
        ({"position_mm": 60.0}, "no exemplar lies within 9.0 mm"),
        ({"alpha": 0.0}, "has the similarity 0.707, below 0.900"),
    ],
)
def test_a_query_without_an_exemplar_says_why(more, reason):
    match = find_exemplar(_query(**more), _exemplars({23.0: 45.0, 26.0: 45.0}), 6.0)
    assert match.exemplar is None
    assert reason in match.reason
    assert (match.similarity is not None) == ("alpha" in more)
