"""What guidance adds, measured on a tiny bundle: which picture each way shows, leak and erasure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rebrain_node.domain.volume import Guide, Target
from rebrain_node.errors import RebrainError
from rebrain_node.model.bundle import ModelBundle, write_bundle
from rebrain_node.model.recipe import Retrieval
from rebrain_node.model.source import at_measured, windowed
from tests.support.ball_head import write_balls
from tests.support.tiny_bundle import (
    tiny_recipe,
    tiny_retrieving_recipe,
    write_tiny_retrieving_bundle,
)
from trainer.cli import program
from trainer.data.dataset import PreparedData
from trainer.data.placing import placements
from trainer.data.protocols import Sparsity, thinned
from trainer.evaluate.ablation import conclusion, verdict
from trainer.evaluate.methods import NetworkMethod
from trainer.evaluate.networks import Network, network_of_bundle
from trainer.evaluate.results import BundleFacts
from trainer.evaluate.run import summarise
from trainer.evaluate.variants import (
    BLOOD_HU,
    VARIANTS,
    VISIBLE,
    Disc,
    FilledSlice,
    FillRequest,
    PlantedLesion,
    Sampler,
    SliceReference,
    fill,
    plant,
    room,
)
from trainer.ood.report import exact_interval
from trainer.release.card import OURS

TARGET = Target(distance_mm=2.0, below=0, above=1, alpha=0.5)
FACTS: BundleFacts = {"name": "none", "version": "0", "digest": "0", "engine": "numpy"}


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("balls") / "balls"
    return write_balls(folder, {"train": ("a",), "test": ("c",)}, "ct")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return write_tiny_retrieving_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def copying(of_guide: float) -> Network:
    """A network that draws the source, and of the guide as much as it is told."""

    def evaluate(x: np.ndarray, _: np.ndarray, guide: np.ndarray | None = None) -> np.ndarray:
        drawn = x[:, 1:2] if guide is None else (1 - of_guide) * x[:, 1:2] + of_guide * guide
        return x[:, :1] - drawn

    return Network(tiny_retrieving_recipe(), evaluate, FACTS)


def retrieved(similarity: float, hu: float = 20.0) -> Guide:
    return Guide(
        target=TARGET,
        kind="retrieved",
        reason="made up",
        similarity=similarity,
        tau=-1.0,
        exemplar="0" * 32,
        position_difference_mm=1.0,
        exemplar_hu=np.full(tiny_recipe().grid.shape, hu, np.float32),
    )


def interpolated() -> Guide:
    return Guide(target=TARGET, kind="interpolated", reason="made up")


def test_the_threshold_chooses_between_pictures_that_exist() -> None:
    near = FilledSlice("c", retrieved(0.8), {}, {})
    assert near.by("full", 0.7) == "retrieved"
    assert near.by("full", 0.9) == "control-slerp"
    assert near.by("as-source", 0.9) == "slerp"
    assert near.by("as-source", 0.7) == "as-source"
    assert near.by("full-registered", 0.7) == "registered"
    assert near.by("full-registered", 0.9) == "control-slerp"
    none = FilledSlice("c", interpolated(), {}, {})
    assert none.by("full", -1.0) == "control-slerp"


def test_every_way_shows_what_its_name_says() -> None:
    network = copying(of_guide=1.0)
    sampler = Sampler.of(network, seed=0)
    plane = np.full(network.recipe.grid.shape, 60.0, np.float32)
    conditioning = at_measured(windowed(plane, 0.0, network.recipe))
    drawn = sampler.variants(conditioning, retrieved(0.8, hu=20.0))
    means = {way: round(float(image.mean()), 3) for way, image in drawn.items()}
    assert means == {"slerp": 0.75, "control-slerp": 0.75, "retrieved": 0.25, "as-source": 0.25}
    assert "retrieved" not in sampler.variants(conditioning, interpolated())
    few = sampler.variants(conditioning, retrieved(0.8), wanted=("full",))
    assert few.keys() == {"control-slerp", "retrieved"}
    both = sampler.variants(conditioning, retrieved(0.8, hu=20.0), retrieved(0.8, hu=40.0))
    assert float(both["registered"].mean()) == pytest.approx(0.5)


def test_a_case_is_filled_and_scored_at_missing_positions_alone(balls: PreparedData) -> None:
    case = thinned(balls.subject("c"), Sparsity.parse("decimate:2"))
    guides = [interpolated()] * len(case.targets_mm)
    told = []
    found = fill(case, guides, Sampler.of(copying(0.0), seed=0), lambda: told.append(1))
    assert len(told) == int((~case.measured).sum())
    assert 0 < len(found) <= len(told)
    assert found[0].ssim.keys() == {"slerp", "control-slerp", "linear"}
    assert all(np.isfinite(list(each.mae.values())).all() for each in found)


def test_the_brain_is_scored_apart_from_the_head(balls: PreparedData) -> None:
    case = thinned(balls.subject("c"), Sparsity.parse("decimate:2"))
    assert case.subject.brain is not None
    reference = SliceReference.of(case)
    (k,) = np.flatnonzero(case.rows == len(case.subject.source) // 2)
    wrong_outside = reference.reference[k] + ~reference.brain[k]
    found = reference.scored(int(k), interpolated(), {"slerp": wrong_outside})
    assert found.brain_mae["slerp"] == 0
    assert found.mae["slerp"] > 0.1
    assert found.brain_ssim["slerp"] > found.ssim["slerp"]


def test_positions_are_chosen_evenly_of_all_that_are_missing(balls: PreparedData) -> None:
    case = thinned(balls.subject("c"), Sparsity.parse("decimate:2"))
    missing = np.flatnonzero(~case.measured).tolist()
    assert FillRequest().rows(case) == missing
    assert len(missing) == 4
    assert FillRequest(most=2).rows(case) == [missing[1], missing[3]]
    assert FillRequest(most=1).rows(case) == [missing[2]]
    guides = [interpolated()] * len(case.targets_mm)
    found = fill(case, guides, Sampler.of(copying(0.0), 0), lambda: None, FillRequest(most=2))
    whole = fill(case, guides, Sampler.of(copying(0.0), 0), lambda: None)
    assert all(each in whole for each in found)


def planted_by(network: Network) -> list[PlantedLesion]:
    plane = np.full(network.recipe.grid.shape, 35.0, np.float32)
    conditioning = at_measured(windowed(plane, 0.0, network.recipe))
    places = [(conditioning, retrieved(0.8, hu=30.0)), (conditioning, interpolated())]
    return list(plant(places, Sampler.of(network, seed=0), seed=0))


def test_a_network_that_copies_its_guide_leaks_and_erases() -> None:
    (found,) = planted_by(copying(of_guide=1.0))
    assert found.leak > VISIBLE
    assert found.leaked
    assert found.visible
    assert found.erased


def test_a_network_that_ignores_its_guide_neither_leaks_nor_erases() -> None:
    (found,) = planted_by(copying(of_guide=0.0))
    assert found.leak == 0
    assert not found.leaked
    assert found.guided == pytest.approx(found.unguided)
    assert not found.erased


def test_a_disc_lies_where_both_slices_have_brain() -> None:
    recipe = tiny_recipe()
    brain = recipe.brain_window.apply(np.full(recipe.grid.shape, 35.0, np.float32))
    left = brain.copy()
    left[:, 24:] = -1
    rng = np.random.default_rng(0)
    share = room(left, brain, recipe, rng)
    assert share is not None
    assert share[:, :24].sum() > 0.99 * share.sum()
    assert room(left, np.full_like(brain, -1), recipe, rng) is None


def test_a_disc_is_planted_in_the_units_of_the_window() -> None:
    share = np.zeros((4, 4), np.float32)
    share[1, 1] = 1.0
    planted = Disc(share, BLOOD_HU).in_window(np.zeros((4, 4), np.float32), 0.0, 80.0)
    assert planted[1, 1] == pytest.approx(2 * 65 / 80 - 1)
    assert (planted[share == 0] == 0).all()


def test_the_exact_interval_of_nothing_says_nothing() -> None:
    assert exact_interval(0, 0) == [0.0, 1.0]
    low, high = exact_interval(0, 100)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_the_verdict_follows_the_interval() -> None:
    def compared(gain: dict[str, float]) -> dict[str, object]:
        return {"gain": summarise(gain, 0)}

    ways = {"decimate:2": {"slerp": compared({"a": -0.01, "b": -0.02}),
                           "linear": compared({"a": 0.1, "b": 0.2})}}  # fmt: skip
    gains = {"decimate:8": {"slerp": compared({"a": 0.01, "b": 0.02}),
                            "linear": compared({"a": 0.1, "b": 0.2})}}  # fmt: skip
    gaps = {"decimate:2": 5.0, "decimate:8": 20.0}
    nothing = conclusion(ways, gaps)  # type: ignore[arg-type]
    assert "gains nothing at gaps of 5 mm" in nothing
    some = conclusion(ways | gains, gaps)  # type: ignore[arg-type]
    assert "gains at gaps of 20 mm, and at no other" in some
    assert "not known" in conclusion({}, gaps)
    said = verdict(ways)  # type: ignore[arg-type]
    assert "full is below slerp by -0.0150 SSIM" in said
    assert "full exceeds linear by +0.1500 SSIM" in said


def test_a_retrieving_bundle_has_a_row_with_and_one_without_its_guides(
    bundle: ModelBundle, balls: PreparedData
) -> None:
    network = network_of_bundle(bundle)
    bridge = NetworkMethod(OURS, network, balls, 0)
    case = thinned(balls.subject("c"), Sparsity.parse("decimate:2"))
    ticks: list[int] = []
    drawn = dict(bridge.synthesise(case, lambda: ticks.append(1)))
    assert len(ticks) == bridge.positions(case)
    assert not np.array_equal(drawn["rebrain"], drawn["bridge-slerp"])
    measured = case.measured
    np.testing.assert_array_equal(drawn["rebrain"][measured], drawn["bridge-slerp"][measured])


def test_a_recipe_that_interpolates_linearly_is_scored_as_the_node_fills_the_gaps(
    balls: PreparedData,
) -> None:
    plain = copying(of_guide=0.0)
    linear = plain.recipe.model_copy(update={"retrieval": Retrieval(method="linear")})
    bridge = NetworkMethod(OURS, replace(plain, recipe=linear), balls, 0)
    case = thinned(balls.subject("c"), Sparsity.parse("decimate:2"))
    drawn = dict(bridge.synthesise(case, lambda: None))
    np.testing.assert_array_equal(drawn["rebrain"], drawn["bridge-linear"])
    assert not np.array_equal(drawn["rebrain"], drawn["bridge-slerp"])


def test_guides_come_from_the_nodes_own_steps(bundle: ModelBundle, balls: PreparedData) -> None:
    """A ball is no head: the node does not trust its position, and neither does the report."""
    case = thinned(balls.subject("c"), Sparsity.parse("decimate:2"))
    network = network_of_bundle(bundle)
    assert network.retriever is not None
    (placement,) = placements(case.head, case.subject.pixel_mm, bundle.recipe)
    guides = network.retriever.guides(case, placement)
    assert [guide.kind == "measured" for guide in guides] == case.measured.tolist()
    assert all("head frame is not sure" in g.reason for g in guides if g.kind != "measured")


def ablation_of(bundle: Path, data: Path, out: Path, *more: str) -> object:
    given = ["--bundle", str(bundle), "--data", str(data), "--out", str(out)]
    return CliRunner().invoke(program, ["guidance-report", *given, *more])


def test_the_ablation_is_one_command(bundle: ModelBundle, tmp_path: Path) -> None:
    write_balls(tmp_path / "balls", {"train": ("a",), "test": ("c",)}, "ct")
    result = ablation_of(bundle.path, tmp_path / "balls", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert document == json.loads(result.stdout)
    protocols = {"decimate:2", "decimate:4", "decimate:8"}
    for region in ("ways", "brain"):
        assert document[region].keys() == protocols
        for found in document[region].values():
            assert found.keys() == set(VARIANTS)
            assert found["full"]["gain"]["mean"] == 0
            assert found["slerp"]["gain"]["mean"] != 0
    assert document["gaps_mm"] == {"decimate:2": 4.0, "decimate:4": 8.0, "decimate:8": 16.0}
    assert document["retrieved"] == dict.fromkeys(protocols, 0)  # a ball is no head
    assert [each["percent"] for each in document["percents"]] == [1, 2, 5, 10, 20]
    assert [each["people"] for each in document["sizes"]] == [3, 2, 2, 1]
    page = (tmp_path / "out" / "ablation.md").read_text()
    assert "Planted lesions" in page
    assert "What fills gaps of 16 mm, inside the brain" in page
    assert document["verdict"] in page
    assert (tmp_path / "out" / "ablation.html").is_file()


def test_a_brief_ablation_leaves_out_the_rounds_that_take_longest(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    write_balls(tmp_path / "balls", {"train": ("a",), "test": ("c",)}, "ct")
    result = ablation_of(
        bundle.path, tmp_path / "balls", tmp_path / "out", "--brief", "--positions", "1"
    )
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert document["lesions"] is None
    assert len(document["sizes"]) == 1
    assert document["positions"] == {"decimate:2": 1, "decimate:4": 1, "decimate:8": 1}
    page = (tmp_path / "out" / "ablation.md").read_text()
    assert "Planted lesions" not in page
    assert "At most 1 positions of a subject" in page


def test_a_question_that_cannot_be_put_is_refused(bundle: ModelBundle, tmp_path: Path) -> None:
    write_balls(tmp_path / "mr", {"test": ("c",)}, "mr")
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents["recipe.json"] = tiny_recipe().to_json().encode()
    write_bundle(tmp_path / "alone", "tiny", "0.0.1", contents)
    for where, reason in (
        (bundle.path, "needs volumes of CT in HU"),
        (tmp_path / "alone", "retrieves no exemplars"),
    ):
        result = ablation_of(where, tmp_path / "mr", tmp_path / "out")
        assert isinstance(result.exception, RebrainError)
        assert reason in str(result.exception)
    assert not (tmp_path / "out").exists()
    refused = ablation_of(bundle.path, tmp_path / "mr", tmp_path / "out", "--protocol", "thick:2")
    assert refused.exit_code == 2
