"""Knowledge bases: subjects under keyed hashes are added and removed; tau by its definition."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rebrain_node.model.head_template import load_head_template
from rebrain_node.retrieval.knowledge_base import check_usable, contents_of, read
from rebrain_node.retrieval.open import check_encoder
from tests.support.plain_bundle import tiny_encoder_graph
from trainer.cli import program
from trainer.config import TrainConfig
from trainer.retrieval.knowledge_base import (
    BaseUpdateError,
    EntrySettings,
    SubjectSlices,
    extended,
    tau_table,
    without,
    write,
)
from trainer.retrieval.subject_keys import (
    KeyFileError,
    key_beside,
    make_key,
    read_key,
    subject_hash,
)
from trainer.simulate.pool import write_index
from trainer.simulate.stacks import Stack, StackIndex, StackRecord, write_subject

RECIPE = TrainConfig.load(Path("conf/train/demo.toml")).recipe
PLANE = (128, 104)
KEY = bytes(range(32))
NAMES = ("anna", "bert", "carl")


class Means:
    """An encoder of 6 means of a slice: fast, and different for different slices."""

    identity = "means"

    def embed(self, image):
        rows = image[0, 0].reshape(6, -1)[:, :2000] if image.size % 6 == 0 else image[0, 0][:6]
        means = rows.mean(axis=1).astype(np.float32) + np.float32(1e-3)
        return means / np.linalg.norm(means)


def hash_of(name: str) -> str:
    return subject_hash(KEY, name)


SETTINGS = EntrySettings(graph=b"graph", encoder=Means(), recipe=RECIPE, hash_of=hash_of)


def _subject(name: str, count: int = 12) -> SubjectSlices:
    rng = np.random.default_rng([*name.encode()])
    slices = rng.integers(0, 256, (count, *PLANE), dtype=np.uint8)
    slices[:, :64] //= rng.integers(1, 9, (count, 1, 1), dtype=np.uint8)
    position = np.sort(rng.uniform(-60, 80, count))
    return SubjectSlices(name, f"licence of {name}", slices, position)


@pytest.fixture
def folder(tmp_path):
    base = extended(SETTINGS.empty(), map(_subject, NAMES), SETTINGS)
    write(base, tmp_path / "base")
    return tmp_path / "base"


def test_a_base_holds_every_slice_in_the_order_of_position(folder):
    base = read(folder)
    assert base.index.entries == 36
    assert {r.entries for r in base.index.subjects.values()} == {12}
    assert (np.diff(base.position_mm) >= 0).all()
    assert base.index.template_sha256 == load_head_template().digest
    assert base.index.encoder_sha256 == hashlib.sha256(b"graph").hexdigest()
    for name in NAMES:
        own, rows = _subject(name), base.subject == hash_of(name).encode()
        assert np.array_equal(base.ct[rows], own.slices)
        assert np.array_equal(base.position_mm[rows], own.position_mm)
    check_encoder(base, Means(), "base")
    check_usable(base, "base")


def test_the_same_subjects_give_the_same_bytes_in_any_order(folder, tmp_path):
    again = extended(SETTINGS.empty(), map(_subject, reversed(NAMES)), SETTINGS)
    assert contents_of(again) == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_neither_names_nor_the_key_are_in_the_folder(folder):
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    assert KEY not in held
    assert KEY.hex().encode() not in held
    assert hash_of("anna").encode() in held  # the search finds what is there
    assert subject_hash(bytes(32), "anna") != hash_of("anna")
    index = (folder / "index.json").read_text()
    assert not [name for name in NAMES if f'"{name}"' in index]


def test_a_subject_that_is_removed_leaves_no_embedding_no_slice_and_no_hash(folder, tmp_path):
    before = read(folder)
    own = before.subject == hash_of("bert").encode()
    traces = [before.embeddings[row].tobytes() for row in np.flatnonzero(own)]
    traces += [before.ct[row].tobytes() for row in np.flatnonzero(own)]
    traces += [before.key(row).encode()[32:] for row in np.flatnonzero(own)]
    traces += [hash_of("bert").encode(), bytes.fromhex(hash_of("bert")), b"licence of bert"]
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    found = [trace in held for trace in traces]
    assert sum(found) >= 12 + 12 + 2  # the search does find them before

    write(without(before, hash_of("bert")), folder)

    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert not [trace for trace in traces if trace in everything]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    after = read(folder)
    assert after.index.entries == 24
    expected = extended(SETTINGS.empty(), map(_subject, ("anna", "carl")), SETTINGS)
    assert contents_of(after) == contents_of(expected)  # as if never added


def test_a_subject_added_later_gives_the_base_that_held_it_from_the_start(folder):
    part = without(read(folder), hash_of("carl"))
    whole = extended(part, [_subject("carl")], SETTINGS)
    assert contents_of(whole) == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_last_two_subjects_can_be_removed(folder):
    base = without(without(read(folder), hash_of("anna")), hash_of("bert"))
    assert write(base, folder).index.tau == ()
    assert write(without(base, hash_of("carl")), folder).index.entries == 0


def test_a_subject_is_not_added_twice_and_an_unknown_one_not_removed(folder):
    base = read(folder)
    with pytest.raises(BaseUpdateError, match="anna is in the base already"):
        extended(base, [_subject("anna")], SETTINGS)
    with pytest.raises(BaseUpdateError, match="is this the key it was built with"):
        without(base, subject_hash(bytes(32), "anna"))


def test_a_base_of_another_encoder_is_not_extended(folder):
    other = EntrySettings(graph=b"other", encoder=Means(), recipe=RECIPE, hash_of=hash_of)
    with pytest.raises(BaseUpdateError, match="encoder_sha256"):
        extended(read(folder), [_subject("dora")], other)


def test_tau_agrees_with_its_definition():
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((300, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    subject = np.array([b"a", b"b", b"c"])[rng.integers(3, size=300)]
    position = rng.uniform(0, 40, 300)
    table = {record.percent: record for record in tau_table(embeddings, subject, position)}
    for percent, record in table.items():
        tops, best = [], []
        for row in range(300):
            other = subject != subject[row]
            similar = np.sort(embeddings[other] @ embeddings[row])[::-1]
            tops.append(similar[: int(np.ceil(percent / 100 * other.sum()))].mean())
            near = other & (np.abs(position - position[row]) <= 6.0)
            best.append((embeddings[near] @ embeddings[row]).max())
        assert record.tau == pytest.approx(np.mean(tops), abs=1e-5)
        assert record.acceptance == pytest.approx(np.mean(np.array(best) >= record.tau), abs=0.01)
    taus = [table[p].tau for p in (1, 2, 5, 10, 20)]
    assert taus == sorted(taus, reverse=True)


def test_tau_of_equal_slices_of_two_subjects_is_1_in_spite_of_rounding():
    angle = np.tile(np.arange(20) * 0.05, 3)
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    table = tau_table(embedding, np.repeat([b"a", b"b", b"c"], 20), np.zeros(60))
    assert table[0].tau == 1.0


def test_one_subject_alone_has_no_threshold():
    one = np.eye(4, dtype=np.float32)
    assert tau_table(one, np.array([b"a"] * 4), np.arange(4.0)) == ()
    assert tau_table(one[:0], np.array([], dtype="S1"), np.empty(0)) == ()


def test_a_key_is_for_its_owner_alone_and_never_overwritten(tmp_path):
    path = key_beside(tmp_path / "base")
    key = make_key(path)
    assert read_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeyFileError, match="never overwritten"):
        make_key(path)
    path.write_text("abcd")
    with pytest.raises(KeyFileError, match="2 bytes"):
        read_key(path)
    with pytest.raises(KeyFileError, match="is missing"):
        read_key(tmp_path / "none")


def _stacks(folder) -> None:
    records = []
    for name in NAMES:
        own = _subject(name, count=6)
        halves = [slice(0, 3), slice(3, 6)]
        stacks = [
            Stack(
                own.slices[s],
                own.slices[s],
                own.position_mm[s],
                np.arange(3, dtype=np.int32),
            )
            for s in halves
        ]
        count, digest = write_subject(folder / f"{name}.npz", iter(stacks))
        records.append(
            StackRecord(name=name, role="train", licence="CC0-1.0", slices=count, sha256=digest)
        )
    write_index(folder, StackIndex(seed=0, subjects=tuple(records)))


def test_the_commands_build_describe_and_remove(tmp_path):
    _stacks(tmp_path / "stacks")
    (tmp_path / "encoder.onnx").write_bytes(tiny_encoder_graph(*PLANE))
    base = str(tmp_path / "base")

    def run(*arguments: str, code: int = 0):
        result = CliRunner().invoke(program, ["knowledge-base", *arguments])
        assert result.exit_code == code, result.output
        return result

    source = ["--from", str(tmp_path / "stacks"), "--encoder", str(tmp_path / "encoder.onnx")]
    source += ["--config", "conf/train/demo.toml"]
    run("build", base, *source, "--series", "1")
    facts = json.loads(run("info", base, "--json").stdout)
    assert (facts["entries"], facts["subjects"], facts["usable"]) == (9, 3, True)
    assert facts["dimension"] == 208
    assert [row["percent"] for row in facts["tau"]] == [1, 2, 5, 10, 20]
    assert run("build", base, *source, code=1).exception is not None
    run("remove", base, "--subject", "bert")
    run("remove", base, "--hash", subject_hash(read_key(key_beside(tmp_path / "base")), "anna"))
    facts = json.loads(run("info", base, "--json").stdout)
    assert (facts["entries"], facts["usable"], facts["refusal"]) == (3, False, "KB-ONE-SUBJECT")
    run("build", base, *source, "--replace")
    assert json.loads(run("info", base, "--json").stdout)["entries"] == 18
    run("remove", base, code=2)
