"""Physical cores: what the system says of the topology, and what counts where it says nothing."""

from __future__ import annotations

import pytest

from rebrain_node.engine.processor import physical_cores


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2})


def write_topology(folder, cpu, package, core):
    topology = folder / f"cpu{cpu}" / "topology"
    topology.mkdir(parents=True)
    (topology / "physical_package_id").write_text(f"{package}\n")
    (topology / "core_id").write_text(f"{core}\n")


def test_two_threads_of_one_core_are_one_core(tmp_path):
    for cpu, core in enumerate((0, 0, 1)):
        write_topology(tmp_path, cpu, 0, core)
    assert physical_cores(tmp_path) == 2


def test_cores_of_two_packages_are_told_apart_by_their_package(tmp_path):
    for cpu, package in enumerate((0, 1, 2)):
        write_topology(tmp_path, cpu, package, 0)
    assert physical_cores(tmp_path) == 3


def test_without_a_topology_every_thread_is_a_core(tmp_path):
    assert physical_cores(tmp_path) == 3
