"""Container, compose and Kubernetes files: not root, read-only, in step with lock and settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from rebrain_node.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OBJECTS = list(
    yaml.safe_load_all((DEPLOY / "kubernetes/rebrain-node.yaml").read_text(encoding="utf-8"))
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PORT = Settings().receiver.port


def of_kind(kind):
    (found,) = [each for each in OBJECTS if each["kind"] == kind]
    return found


def test_the_image_does_not_run_as_root_and_is_healthy_only_while_ready():
    last = IMAGE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert last.index("USER 10001") < last.index("ENTRYPOINT")
    assert "/readyz" in last
    assert re.search(rf"^EXPOSE {PORT}$", last, re.MULTILINE)


def test_the_image_installs_the_lock_with_its_hashes_and_the_torch_that_is_pinned():
    assert "--require-hashes -r deploy/locks/runtime.txt" in IMAGE
    (pin,) = [each for each in PROJECT["optional-dependencies"]["train"] if "torch==" in each]
    assert f"pip install {pin};" in IMAGE


def test_what_the_image_copies_is_there_and_gets_into_the_build():
    let_in = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", IMAGE, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert any(name.startswith(each[1:]) for each in let_in if each[0] == "!"), name


def test_the_container_of_compose_may_write_to_its_state_alone():
    node = COMPOSE["services"]["node"]
    assert node["read_only"] is True
    assert node["user"] == "10001:10001"
    assert node["cap_drop"] == ["ALL"]
    assert node["volumes"] == ["state:/var/lib/rebrain-node"]
    assert node["image"] == f"rebrain-node:{PROJECT['version']}"
    assert node["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]


def test_no_password_stands_in_compose():
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    passwords = re.findall(r"\$\{(\w+_PASSWORD)(:\?)?", text)
    assert {name for name, _ in passwords} == {"ORTHANC_PASSWORD", "DATABASE_PASSWORD"}
    assert all(required for _, required in passwords)


def test_the_settings_of_compose_are_fit(monkeypatch):
    for name, value in COMPOSE["services"]["node"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.receiver.peers[0].ae_title == settings.destinations[0].ae_title == "ORTHANC"


def test_the_pod_is_one_not_root_and_read_only():
    spec = of_kind("StatefulSet")["spec"]
    assert spec["replicas"] == 1
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == f"rebrain-node:{PROJECT['version']}"
    assert container["ports"] == [{"name": "dicom", "containerPort": PORT}]


def test_the_settings_of_the_pod_are_fit_and_its_probes_ask_their_port():
    settings = Settings(**tomllib.loads(of_kind("ConfigMap")["data"]["node.toml"]))
    assert settings.receiver.port == PORT
    (container,) = of_kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    for probe, path in (("startupProbe", "readyz"), ("readinessProbe", "readyz"),
                        ("livenessProbe", "healthz")):  # fmt: skip
        (command,) = container[probe]["exec"]["command"][2:]
        assert f"127.0.0.1:{settings.health.port}/{path}" in command


@pytest.mark.parametrize("name", ["node", "orthanc"])
def test_compose_offers_its_ports_to_this_machine_alone(name):
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"][name]["ports"])
