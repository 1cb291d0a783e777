"""SECURITY.md names tests that exist; no module runs foreign code; licences and advisories hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("rebrain_node/**/*.py"), *ROOT.glob("trainer/**/*.py")])
LOCK = (ROOT / "deploy/locks/runtime.txt").read_text(encoding="utf-8")
#: what runs code that comes as data, or gives a name away before the file is made
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load",
    "faiss.read_index", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "tempfile.mktemp",
}  # fmt: skip
#: modules of libraries with advisories that the node must not use (deploy/vex.cdx.json)
UNUSED = ("pickle", "dill", "joblib", "marshal", "shelve", "pydicom.fileset", "pynetdicom.apps")
#: what unpickles unless this keyword (its default) has this value
_SAFE_LOADS = {
    "torch.load": ("weights_only", "", "True"),
    "np.load": ("allow_pickle", "False", "False"),
    "numpy.load": ("allow_pickle", "False", "False"),
}


def _calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    if "pickle.UnpicklingError" in found:  # the name of an error, which unpickles nothing
        found -= {"pickle"}
    return found


def forbidden_in(text: str) -> set[str]:
    tree = ast.parse(text)
    shell = {
        "shell"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "shell" and ast.unparse(word.value) != "False"
    }
    loads = {
        ast.unparse(call.func)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and (safe := _SAFE_LOADS.get(ast.unparse(call.func))) is not None
        and {k.arg: ast.unparse(k.value) for k in call.keywords}.get(safe[0], safe[1]) != safe[2]
    }
    return (_calls(tree) & FORBIDDEN) | (_imports(tree) & set(UNUSED)) | shell | loads


def test_no_module_calls_what_runs_foreign_code():
    found = {
        str(path.relative_to(ROOT)): names
        for path in SOURCES
        if (names := forbidden_in(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    ["eval(x)", "import pickle", "from pydicom import fileset", "yaml.load(x)",
     "tempfile.mktemp()", "subprocess.run(x, shell=True)", "os.system(x)",
     "torch.load(x)", "np.load(x, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_sees_what_it_looks_for(line):
    assert forbidden_in(line)


def test_every_threat_names_a_test_that_exists():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"`(tests/\S+?)::(test_\w+)`", text)
    threats = text.split("## Threats")[1].split("## What is open")[0]
    assert len(rows) == threats.count("\n| ") - 2
    missing = [
        f"{file}::{name}"
        for file, name in rows
        if not (ROOT / file).is_file()
        or f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_the_relative_links_of_security_lead_somewhere():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_an_advisory_is_stated_for_the_version_that_is_pinned():
    vex = json.loads((ROOT / "deploy/vex.cdx.json").read_text(encoding="utf-8"))
    states = {each["analysis"]["state"] for each in vex["vulnerabilities"]}
    assert states <= {"resolved", "not_affected"}
    for each in vex["components"]:
        if each["bom-ref"].startswith("pkg:pypi/"):
            assert f"{each['name']}=={each['version']} " in LOCK
        else:
            assert each["scope"] == "excluded"
            assert f"{each['name']}==" not in LOCK
    known = {each["bom-ref"] for each in vex["components"]}
    for each in vex["vulnerabilities"]:
        assert {one["ref"] for one in each["affects"]} <= known


def test_every_package_of_the_lock_is_in_the_bill_with_a_licence_that_fits(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "deploy/sbom", tmp_path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text(encoding="utf-8"))
    assert len(bill["components"]) == len(re.findall(r"^\S+==", LOCK, re.MULTILINE))
    table = (tmp_path / "licences.md").read_text(encoding="utf-8")
    assert "unknown" not in table
    assert "| pydicom | 3.0.2 | MIT" in table
