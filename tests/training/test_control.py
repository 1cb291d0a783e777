"""The control branch: it begins as nothing, and learns beside a frozen bridge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from typer.testing import CliRunner

from rebrain_node.model.bundle import ModelBundle, load_bundle
from rebrain_node.model.control import GuidedUNet
from rebrain_node.model.recipe import Abstain, Grid, Recipe, Retrieval
from rebrain_node.model.resample import doubled, halved
from rebrain_node.model.unet import BridgeUNet
from rebrain_node.retrieval.knowledge_base import KnowledgeBase
from rebrain_node.retrieval.search import FaissExemplars
from tests.support.ball_head import write_ball_pool
from tests.support.tiny_bundle import (
    KEY,
    SUBJECTS,
    hash_of,
    tiny_base,
    write_tiny_retrieving_bundle,
)
from trainer.cli import program
from trainer.config import ControlTraining, TrainConfig
from trainer.release.bundle import GuidanceFolders, release_guided
from trainer.release.requirements import ReleaseError
from trainer.retrieval.knowledge_base import write
from trainer.sample_rng import SampleRng
from trainer.simulate.pool import (
    Pool,
)
from trainer.simulate.stacks import Stacks
from trainer.train.control import (
    backbone_bytes,
    branch_of,
    fresh_state,
    read_facts,
    train,
    training_of,
    write_facts,
)
from trainer.train.guided import (
    BLANK,
    Donors,
    ExemplarPlacement,
    ExemplarSource,
    GuidedSource,
    KnownGuide,
    find_guides,
)
from trainer.train.workers import TrainingError

DEMO_FILE = Path(__file__).parents[2] / "conf" / "train" / "demo.toml"
DEMO = TrainConfig.load(DEMO_FILE)
GRID = Grid(rows=64, columns=48, pixel_mm=4.0)
COUNT = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return write_tiny_retrieving_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def recipe(bundle: ModelBundle) -> Recipe:
    return bundle.recipe


@pytest.fixture(scope="module")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Missing positions alone, of a person who is in the knowledge base."""
    folder = tmp_path_factory.mktemp("pool")
    return write_ball_pool(folder, {"anna": "train"}, COUNT, gap_mm=(4.0, 20.0))


@pytest.fixture(scope="module")
def pool(pool_folder: Path) -> Pool:
    return Pool.open(pool_folder, "train")


@pytest.fixture(scope="module")
def exemplar_source(
    recipe: Recipe, bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory
) -> ExemplarSource:
    folder = tmp_path_factory.mktemp("base")
    graph = bundle.read("encoder.onnx")
    (folder / "encoder.onnx").write_bytes(graph)
    write(tiny_base(recipe, graph), folder / "base")
    opened = ExemplarSource.open(
        recipe, folder / "encoder.onnx", folder / "base", {"anna": hash_of("anna")}
    )
    opened.exemplars.tau = -1.0
    return opened


def control(**changes: object) -> ControlTraining:
    assert DEMO.control is not None
    told = {"steps": 3, "batch": 2, "checkpoint_every": 1, **changes}
    return DEMO.control.model_copy(update=told)


@pytest.fixture
def source(pool: Pool, recipe: Recipe, exemplar_source: ExemplarSource) -> GuidedSource:
    guides = find_guides(pool, exemplar_source, lambda: None)
    return GuidedSource.of(pool, recipe, control(), guides)


def test_untrained_it_draws_what_the_bare_bridge_draws() -> None:
    torch.manual_seed(0)
    backbone = BridgeUNet((8, 16)).eval()
    network = GuidedUNet(backbone).eval()
    x, s, guide = torch.randn(1, 5, 32, 32), torch.rand(1, 4), torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x, s, guide), backbone(x, s))


def test_a_gap_pool_holds_missing_positions_alone_with_their_place(pool: Pool) -> None:
    for row in range(COUNT):
        sample = pool.sample(0, row)
        assert sample.missing
        assert 4.0 <= sum(sample.distances_mm) <= 20.0
        assert np.isfinite(sample.position_mm)


def test_a_subject_is_not_guided_by_its_own_slices(
    pool: Pool, exemplar_source: ExemplarSource
) -> None:
    guides = find_guides(pool, exemplar_source, lambda: None)
    assert all(guide is not None for guide in guides)
    assert not {guide.key[:32] for guide in guides} & {hash_of("anna")}


def test_where_the_node_would_interpolate_there_is_no_guide(
    pool: Pool, exemplar_source: ExemplarSource
) -> None:
    sample = pool.sample(0, 0)
    strict = replace(exemplar_source, exemplars=_with_tau(exemplar_source, 1.1))
    assert exemplar_source.guide(sample, "anna") is not None
    assert exemplar_source.guide(replace(sample, missing=False), "anna") is None
    assert exemplar_source.guide(replace(sample, position_mm=float("nan")), "anna") is None
    assert exemplar_source.guide(replace(sample, position_mm=500.0), "anna") is None
    assert strict.guide(sample, "anna") is None


def _with_tau(exemplar_source: ExemplarSource, tau: float) -> FaissExemplars:
    return FaissExemplars(_base_of(exemplar_source), tau)


def _base_of(exemplar_source: ExemplarSource) -> KnowledgeBase:
    assert isinstance(exemplar_source.exemplars, FaissExemplars)
    return exemplar_source.exemplars._base


def test_the_guide_is_the_exemplar_the_slerp_or_blank_as_often_as_told(
    source: GuidedSource, pool: Pool, recipe: Recipe
) -> None:
    def drawn(**shares: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
        told = replace(source, training=control(**shares))
        return [
            (b.conditioning[:, :1], g) for b, g in (told.draw(SampleRng(1, k)) for k in range(6))
        ]

    exemplars = [torch.from_numpy(doubled(g.image)) for g in source.guides if g is not None]
    for y, guide in drawn(retrieved_share=1.0, slerp_share=0.0):
        assert any(torch.equal(guide[0, 0], each) for each in exemplars)
        assert not torch.equal(guide, y)
    for y, guide in drawn(retrieved_share=0.0, slerp_share=1.0):
        assert torch.equal(guide, y)
    for _, guide in drawn(retrieved_share=0.0, slerp_share=0.0):
        assert (guide == BLANK).all()


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="must not add up to more than 1"):
        ControlTraining.model_validate({**control().model_dump(), "slerp_share": 0.9})


def test_a_pool_without_missing_positions_is_refused(pool: Pool, recipe: Recipe) -> None:
    arrays = ({**pool.arrays[0], "missing": np.zeros(COUNT, bool)},)
    with pytest.raises(TrainingError, match="no missing position"):
        GuidedSource.of(replace(pool, arrays=arrays), recipe, control(), [None] * COUNT)


class _Stopped:
    """A source that is interrupted after so many samples."""

    def __init__(self, source: GuidedSource, draws: int) -> None:
        self.recipe, self._source, self._left = source.recipe, source, draws

    def draw(self, rng: SampleRng) -> tuple:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._source.draw(rng)


def test_training_leaves_the_bridge_as_it_is_and_goes_on_where_it_was(
    bundle: ModelBundle, source: GuidedSource, tmp_path: Path
) -> None:
    told = control()
    training = training_of(DEMO.train, told)
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder in (whole, half):
        folder.mkdir()
    state = fresh_state(bundle, training, told, "pool")
    before = backbone_bytes(state)
    untrained = {name: value.clone() for name, value in state.network.control.state_dict().items()}
    train(training, source, state, whole, lambda *_: None)

    assert backbone_bytes(state) == before
    assert set(branch_of(whole)) == set(untrained)
    learned = branch_of(whole)
    assert any(not torch.equal(learned[name], untrained[name]) for name in untrained)

    with pytest.raises(KeyboardInterrupt):
        train(
            training,
            _Stopped(source, draws=training.batch),
            fresh_state(bundle, training, told, "pool"),
            half,
            lambda *_: None,
        )
    again = fresh_state(bundle, training, told, "pool")
    again.resume(half / "checkpoint.pt")
    assert again.step == 1
    train(training, source, again, half, lambda *_: None)
    assert backbone_bytes(again) == before
    resumed = branch_of(half)
    assert all(torch.equal(resumed[name], learned[name]) for name in learned)


def test_a_run_of_other_data_is_not_gone_on_with(
    bundle: ModelBundle, source: GuidedSource, tmp_path: Path
) -> None:
    told = control(steps=1)
    training = training_of(DEMO.train, told)
    train(training, source, fresh_state(bundle, training, told, "a"), tmp_path, lambda *_: None)
    with pytest.raises(TrainingError, match="other parameters or data"):
        fresh_state(bundle, training, told, "b").resume(tmp_path / "checkpoint.pt")


def test_the_donor_target_is_the_mr_of_the_exemplar(
    pool: Pool, recipe: Recipe, exemplar_source: ExemplarSource
) -> None:
    guides = find_guides(pool, exemplar_source, lambda: None)
    base = _base_of(exemplar_source)
    names = {hash_of(name): name for name in SUBJECTS}
    subject = [SUBJECTS.index(names[each.decode()]) for each in base.subject]
    stacks = Stacks(
        slices=base.ct,
        mr=255 - base.ct,
        position_mm=base.position_mm,
        subject=np.array(subject, np.int32),
        stack=np.array(subject, np.int32),
        rank=np.arange(len(subject), dtype=np.int32),
        names=SUBJECTS,
        digest="none",
    )
    told = control(target="donor")
    drawing = GuidedSource.of(pool, recipe, told, guides, Donors.of(stacks, hash_of))
    batch, guide = drawing.draw(SampleRng(1, 1))
    np.testing.assert_allclose(batch.x0, -guide, atol=0.02)
    with pytest.raises(KeyError):
        Donors.of(stacks, str.upper).truth(guides[0].key, ExemplarPlacement(None, 4.0))


MOVED = 2  # pixels of an exemplar, each two pixels of the grid


def _of_the_sample(source: GuidedSource, rng: SampleRng, registration: str) -> KnownGuide:
    """An exemplar that is the sample drawn with `rng` itself, moved to the right."""
    told = replace(source, training=control(registration=registration, retrieved_share=1.0,
                                            slerp_share=0.0))  # fmt: skip
    batch, _ = told.draw(rng)
    return KnownGuide(np.roll(halved(batch.conditioning[0, 0].numpy()), MOVED, axis=1), "a" * 48)


@pytest.mark.parametrize("target", ["self", "donor"])
def test_a_registered_exemplar_lies_on_the_sample_as_it_was_augmented(
    source: GuidedSource, target: str
) -> None:
    apart, mr_apart = {}, {}
    shown = slice(None, -3 * MOVED)  # columns that the exemplar shows; those beyond left its frame
    for registration in ("none", "similarity"):
        known = _of_the_sample(source, SampleRng(3, 5), registration)
        ct = np.rint((known.image + 1) * 127.5).astype(np.uint8)
        shares = {"retrieved_share": 1.0, "slerp_share": 0.0}
        told = replace(
            source,
            training=control(target=target, registration=registration, **shares),
            guides=[known] * len(source.guides),
            donors=Donors(ct[None], ct[None], {known.key: 0}) if target == "donor" else None,
        )
        batch, guide = told.draw(SampleRng(3, 5))
        apart[registration] = float((guide - batch.conditioning[:, :1])[..., shown].abs().mean())
        mr_apart[registration] = float((guide - batch.x0).abs().mean())
    assert apart["similarity"] < 0.5 * apart["none"]
    if target == "donor":  # the MR of the donor is moved as its CT
        assert max(mr_apart.values()) < 0.02


def test_two_commands_make_a_bundle_that_retrieves(
    bundle: ModelBundle, pool_folder: Path, exemplar_source: ExemplarSource, tmp_path: Path
) -> None:
    encoder, base = tmp_path / "encoder", tmp_path / "base"
    encoder.mkdir()
    for name in ("encoder.onnx", "encoder.safetensors"):
        (encoder / name).write_bytes(bundle.read(name))
    write(_base_of(exemplar_source), base)
    (tmp_path / "base.key").write_text(KEY.hex())
    text = DEMO_FILE.read_text()
    head, section = text.rsplit("[control]", 1)
    for line in ("steps = 600", "batch = 4"):
        assert section.count(line) == 1
        section = section.replace(line, line.split("=")[0] + "= 1")
    (tmp_path / "tiny.toml").write_text(head + "[control]" + section)
    given = ["--bundle", str(bundle.path), "--encoder", str(encoder), "--knowledge-base", str(base)]

    trained = CliRunner().invoke(program, [
        "train-control", *given, "--config", str(tmp_path / "tiny.toml"),
        "--pool", str(pool_folder), "--run", str(tmp_path / "run"),
    ])  # fmt: skip
    assert trained.exit_code == 0, trained.output
    made = CliRunner().invoke(program, [
        "add-retrieval", *given, "--control", str(tmp_path / "run"),
        "--out", str(tmp_path / "out"), "--version", "3.0.0", "--p", "10",
    ])  # fmt: skip
    assert made.exit_code == 0, made.output

    found = load_bundle(tmp_path / "out")
    assert (found.version, found.recipe.retrieval.p) == ("3.0.0", 10)
    branch = load(found.read("control.safetensors"))
    learned = branch_of(tmp_path / "run")
    assert all(torch.equal(branch[name], learned[name].half()) for name in learned)


def test_a_bundle_takes_a_branch_that_was_trained_beside_it(
    bundle: ModelBundle, source: GuidedSource, exemplar_source: ExemplarSource, tmp_path: Path
) -> None:
    told = control(steps=1)
    training = training_of(DEMO.train, told)
    state = fresh_state(bundle, training, told)
    folders = GuidanceFolders(tmp_path / "encoder", tmp_path / "control", tmp_path / "base")
    for folder in (folders.encoder, folders.control):
        folder.mkdir()
    train(training, source, state, folders.control, lambda *_: None)
    write(_base_of(exemplar_source), folders.exemplars)
    (folders.encoder / "encoder.onnx").write_bytes(bundle.read("encoder.onnx"))
    (folders.encoder / "encoder.safetensors").write_bytes(bundle.read("encoder.safetensors"))
    retrieval = Retrieval(method="exemplar", p=5)
    with pytest.raises(TrainingError, match="has not ended"):
        release_guided(bundle, folders, retrieval, "2.0.0", tmp_path / "out")

    write_facts(folders.control, bundle, told, state)
    made = release_guided(bundle, folders, retrieval, "2.0.0", tmp_path / "out")

    assert made.recipe.retrieval == retrieval.model_copy(
        update={"registration": "similarity"}  # as the branch was trained
    )
    assert made.version == "2.0.0"
    facts = read_facts(folders.control).model_copy(update={"registration": "similarity"})
    (folders.control / "control.json").write_text(facts.model_dump_json())
    limits = Abstain(voxel_above=0.3, slice_above=0.3, series_share=0.25)
    limited = replace(bundle, recipe=bundle.recipe.model_copy(update={"abstain": limits}))
    linear = release_guided(
        limited, folders, Retrieval(method="linear"), "2.0.0", tmp_path / "linear"
    )
    assert linear.recipe.abstain is None  # limits of a calibration that the new bundle has not
    assert linear.recipe.retrieval == Retrieval(method="linear", registration="similarity")
    assert linear.holds("control.onnx")
    assert any("interpolated between the synthetic" in choice for choice in linear.card.choices)
    assert read_facts(folders.control).bundle == bundle.digest
    assert any("control branch trained for 1 steps" in choice for choice in made.card.choices)
    with pytest.raises(FileExistsError):
        release_guided(bundle, folders, retrieval, "2.0.0", tmp_path / "out")
    with pytest.raises(ReleaseError, match="trained with the bundle"):
        release_guided(made, folders, retrieval, "2.0.1", tmp_path / "other")
