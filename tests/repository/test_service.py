"""The systemd units are hardened, and the install script never overwrites what a site has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rebrain_node.supervisor import PERMANENT_EXIT_CODES
from tests.support import phantoms
from tests.support.quick_node import PROGRAM, ROOT, public_key, quick_study, write_quick_bundle

SYSTEMD = ROOT / "deploy/systemd"
SERVICES = sorted(SYSTEMD.glob("*.service"))
UNITS = [*SERVICES, *sorted(SYSTEMD.glob("*.timer"))]
_EXPOSURE = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def run(*command):
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("REBRAIN_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def install(root, *options):
    environment = Path(sys.executable).parents[1]
    if not (environment / "bin/rebrain-node").exists():
        pytest.skip("rebrain-node is not installed in the environment of the tests")
    return run(SYSTEMD / "install", "--root", root, "--environment", environment, *options)


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_exposure_of_a_service_is_two_at_most(unit):
    result = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    assert float(_EXPOSURE.search(result.stdout)[1]) <= 2.0, result.stdout + result.stderr


@needs_systemd
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    for unit in UNITS:
        text = unit.read_text()
        for program in ("/opt/rebrain-node/current/bin/rebrain-node", "/bin/kill"):
            text = text.replace(program, "/bin/true")
        (tmp_path / unit.name).write_text(text.replace("User=rebrain\nGroup=rebrain\n", ""))
    result = run("systemd-analyze", "verify", "--man=no", *(tmp_path / each.name for each in UNITS))
    mine = [line for line in result.stderr.splitlines() if "rebrain-node" in line]
    assert (result.returncode, mine) == (0, []), result.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_no_service_runs_as_root(unit):
    assert "\nUser=rebrain\nGroup=rebrain\n" in unit.read_text()


def test_a_failure_that_a_restart_cannot_cure_is_not_tried_again():
    text = (SYSTEMD / "rebrain-node.service").read_text()
    (codes,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert set(map(int, codes.split())) == PERMANENT_EXIT_CODES


def test_installing_again_keeps_settings_and_state(tmp_path):
    first = install(tmp_path)
    assert first.returncode == 0, first.stderr
    settings = tmp_path / "etc/rebrain-node/node.toml"
    settings.write_text(settings.read_text().replace('"REBRAIN"', '"SITE"'))
    (tmp_path / "var/lib/rebrain-node/kept").write_text("state")
    second = install(tmp_path)
    assert second.returncode == 0, second.stderr
    assert '"SITE"' in settings.read_text()
    assert (tmp_path / "var/lib/rebrain-node/kept").read_text() == "state"
    installed = {path.name for path in (tmp_path / "etc/systemd/system").iterdir()}
    assert installed == {unit.name for unit in UNITS}
    assert (tmp_path / "opt/rebrain-node/current/bin/rebrain-node").exists()
    assert (tmp_path / "var/lib/rebrain-node").stat().st_mode & 0o777 == 0o700


def test_a_version_that_refuses_the_settings_is_not_taken_into_use(tmp_path):
    settings = tmp_path / "etc/rebrain-node/node.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("unknown = 1\n")
    result = install(tmp_path)
    assert result.returncode == 2
    assert "nothing was switched" in result.stderr
    assert not (tmp_path / "opt/rebrain-node/current").is_symlink()


@pytest.mark.parametrize("script", ["install", "uninstall"])
@pytest.mark.parametrize("option", ["--help", "--root", "--remove"])
def test_what_is_not_an_option_changes_nothing(tmp_path, script, option):
    # with --root, so that a script that takes it nevertheless does no harm to this machine
    result = run(SYSTEMD / script, "--root", tmp_path, option)
    assert list(tmp_path.iterdir()) == []
    assert result.returncode == 2
    assert "see the first lines" in result.stderr


def test_the_account_of_the_service_can_read_what_a_careful_root_installs(tmp_path):
    before = os.umask(0o077)
    try:
        assert install(tmp_path).returncode == 0
    finally:
        os.umask(before)
    for folder in ("opt", "opt/rebrain-node", "etc/systemd/system"):
        assert (tmp_path / folder).stat().st_mode & 0o055 == 0o055, folder


def test_drop_ins_that_stay_are_named(tmp_path):
    assert install(tmp_path).returncode == 0
    drop_in = tmp_path / "etc/systemd/system/rebrain-node.service.d"
    drop_in.mkdir()
    assert str(drop_in) in run(SYSTEMD / "uninstall", "--root", tmp_path).stdout
    assert drop_in.is_dir()


def test_removing_the_service_keeps_settings_and_state(tmp_path):
    assert install(tmp_path).returncode == 0
    result = run(SYSTEMD / "uninstall", "--root", tmp_path)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "opt/rebrain-node").exists()
    assert list((tmp_path / "etc/systemd/system").iterdir()) == []
    assert (tmp_path / "etc/rebrain-node/node.toml").exists()
    assert (tmp_path / "var/lib/rebrain-node").is_dir()


def _allowed() -> set[str]:
    """System calls that the filter of the service admits."""
    listed = {}
    for group in run("systemd-analyze", "syscall-filter", "--no-pager").stdout.split("\n\n"):
        lines = [line.strip() for line in group.splitlines()] or [""]
        listed[lines[0]] = [line for line in lines[1:] if line and not line.startswith("#")]

    def calls(group: str) -> set[str]:
        found = set()
        for each in listed[group]:
            found |= calls(each) if each.startswith("@") else {each}
        return found

    return calls("@system-service") - calls("@privileged")


@pytest.mark.full
@needs_systemd
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_filter_admits_every_system_call_of_a_synthesis(tmp_path):
    bundle = write_quick_bundle(tmp_path / "bundle")
    study = tmp_path / "study"
    study.mkdir()
    phantoms.write(quick_study(), study)
    config = tmp_path / "node.toml"
    keys = f'trusted_keys = ["{public_key(bundle)}"]'
    config.write_text(f'[model]\nbundle = "{bundle}"\n{keys}\nthreads = 1\n')
    command = [*PROGRAM, "process", study, "--out", tmp_path / "out", "--config", config]
    result = run("strace", "-f", "-qq", "-c", "-o", tmp_path / "calls", *command)
    assert result.returncode == 0, result.stderr
    table = (tmp_path / "calls").read_text().splitlines()[2:-2]
    used = {line.split()[-1] for line in table}
    assert len(used) > 30
    assert used - _allowed() == set()
