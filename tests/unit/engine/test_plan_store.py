"""Plans of TensorRT on disk: those that this node built for the same bundle and GPU are read."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from rebrain_node.engine.plan_store import PlanKey, PlanStore

KEY = PlanKey(graph="network", bundle="a" * 64, library="tensorrt-rtx 1", target="SM89")
PLAN = b"code for a GPU" * 100


@pytest.fixture
def store(tmp_path):
    made = PlanStore(tmp_path / "plans")
    made.write(KEY, PLAN)
    return made


def test_a_plan_is_read_as_it_was_written_by_another_process_of_the_node(store):
    assert PlanStore(store.folder).read(KEY) == PLAN


@pytest.mark.parametrize(
    "other",
    [
        {"graph": "control"},
        {"bundle": "b" * 64},
        {"library": "tensorrt-rtx 2"},
        {"target": "SM86"},
    ],
)
def test_there_is_no_plan_for_another_graph_bundle_version_or_gpu(store, other):
    assert store.read(replace(KEY, **other)) is None


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_plan_is_not_used_and_the_log_says_so(store, caplog, place):
    path = store.folder / KEY.file
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert store.read(KEY) is None
    assert "is damaged or was not built by this node" in caplog.text


def test_a_plan_cut_short_is_not_used(store):
    path = store.folder / KEY.file
    path.write_bytes(path.read_bytes()[:20])
    assert store.read(KEY) is None


def test_a_plan_that_another_node_built_is_not_used(store, tmp_path):
    other = PlanStore(tmp_path / "other")
    other.write(KEY, PLAN)
    (store.folder / KEY.file).write_bytes((other.folder / KEY.file).read_bytes())
    assert store.read(KEY) is None


def test_a_plan_under_the_name_of_another_is_not_used(store):
    other = replace(KEY, target="SM86")
    (store.folder / KEY.file).rename(store.folder / other.file)
    assert store.read(other) is None


def test_folder_key_and_plans_are_readable_by_the_node_alone(store):
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in store.folder.iterdir()} == {0o600}
    assert {each.name for each in store.folder.iterdir()} == {"key", KEY.file}


def test_where_no_plan_can_be_kept_the_log_says_so(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    store = PlanStore(tmp_path / "file")
    store.write(KEY, PLAN)
    assert "cannot be kept" in caplog.text
    assert store.read(KEY) is None
