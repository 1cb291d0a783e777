"""The methods of the paper's Table 1: what is distinctive in each, and that each learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rebrain_node.model.recipe import Grid
from tests.support.ball_head import write_balls
from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData
from trainer.data.placing import placements
from trainer.data.protocols import Sparsity, thinned
from trainer.peers.aldm import LATENTS, SOURCE, TARGET, SwitchableNormalisation
from trainer.peers.catalogue import METHODS
from trainer.peers.ct2mri import BINS, Ct2MriPeer, aligned, in_windows, style_key
from trainer.peers.dual_bridge import DualBridgePeer
from trainer.peers.fitting import Budget, PeerError, fit, parameters, synthesised
from trainer.peers.i3net import CrossViewBlock
from trainer.peers.maskgan import MaskGenerator, mask_terms
from trainer.peers.mdaunet import GuidedGenerator, guidance
from trainer.peers.rebrain_paper import KnownSlices, PaperPeer
from trainer.peers.synthsr import disturbed
from trainer.peers.volumes import BLOCK, GridCase, TrainingVolumes, sparse_block
from trainer.sample_rng import SampleRng
from trainer.train.encoder import untrained
from trainer.train.prepared import PreparedSource

CONFIG = Path(__file__).parents[2] / "conf" / "train" / "flair.toml"
#: the stages of the methods that train one network after the other, as shares of the budget
STAGES = {"ALDM": (0.2, 0.7), "ReBrain-paper": (0.25, 0.57, 0.7)}


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    whole = TrainConfig.load(CONFIG)
    grid = Grid(rows=32, columns=32, pixel_mm=1.5)
    recipe = whole.recipe.model_copy(update={"grid": grid, "widths": (8, 16)})
    return whole.model_copy(update={"recipe": recipe})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "balls"
    write_balls(path, {"train": ("a", "b", "c"), "test": ("d",)}, "mr", (17, 24, 20))
    return path


@pytest.fixture(scope="module")
def data(folder: Path) -> PreparedData:
    return PreparedData.open(folder)


@pytest.fixture(scope="module")
def training(folder: Path, config: TrainConfig) -> TrainingVolumes:
    return TrainingVolumes.of(PreparedSource.open(folder, config.recipe))


@pytest.fixture(scope="module")
def given(data: PreparedData, config: TrainConfig) -> GridCase:
    case = thinned(data.subject("d"), Sparsity("decimate", 2))
    (placement,) = placements(case.head, case.subject.pixel_mm, config.recipe)
    return GridCase.of(case, data.source_kind, config.recipe, placement)


@pytest.mark.parametrize(
    ("name", "share"),
    [(name, share) for name in METHODS for share in STAGES.get(name, (0.2,))],
)
def test_training_reduces_the_loss_of_every_method_in_each_of_its_stages(
    name: str, share: float, config: TrainConfig, training: TrainingVolumes
):
    torch.manual_seed(0)
    peer = METHODS[name](config, 2)
    losses = [peer.step(training, SampleRng(0, step % 4), share) for step in range(16)]
    assert np.mean(losses[-4:]) < 0.99 * np.mean(losses[:4])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_synthesises_every_position_alike_each_time(
    name: str, config: TrainConfig, training: TrainingVolumes, given: GridCase
):
    torch.manual_seed(0)
    peer = METHODS[name](config, 2)
    fit(peer, training, Budget(iterations=6), seed=0)
    first, cost = synthesised(peer, given)
    again, _ = synthesised(peer, given)
    assert first.shape == (len(given.case.targets_mm), 32, 32)
    assert np.abs(first).max() <= 1.0
    assert np.array_equal(first, again)
    assert cost.flop > 1e6
    assert parameters(peer.network) > 1000


def test_the_mask_loss_falls_as_the_mask_nears_the_coarse_mask():
    coarse = torch.zeros(1, 1, 8, 8)
    coarse[..., 2:6, 2:6] = 1
    far, near = torch.full_like(coarse, 0.5), coarse * 0.9
    assert mask_terms(near, near, coarse).mask < mask_terms(far, far, coarse).mask
    assert mask_terms(near, near, coarse).shape == 0
    assert mask_terms(near, far, coarse).shape > 0


def test_a_mask_generator_leaves_its_input_outside_the_mask():
    generator = MaskGenerator((8, 16))
    torch.nn.init.zeros_(generator.body.leave.weight)
    with torch.no_grad():
        generator.body.leave.bias.copy_(torch.tensor([0.7, -30.0]))
    image = torch.rand(1, 1, 16, 16)
    made, mask = generator(image)
    assert mask.max() < 1e-6
    torch.testing.assert_close(made, image)


def test_alignment_ties_the_estimate_of_a_slice_to_the_windows_of_its_neighbours():
    windows = torch.zeros(5, 3, 2, 2)
    windows[2] = 3.0
    found = aligned(windows)[:, 0, 0]
    # slice 2 is estimated by windows 1, 2 and 3; of these only window 2 says 3
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]))
    stack = torch.arange(5.0)[:, None, None].expand(5, 2, 2)
    assert in_windows(stack)[0, :, 0, 0].tolist() == [0, 0, 1]
    torch.testing.assert_close(aligned(in_windows(stack))[1:-1], stack[1:-1])


def test_the_style_key_is_the_histogram_in_the_head_and_changes_the_result(
    training: TrainingVolumes, given: GridCase
):
    key = style_key(torch.tensor([-1.0, -0.99, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert key[0] / key[-1] == 2
    assert key.sum() == pytest.approx(BINS)
    torch.manual_seed(0)
    peer = Ct2MriPeer(1, (8, 16))
    fit(peer, training, Budget(iterations=4), seed=0)
    first, _ = synthesised(peer, given)
    assert not torch.equal(peer.network.key, torch.ones(BINS))
    peer.network.key.copy_(torch.eye(BINS)[0] * BINS)
    assert not np.allclose(first, synthesised(peer, given)[0])


def test_the_dual_bridge_puts_the_estimated_noise_in_the_place_of_drawn_noise(given: GridCase):
    torch.manual_seed(0)
    peer = DualBridgePeer(3, (8, 16))
    first, _ = synthesised(peer, given)
    torch.manual_seed(1)
    assert np.array_equal(first, synthesised(peer, given)[0])
    with torch.no_grad():
        peer.network["noise"].leave.bias.add_(1.0)
    assert not np.allclose(first, synthesised(peer, given)[0])


def test_the_fusion_takes_both_views_by_weights_that_add_up_to_one():
    torch.manual_seed(0)
    block = CrossViewBlock(8)
    intra, inter = torch.rand(2, 1, 8, 3, 4, 4)
    torch.testing.assert_close(block.fused(intra, intra), intra)
    base = block.fused(intra, inter)
    assert not torch.allclose(base, block.fused(intra + 1, inter))
    assert not torch.allclose(base, block.fused(intra, inter + 1))


def test_only_the_inter_slice_branch_sees_other_slices():
    block = CrossViewBlock(8)
    features = torch.rand(1, 8, 5, 4, 4)
    other = features.clone()
    other[:, :, 0] += 1
    assert torch.equal(block.intra(features)[:, :, 1:], block.intra(other)[:, :, 1:])
    assert not torch.allclose(block.coronal(features)[:, :, 1], block.coronal(other)[:, :, 1])
    assert not torch.allclose(block.sagittal(features)[:, :, 1], block.sagittal(other)[:, :, 1])


def test_the_switched_normalisation_mixes_the_modalities_that_are_asked_for():
    torch.manual_seed(0)
    norm = SwitchableNormalisation(8)
    features, latent = torch.rand(1, 8, 2, 4, 4), torch.rand(1, LATENTS, 2, 4, 4)
    source, target = norm(features, latent, SOURCE), norm(features, latent, TARGET)
    assert not torch.allclose(source, target)
    torch.testing.assert_close(norm(features, latent, (0.5, 0.5)), (source + target) / 2)
    assert not torch.allclose(target, norm(features, latent + 1, TARGET))


def test_every_resolution_of_the_generator_is_held_to_the_target_at_that_resolution():
    generator = GuidedGenerator((16, 16, 16))
    image = torch.rand(1, 1, 3, 16, 16)
    outputs = generator(image)
    assert [each.shape[-1] for each in outputs] == [16, 4, 2]
    target, head = torch.full((1, 1, 3, 16, 16), 0.25), torch.ones(1, 1, 3, 16, 16)
    perfect = tuple(torch.full_like(each, 0.25) for each in outputs)
    assert [float(each) for each in guidance(perfect, target, head)] == [0, 0, 0]
    wrong = (perfect[0], perfect[1], perfect[2] + 1)
    assert [float(each) for each in guidance(wrong, target, head)] == [0, 0, 0.25]


def test_the_exemplar_of_a_training_slice_is_of_another_subject(training: TrainingVolumes):
    known = KnownSlices(training, untrained())
    assert len(known.subject) >= 6
    assert (known.subject[known.nearest] != known.subject).all()


def test_a_similar_slice_guides_and_else_the_interpolation_of_both_neighbours(
    config: TrainConfig, training: TrainingVolumes, given: GridCase
):
    torch.manual_seed(0)
    peer = PaperPeer(config, 2)
    with pytest.raises(PeerError, match="larger --budget"):
        synthesised(peer, given)
    peer.step(training, SampleRng(0, 0), 0.7)
    known = peer._base
    known.threshold = -1.0
    guides = peer.guides(given)
    assert all(any(torch.equal(guide, each) for each in known.source) for guide in guides)
    known.threshold = 2.0
    missing = int(np.flatnonzero(~given.case.measured)[2])
    below = given.case.bracket()[0][missing]
    guide = peer.guides(given)[missing]
    sides = given.source[below], given.source[below + 1]
    torch.testing.assert_close(guide, (sides[0] + sides[1]) / 2, atol=0.2, rtol=0)
    assert not any(torch.equal(guide, each) for each in known.source)


def test_the_bridge_stays_as_it_is_while_the_control_branch_learns(
    config: TrainConfig, training: TrainingVolumes
):
    peer = PaperPeer(config, 2)
    before = {name: value.clone() for name, value in peer._bridge.state_dict().items()}
    for step in range(3):
        peer.step(training, SampleRng(0, step), 0.7)
    assert all(torch.equal(value, before[n]) for n, value in peer._bridge.state_dict().items())
    assert peer._guided.control.zero[0].weight.abs().max() > 0


def test_a_sparse_block_keeps_the_given_slices_and_says_how_far_they_are():
    volume = torch.arange(float(BLOCK))[None, None, :, None, None].expand(1, 1, BLOCK, 2, 2)
    gaps = set()
    for step in range(40):
        found = sparse_block(volume, SampleRng(0, step))
        distance = found[0, 1, :, 0, 0] * 2
        gaps.add(round(float(distance.max()), 1))
        given = distance == 0
        torch.testing.assert_close(found[0, 0, given], volume[0, 0, given])
    assert len(gaps) >= 3


def test_a_disturbed_block_stays_in_range_and_differs_from_draw_to_draw():
    block = torch.rand(1, 1, BLOCK, 8, 8) * 2 - 1
    first, second = (disturbed(block, SampleRng(0, step)) for step in (0, 1))
    assert first.abs().max() <= 1
    assert not torch.allclose(first, second)


def test_the_budget_ends_by_iterations_or_by_processor_time(
    config: TrainConfig, training: TrainingVolumes
):
    peer = METHODS["rebrain"](config, 1)
    assert fit(peer, training, Budget(iterations=3), seed=0).iterations == 3
    result = fit(peer, training, Budget(seconds=0.3), seed=0)
    assert result.seconds == pytest.approx(0.3, abs=0.25)
    assert result.iterations > 1
