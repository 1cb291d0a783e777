"""The habits of the house as tests: style, types, import contracts, documents, locks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("rebrain_node/**/*.py"), *ROOT.glob("trainer/**/*.py")])
_SH = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
LARGE_BY_DESIGN = ("rebrain_node/bundles/", "rebrain_node/demo_head/")


def _run(*arguments: str, timeout_s: int = 280) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")])
def test_ruff_finds_nothing(arguments):
    result = _run("ruff", *arguments, ".")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def test_mypy_strict_finds_nothing_in_both_packages():
    result = _run("mypy")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def test_the_import_contracts_hold():
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [str(program)], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def _command_blocks() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [block.strip().splitlines() for block in _SH.findall(text)]


def test_the_readme_has_exactly_two_set_up_commands_each_one_line():
    blocks = _command_blocks()
    assert len(blocks) == 2
    assert [len(block) for block in blocks] == [1, 1]
    assert "rebrain-node demo" in blocks[0][0]
    assert "pytest" in blocks[1][0]


def test_the_build_server_runs_every_slow_test_after_the_default_command():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = options["tool"]["pytest"]["ini_options"]["addopts"]
    assert options[options.index("-m") + 1] == "not slow"
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    default = next(n for n, line in enumerate(lines) if line.endswith('-c "$command"'))
    after = [line.split() for line in lines[default + 1 :] if "-m slow" in line]
    assert [words[1:] for words in after] == [
        ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "slow"]
    ]  # nothing that narrows the choice


def _pins(text: str) -> dict[str, str]:
    return {
        name.lower().replace("_", "-"): version
        for name, version in re.findall(
            r"^([A-Za-z0-9_.-]+)(?:\[[a-z]+\])?==([^\s;\\]+)", text, re.MULTILINE
        )
    }


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("runtime.txt", ()), ("gpu.txt", ("gpu",)), ("dev.txt", ("train", "pdf", "dev"))],
)
def test_every_dependency_is_pinned_and_in_the_lock_with_its_hashes(lock, extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    assert all("==" in requirement for requirement in wanted)
    text = (ROOT / "deploy/locks" / lock).read_text(encoding="utf-8")
    locked = _pins(text)
    expected = {n: v for n, v in _pins("\n".join(wanted)).items() if n != "torch"}
    assert {name: locked.get(name) for name in expected} == expected
    assert text.count("--hash=sha256:") >= len(locked)


@pytest.mark.parametrize("name", ["dev", "gpu"])
def test_a_lock_can_be_installed_over_that_of_the_node(name):
    def pins(lock):
        text = (ROOT / f"deploy/locks/{lock}.txt").read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", text, re.MULTILINE))

    assert pins("runtime").items() <= pins(name).items()


@pytest.mark.parametrize("name", ["torch", "simpleitk", "pytest", "hypothesis", "mypy", "triton"])
def test_the_runtime_lock_pulls_neither_development_tools_nor_what_only_training_needs(name):
    locked = _pins((ROOT / "deploy/locks/runtime.txt").read_text(encoding="utf-8"))
    assert name not in locked
    assert not [other for other in locked if other.startswith(("nvidia", "cuda"))]


def test_the_changelog_has_an_unreleased_section_on_top():
    headings = _HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert headings
    assert headings[0].strip("[]").startswith(("Unreleased", "0."))


def test_relative_links_in_the_documents_lead_somewhere():
    broken = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_every_page_of_the_documents_is_on_the_map():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in ROOT.glob("docs/**/*.md")]
    assert [p for p in pages if p != "index.md" and f"({p})" not in index] == []


def _tracked() -> list[Path]:
    result = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        pytest.skip("not a git checkout: the list of tracked files is not known")
    return [ROOT / name for name in result.stdout.split("\0") if name]


def test_nothing_large_is_tracked_but_the_bundle_and_the_demonstration_head():
    large = [
        path.relative_to(ROOT).as_posix()
        for path in _tracked()
        if path.exists() and path.stat().st_size > 1_000_000
    ]
    assert [name for name in large if not name.startswith(LARGE_BY_DESIGN)] == []


def test_the_shipped_bundle_stays_within_25_megabytes():
    files = [path for path in (ROOT / "rebrain_node/bundles/demo").rglob("*") if path.is_file()]
    assert files
    assert sum(path.stat().st_size for path in files) <= 25_000_000


def test_no_file_of_the_bundle_names_a_folder_of_the_machine_it_was_made_on():
    for path in (ROOT / "rebrain_node/bundles/demo").rglob("*.*"):
        content = path.read_bytes()
        assert not [word for word in (b'File "/', b"site-packages", b"/home/") if word in content]


def test_no_module_has_a_name_that_says_nothing():
    empty = {"utils", "util", "helpers", "common", "misc", "core", "base", "manager"}
    assert [p for p in SOURCES if p.stem in empty or p.parent.name in empty] == []
