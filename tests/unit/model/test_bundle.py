"""A bundle is what its manifest says, with its recipe, or it is refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from rebrain_node.errors import BundleError
from rebrain_node.model.bundle import FILES, load_bundle, write_bundle
from rebrain_node.model.recipe import Grid, Output, Recipe, Retrieval, Window
from tests.support.ood_models import ood_model
from tests.support.plain_bundle import plain_contents, retrieving_contents


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write_bundle(folder, "tiny", "0.1", plain_contents())
    return folder


def test_a_bundle_that_was_written_can_be_loaded(bundle: Path) -> None:
    loaded = load_bundle(bundle)

    assert (loaded.name, loaded.version) == ("tiny", "0.1")
    assert loaded.recipe.grid.shape == (32, 32)
    assert loaded.read("network.onnx") == b"network"


def test_the_same_contents_have_the_same_digest_wherever_they_lie(
    bundle: Path, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "other", "tiny", "0.1", plain_contents())

    assert load_bundle(bundle).digest == load_bundle(tmp_path / "other").digest


def test_bytes_changed_after_loading_are_not_the_ones_that_are_read(bundle: Path) -> None:
    loaded = load_bundle(bundle)

    (bundle / "network.onnx").write_bytes(b"another")

    assert loaded.read("network.onnx") == b"network"


def _alter(folder: Path) -> None:
    (folder / "network.onnx").write_bytes(b"networK")


def _truncate(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"weigh")


def _remove(folder: Path) -> None:
    (folder / "golden.safetensors").unlink()


def _add(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"")


def _link(folder: Path) -> None:
    content = folder.parent / "network.onnx"
    (folder / "network.onnx").rename(content)
    (folder / "network.onnx").symlink_to(content)


def _forget(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["files"]["network.onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _half_manifest(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content[: len(content) // 2])


@pytest.mark.hazard("H17")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_alter, r"network\.onnx: expected SHA-256 \w{64}, found \w{64}"),
        (_truncate, r"weights\.safetensors: expected 7 bytes, found 5"),
        (_remove, r"golden\.safetensors: expected a regular file"),
        (_add, r"extra\.bin: expected only files named in manifest\.json"),
        (_link, r"network\.onnx: expected a regular file"),
        (_forget, r"manifest\.json: expected the files"),
        (_no_manifest, r"manifest\.json: expected a regular file"),
        (_half_manifest, r"manifest\.json: "),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(
    bundle: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(bundle)

    with pytest.raises(BundleError, match=message):
        load_bundle(bundle)


@pytest.mark.hazard("H17")
@pytest.mark.parametrize("name", FILES)
def test_no_single_changed_byte_goes_unseen(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)

    with pytest.raises(BundleError, match=name):
        load_bundle(bundle)


def test_a_bundle_may_carry_a_knowledge_base(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", "tiny", "0.1", retrieving_contents())
    loaded = load_bundle(tmp_path / "b")

    assert loaded.exemplars == {"index.json": b"{}", "ct.npy": b"slices"}
    packed = retrieving_contents(**{"exemplars/ct.npy": None, "exemplars/ct.npy.z": b"packed"})
    write_bundle(tmp_path / "packed", "tiny", "0.1", packed)
    assert load_bundle(tmp_path / "packed").exemplars["ct.npy.z"] == b"packed"
    assert loaded.holds("control.onnx")
    assert loaded.recipe.retrieves


@pytest.mark.parametrize("name", ["encoder.onnx", "control.onnx", "exemplars/index.json"])
def test_a_recipe_that_retrieves_is_refused_without_what_it_needs(
    tmp_path: Path, name: str
) -> None:
    write_bundle(tmp_path / "b", "tiny", "0.1", retrieving_contents(**{name: None}))

    with pytest.raises(BundleError, match=rf"the bundle has no {name}.*\"slerp\""):
        load_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    "name",
    [
        "../exemplars.npy",
        "/exemplars/ct.npy",
        "exemplars/../ct.npy",
        "exemplars/sub/ct.npy",
        "exemplars/.hidden.npy",
        "exemplars/run.py",
        "exemplars\\ct.npy",
        "other/ct.npy",
        "exemplars/",
        "exemplars",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"][name] = manifest["files"]["network.onnx"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match="expected the files"):
        load_bundle(bundle)
    with pytest.raises(BundleError, match="a bundle contains"):
        write_bundle(bundle.parent / "other", "tiny", "0.1", plain_contents() | {name: b""})
    assert not (bundle.parent / "other").exists()


def test_a_bundle_may_tell_what_series_it_was_made_for(tmp_path: Path) -> None:
    graph = hashlib.sha256(b"encoder").hexdigest()
    files = {"encoder.onnx": b"encoder", "domain.json": ood_model(8, graph).to_json().encode()}
    write_bundle(tmp_path / "b", "tiny", "0.1", plain_contents() | files)
    loaded = load_bundle(tmp_path / "b")

    assert loaded.ood_model == ood_model(8, graph)
    assert (loaded.locates, loaded.embeds, loaded.recipe.retrieves) == (True, True, False)


def test_a_bundle_without_a_domain_is_asked_for_none(bundle: Path) -> None:
    loaded = load_bundle(bundle)

    assert loaded.ood_model is None
    assert (loaded.locates, loaded.embeds) == (False, False)


@pytest.mark.parametrize(
    ("dimension", "change", "message"),
    [
        (None, {"template_sha256": "b" * 64}, "template_sha256 is b"),
        (None, {"pixel_mm": 1.0}, "pixel_mm is 1.0, found 0.9"),
        (8, {}, "embedding.encoder_sha256 is a"),
        (None, {"threshold": -1.0}, "threshold"),
    ],
)
def test_a_domain_measured_with_other_things_is_refused(
    tmp_path: Path, dimension: int | None, change: dict[str, object], message: str
) -> None:
    fields = json.loads(ood_model(dimension).to_json()) | change
    content = json.dumps(fields).encode()
    write_bundle(tmp_path / "b", "tiny", "0.1", plain_contents() | {"domain.json": content})

    with pytest.raises(BundleError, match=rf"domain\.json: {message}"):
        load_bundle(tmp_path / "b")


def _add_exemplar(folder: Path) -> None:
    (folder / "exemplars" / "more.npy").write_bytes(b"")


def _link_exemplars(folder: Path) -> None:
    (folder / "exemplars").rename(folder.parent / "elsewhere")
    (folder / "exemplars").symlink_to(folder.parent / "elsewhere")


def _alter_exemplar(folder: Path) -> None:
    (folder / "exemplars" / "ct.npy").write_bytes(b"slicez")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_add_exemplar, r"exemplars/more\.npy: expected only files named"),
        (_link_exemplars, r"exemplars"),
        (_alter_exemplar, r"exemplars/ct\.npy: expected SHA-256"),
    ],
)
def test_a_damaged_knowledge_base_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    write_bundle(tmp_path / "b", "tiny", "0.1", retrieving_contents())
    damage(tmp_path / "b")

    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path / "b")


def test_a_bundle_is_not_written_without_all_its_files(tmp_path: Path) -> None:
    contents = plain_contents()
    del contents["CARD.md"]

    with pytest.raises(BundleError, match=r"CARD\.md"):
        write_bundle(tmp_path / "part", "tiny", "0.1", contents)


def _recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "objective": "directional",
        "grid": Grid(rows=256, columns=208, pixel_mm=0.9),
        "brain_window": Window(low_hu=0, high_hu=80),
        "wide_window": Window(low_hu=-200, high_hu=1300),
        "spacing_mm": 1.0,
        "sampling": (1.0, 0.6, 0.3),
        "eta": 0.0,
        "output": Output(black=0, white=4095),
    }
    return Recipe.model_validate(fields | changes)


def test_a_recipe_is_equal_after_writing_and_reading() -> None:
    assert Recipe.from_json(_recipe().to_json()) == _recipe()


def test_an_unknown_key_is_refused() -> None:
    text = _recipe().to_json().replace('"eta"', '"etta"')

    with pytest.raises(ValidationError, match="etta"):
        Recipe.from_json(text)


@pytest.mark.parametrize("sampling", [(), (0.9,), (1.0, 1.0), (1.0, 0.3, 0.6), (1.0, 0.0)])
def test_time_steps_that_do_not_fall_from_one_are_refused(sampling: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        _recipe(sampling=sampling)


def test_channels_in_another_order_are_refused() -> None:
    swapped = ["source_brain", "bridge_state", "source_wide", "below_brain", "above_brain"]

    with pytest.raises(ValidationError):
        _recipe(channels=swapped)


def test_a_window_maps_its_ends_to_minus_one_and_one_and_clips_beyond() -> None:
    window = Window(low_hu=0, high_hu=80)

    mapped = window.apply(np.array([-1000, 0, 40, 80, 3000], dtype=np.int16))

    np.testing.assert_allclose(mapped, [-1, -1, 0, 1, 1])
    assert mapped.dtype == np.float32


def test_a_window_whose_ends_do_not_rise_is_refused() -> None:
    with pytest.raises(ValidationError, match="must lie below"):
        Window(low_hu=80, high_hu=80)


def test_stored_values_span_black_to_white() -> None:
    stored_range = Output(black=100, white=3100).stored_range
    stored = stored_range.stored(np.array([-0.2, 0, 0.5, 1, 1.5], dtype=np.float32))

    np.testing.assert_array_equal(stored, [100, 100, 1600, 3100, 3100])
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored_range.intensity(stored), [0, 0, 0.5, 1, 1])


def test_an_output_whose_black_is_not_below_white_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be less than white"):
        Output(black=200, white=200)


def test_the_number_of_candidates_in_released_recipes_is_read_and_no_longer_written() -> None:
    text = _recipe(retrieval=Retrieval(method="exemplar")).to_json()
    released = text.replace('"method"', '"k": 1, "method"')

    assert '"k"' not in text
    assert Recipe.from_json(released) == Recipe.from_json(text)
    with pytest.raises(ValidationError, match="retrieval"):
        Recipe.from_json(released.replace('"k": 1', '"k": 2'))


def test_a_large_file_that_is_altered_after_the_bundle_was_loaded_is_refused_when_it_is_read(
    tmp_path: Path,
) -> None:
    weights = bytes(100_000)
    write_bundle(tmp_path, "tiny", "0.1", plain_contents() | {"weights.safetensors": weights})
    bundle = load_bundle(tmp_path)
    assert bundle.read("weights.safetensors") == weights
    (tmp_path / "weights.safetensors").write_bytes(weights[:-1] + b"\x01")
    with pytest.raises(BundleError, match=r"weights\.safetensors: expected SHA-256"):
        bundle.read("weights.safetensors")
    assert bundle.holds("weights.safetensors")
