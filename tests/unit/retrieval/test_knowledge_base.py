"""A knowledge base holds together and fits recipe, encoder and template, or it is refused."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zlib
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.errors import EngineError, KnowledgeBaseError
from rebrain_node.model.bundle import FileRecord, Manifest, ModelBundle
from rebrain_node.model.recipe import Retrieval
from rebrain_node.retrieval.knowledge_base import (
    Cells,
    check_usable,
    contents_of,
    parse,
    read,
)
from rebrain_node.retrieval.npy import npy_bytes
from rebrain_node.retrieval.open import open_exemplars
from rebrain_node.retrieval.search import FaissExemplars
from tests.support.knowledge_bases import random_base, subject_hash, verified, with_index
from tests.support.plain_bundle import tiny_encoder_graph
from tests.support.tiny_bundle import tiny_recipe

BASE = random_base()


def _refusal(contents):
    with pytest.raises(KnowledgeBaseError) as caught:
        parse(contents, "exemplars")
    return caught.value


def _changed(**arrays):
    """The base with other arrays, its digests made to fit: only the values are wrong."""
    return contents_of(replace(BASE, **arrays))


def test_a_base_that_was_written_is_read_as_it_was(tmp_path):
    for name, content in contents_of(BASE).items():
        (tmp_path / name).write_bytes(content)
    found = read(tmp_path)
    for name in ("embeddings", "position_mm", "subject", "ct"):
        assert np.array_equal(getattr(found, name), getattr(BASE, name))
    assert found.index.subjects == BASE.index.subjects
    assert found.tau(5) == pytest.approx(0.85)
    check_usable(found, "exemplars")


def test_values_are_read_in_place_and_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        verified(BASE).embeddings[0, 0] = 0.0


@pytest.mark.parametrize("name", sorted(set(contents_of(BASE)) - {"index.json"}))
def test_no_single_changed_byte_of_an_array_goes_unseen(name):
    contents = contents_of(BASE)
    content = bytearray(contents[name])
    content[-9] ^= 1
    assert _refusal(contents | {name: bytes(content)}).code == "KB-DIGEST"


@pytest.mark.parametrize("name", sorted(contents_of(BASE)))
def test_a_missing_file_is_refused(name):
    contents = contents_of(BASE)
    del contents[name]
    assert _refusal(contents).code == "KB-FILES"


def test_a_file_that_the_index_does_not_name_is_refused(tmp_path):
    contents = contents_of(BASE) | {"key": b"secret"}
    assert _refusal(contents).code == "KB-FILES"


def test_a_link_in_the_folder_is_refused(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for name, content in contents_of(BASE).items():
        (folder / name).write_bytes(content)
    (folder / "ct.npy").rename(tmp_path / "ct.npy")
    (folder / "ct.npy").symlink_to(tmp_path / "ct.npy")
    with pytest.raises(KnowledgeBaseError, match="KB-FILES"):
        read(folder)


def test_an_embedding_that_is_not_finite_is_refused_by_its_row():
    embeddings = BASE.embeddings.copy()
    embeddings[7, 3] = np.nan
    refusal = _refusal(_changed(embeddings=embeddings))
    assert refusal.code == "KB-NAN"
    assert "row 7" in str(refusal)


def test_a_position_that_is_not_finite_is_refused():
    positions = BASE.position_mm.copy()
    positions[-1] = np.inf
    assert _refusal(_changed(position_mm=positions)).code == "KB-NAN"


def test_an_embedding_whose_length_is_not_one_is_refused():
    assert _refusal(_changed(embeddings=BASE.embeddings * np.float32(1.01))).code == "KB-LENGTH"


def test_rows_out_of_order_are_refused():
    positions = BASE.position_mm.copy()
    positions[[10, 11]] = positions[[11, 10]]
    refusal = _refusal(_changed(position_mm=positions))
    assert refusal.code == "KB-ORDER"
    assert "row 10" in str(refusal)


@pytest.mark.parametrize(
    "arrays",
    [
        {"embeddings": BASE.embeddings[:, :-1]},
        {"embeddings": BASE.embeddings[:-1]},
        {"position_mm": BASE.position_mm[:-1]},
        {"ct": BASE.ct[:, :-1]},
        {"cells": Cells(centroids=BASE.embeddings[:4, :-1], of_row=np.zeros(60, dtype=np.int32))},
        {"cells": Cells(centroids=BASE.embeddings[:4], of_row=np.full(60, 4, dtype=np.int32))},
    ],
)
def test_dimensions_that_do_not_agree_are_refused(arrays):
    assert _refusal(_changed(**arrays)).code == "KB-DIMENSION"


def test_subjects_that_differ_from_the_index_are_refused():
    subject = BASE.subject.copy()
    subject[0] = subject_hash(9).encode()
    assert _refusal(_changed(subject=subject)).code == "KB-SUBJECTS"


def test_a_subject_with_a_plain_name_is_refused():
    subject = np.array([b"SMITH^JOHN"] * 30 + [subject_hash(1).encode()] * 30, dtype="S32")
    base = with_index(
        embeddings=BASE.embeddings, position_mm=BASE.position_mm, subject=subject, ct=BASE.ct
    )
    assert _refusal(contents_of(base)).code == "KB-SUBJECTS"


def _of_objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"run": "me"}] * 60, dtype=object), allow_pickle=True)
    return stream.getvalue()


_HUGE = npy_bytes(BASE.embeddings).replace(b"(60, 16)", b"(99999999, 16)", 1)
_HUGE = _HUGE[:120].replace(b"      ", b"", 1) + _HUGE[120:]


@pytest.mark.parametrize(
    "content",
    [
        _of_objects(),
        pickle.dumps([1, 2]),
        b"",
        b"\x93NUMPY",
        npy_bytes(BASE.embeddings)[:-4],
        npy_bytes(BASE.embeddings) + b"more",
        npy_bytes(BASE.embeddings.astype(np.float64)),
        npy_bytes(BASE.embeddings.astype(np.float32).T).replace(b"False", b"True ", 1),
        _HUGE,
    ],
    ids=["objects", "pickle", "empty", "cut head", "short", "long", "double", "order", "huge"],
)
def test_bytes_that_are_no_plain_array_are_refused_and_never_run(content):
    contents = contents_of(BASE)
    index = json.loads(contents["index.json"])
    index["files"]["embeddings.npy"] = FileRecord.of(content).model_dump()
    contents |= {"embeddings.npy": content, "index.json": json.dumps(index).encode()}
    assert _refusal(contents).code == "KB-FORMAT"


def test_the_slices_of_a_bundle_are_compressed_and_read_as_they_were():
    with resources.as_file(resources.files("rebrain_node") / "bundles" / "demo") as folder:
        shipped = read(folder / "exemplars")
    plain, packed = contents_of(shipped), contents_of(shipped, packed=True)
    assert "ct.npy" not in packed
    assert len(packed["ct.npy.z"]) < 0.4 * len(plain["ct.npy"])
    found = parse(packed, "exemplars")
    np.testing.assert_array_equal(found.ct, shipped.ct)
    assert [found.key(row) for row in range(172)] == [shipped.key(row) for row in range(172)]
    with pytest.raises(ValueError, match="read-only"):
        found.ct[0, 0, 0] = 1


def _packed(content: bytes, **index) -> dict[str, bytes]:
    contents = contents_of(BASE, packed=True)
    changed = json.loads(contents["index.json"]) | index
    changed["files"]["ct.npy.z"] = FileRecord.of(content).model_dump()
    return contents | {"ct.npy.z": content, "index.json": json.dumps(changed).encode()}


PLAIN_CT = npy_bytes(BASE.ct)


@pytest.mark.parametrize(
    ("content", "index"),
    [
        (b"no stream", {}),
        (b"", {}),
        (zlib.compress(PLAIN_CT)[:-20], {}),
        (zlib.compress(PLAIN_CT) + b"more", {}),
        (zlib.compress(PLAIN_CT + bytes(10_000_000)), {}),
        (zlib.compress(PLAIN_CT), {"plane": [10**12, 10**12]}),
        (zlib.compress(PLAIN_CT), {"plane": [-32, 24]}),
    ],
    ids=["no stream", "empty", "cut", "more after it", "expands", "huge plane", "negative plane"],
)
def test_a_stream_that_is_not_what_the_index_says_is_refused(content, index):
    assert _refusal(_packed(content, **index)).code in {"KB-FORMAT", "KB-DIMENSION"}


def test_a_base_with_its_slices_twice_is_refused():
    contents = _packed(zlib.compress(PLAIN_CT))
    index = json.loads(contents["index.json"])
    index["files"]["ct.npy"] = FileRecord.of(PLAIN_CT).model_dump()
    contents |= {"ct.npy": PLAIN_CT, "index.json": json.dumps(index).encode()}
    assert _refusal(contents).code == "KB-FILES"


def test_an_index_that_cannot_be_read_is_refused():
    assert _refusal(contents_of(BASE) | {"index.json": b"{"}).code == "KB-FORMAT"
    assert _refusal(contents_of(BASE) | {"index.json": b'{"format": 2}'}).code == "KB-FORMAT"


def test_an_empty_base_is_read_but_cannot_be_used():
    base = with_index(
        embeddings=BASE.embeddings[:0],
        position_mm=BASE.position_mm[:0],
        subject=BASE.subject[:0],
        ct=BASE.ct[:0],
    )
    with pytest.raises(KnowledgeBaseError, match="KB-EMPTY"):
        check_usable(verified(base), "exemplars")


def test_a_base_of_one_subject_cannot_be_used():
    with pytest.raises(KnowledgeBaseError, match="KB-ONE-SUBJECT"):
        check_usable(verified(random_base(subjects=1)), "exemplars")


def test_a_threshold_that_was_not_measured_is_not_guessed():
    with pytest.raises(KnowledgeBaseError, match=r"KB-TAU.*only 1, 2, 5, 10, 20"):
        verified(BASE).tau(3)


def test_the_key_of_a_slice_contains_its_subject_and_does_not_depend_on_the_order():
    base = verified(BASE)
    again = verified(replace(BASE, position_mm=BASE.position_mm + 3.0))
    assert base.key(5) == again.key(5)
    assert base.key(5).startswith(base.subject[5].decode())
    assert len({base.key(row) for row in range(60)}) == 60
    assert len(base.key(0)) <= 64  # fits a DICOM long string


def test_a_slice_comes_back_in_hounsfield_units():
    hu = verified(BASE).hu(3)
    assert hu.dtype == np.float32
    assert np.abs(hu - BASE.ct[3] * (80.0 / 255.0)).max() < 1e-4


def test_the_digest_of_a_base_names_its_bytes():
    altered = BASE.ct.copy()
    altered[0, 0, 0] ^= 1
    assert verified(BASE).digest == verified(BASE).digest
    assert verified(BASE).digest != verified(replace(BASE, ct=altered)).digest
    assert FaissExemplars(verified(BASE), 0.5).digest == verified(BASE).digest


GRAPH = tiny_encoder_graph(32, 24)


@pytest.fixture(scope="module")
def encoder():
    return encoder_of_graph(GRAPH, threads=1)


@pytest.fixture(scope="module")
def base(encoder):
    base = random_base(entries=20, dimension=12)
    images = base.ct.astype(np.float32) / np.float32(127.5) - 1
    embeddings = np.stack([encoder.embed(image[None, None]) for image in images])
    index = base.index.model_copy(
        update={"encoder_sha256": hashlib.sha256(GRAPH).hexdigest(), "pixel_mm": 8.0}
    )
    return replace(base, embeddings=embeddings, index=index)


def _bundle(tmp_path, base, retrieval=None, graph=GRAPH) -> ModelBundle:
    chosen = retrieval or Retrieval(method="exemplar")
    recipe = tiny_recipe(rows=64, columns=48).model_copy(update={"retrieval": chosen})
    exemplars = {f"exemplars/{name}": c for name, c in contents_of(base).items()}
    return ModelBundle(
        path=tmp_path,
        manifest=Manifest(name="tiny", version="1", files={}),
        recipe=recipe,
        card=None,
        digest="d" * 64,
        _contents={"encoder.onnx": graph, **exemplars},
    )


def _with_other_index(base, **index):
    return replace(base, index=base.index.model_copy(update=index))


def test_the_threshold_is_the_bases_own_or_the_recipes(tmp_path, base, encoder):
    assert open_exemplars(_bundle(tmp_path, base), encoder).tau == pytest.approx(0.85)
    ten = Retrieval(method="exemplar", p=10)
    assert open_exemplars(_bundle(tmp_path, base, ten), encoder).tau == pytest.approx(0.80)
    own = Retrieval(method="exemplar", tau=0.5)
    assert open_exemplars(_bundle(tmp_path, base, own), encoder).tau == 0.5


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ({"encoder_sha256": "0" * 64}, "KB-ENCODER"),
        ({"template_sha256": "0" * 64}, "KB-TEMPLATE"),
        ({"pixel_mm": 1.8}, "KB-RECIPE"),
        ({"window_hu": (0.0, 100.0)}, "KB-RECIPE"),
        ({"tau": ()}, "KB-TAU"),
    ],
)
def test_a_base_made_for_something_else_is_refused(tmp_path, base, encoder, index, code):
    with pytest.raises(KnowledgeBaseError) as caught:
        open_exemplars(_bundle(tmp_path, _with_other_index(base, **index)), encoder)
    assert caught.value.code == code


@pytest.mark.parametrize(("subjects", "code"), [(1, "KB-ONE-SUBJECT")])
def test_a_base_of_one_subject_is_refused(tmp_path, base, encoder, subjects, code):
    alone = random_base(entries=20, dimension=12, subjects=subjects)
    with pytest.raises(KnowledgeBaseError, match=code):
        open_exemplars(_bundle(tmp_path, alone), encoder)


def test_an_encoder_that_gives_other_directions_is_refused(tmp_path, base, encoder):
    turned = replace(base, embeddings=np.roll(base.embeddings, 1, axis=0))
    with pytest.raises(KnowledgeBaseError, match=r"KB-ENCODER.*agrees .* by -?0\."):
        open_exemplars(_bundle(tmp_path, turned), encoder)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(np.ones(11, dtype=np.float32), "KB-DIMENSION"), (np.full(12, np.nan), "KB-ENCODER")],
)
def test_an_encoder_of_other_dimensions_or_without_an_answer_is_refused(
    tmp_path, base, answer, code
):
    broken = type("Broken", (), {"identity": "broken", "embed": lambda _, __: answer})()
    with pytest.raises(KnowledgeBaseError) as caught:
        open_exemplars(_bundle(tmp_path, base), broken)
    assert caught.value.code == code


def test_an_encoder_refuses_a_slice_of_another_size_and_a_graph_that_is_none(encoder):
    with pytest.raises(EngineError, match="as the recipe's grid says"):
        encoder.embed(np.zeros((1, 1, 32, 32), dtype=np.float32))
    with pytest.raises(EngineError, match=r"cannot compile encoder\.onnx"):
        encoder_of_graph(b"no graph")
