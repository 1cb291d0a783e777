"""The command line: help of every command, errors in one line, no heavy import at start."""

import errno
import inspect
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from rebrain_node import __version__, errors
from rebrain_node.app.doctor import check
from rebrain_node.cli import app
from rebrain_node.cli.terminal import plain
from rebrain_node.errors import os_error_words
from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.model.signature import make_key, read_private_key, sign_bundle, signing_key
from tests.support.plain_bundle import plain_contents
from tests.support.reference import commands, error_classes

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "openvino", "SimpleITK", "highdicom", "pynetdicom", "sqlalchemy", "dbos", "numpy")


COMMANDS = dict(commands())


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "rebrain_node.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does(name):
    assert COMMANDS[name].help.strip()
    assert all(getattr(p, "help", None) for p in COMMANDS[name].params)


def test_the_tree_of_errors_names_every_class():
    tree = errors.__doc__.split("Caught")[0]
    assert set(re.findall(r"\b[A-Z]\w+", tree)) >= {error.__name__ for error in error_classes()}


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_an_error_states_its_outcome(error):
    assert "\n\nOutcome: " in inspect.getdoc(error)


def test_the_version_is_the_one_of_the_package():
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_a_worker_loads_no_large_library_before_its_first_work():
    modules = "rebrain_node.app.serve, rebrain_node.worker.watcher, rebrain_node.worker.delivery"
    large = ("numpy", "pydicom", "pynetdicom", "PIL", "scipy", "openvino", "highdicom")
    code = f"import sys, {modules}; print([m for m in {large} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_command_line_imports_no_heavy_library():
    code = f"import sys, rebrain_node.cli; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def _worked_s() -> float:
    """Processor seconds of all children so far; what else the machine does is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_within_400_milliseconds_of_work():
    quickest = float("inf")
    for _ in range(5):
        begun = _worked_s()
        result = run("--help")
        quickest = min(quickest, _worked_s() - begun)
    assert result.returncode == 0
    assert "process" in result.stdout
    assert quickest <= 0.4


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("2", "2")])
def test_matrices_get_one_thread_unless_the_site_says_otherwise(given: str | None, used: str):
    code = (
        "import os\n"
        "from rebrain_node.cli import app\n"
        "try:\n    app(['--version'])\n"
        "except SystemExit:\n    pass\n"
        "import numpy as np\n"
        "np.ones((900, 900)) @ np.ones((900, 900))\n"
        "print(len(os.listdir('/proc/self/task')), os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    others = {name: v for name, v in os.environ.items() if not name.endswith("_NUM_THREADS")}
    chosen = {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=others | chosen,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[-1] == used
    assert int(said[-2]) == min(int(used), os.cpu_count() or 1)


def test_version_short_help_and_completion_answer():
    assert run("--version").stdout == f"rebrain-node {__version__}\n"
    assert "Show one series" in run("queue", "show", "-h").stdout
    words = {"_REBRAIN_NODE_COMPLETE": "complete_bash", "COMP_WORDS": "rebrain-node que"}
    assert run(**words, COMP_CWORD="1").stdout.strip() == "queue"


@pytest.mark.parametrize(
    "arguments",
    [
        ("process", "absent-folder", "--out", "x"),
        ("process", "."),
        ("audit", "show", "zero"),
        ("no-such-command",),
        ("config", "show", "--config", "absent.toml"),
    ],
)
def test_wrong_usage_and_settings_give_exit_code_2_and_no_traceback(arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_an_error_is_one_line_that_names_the_program():
    result = run("config", "check", "--config", "absent.toml")
    assert result.stderr.splitlines() == [
        "rebrain-node: absent.toml: No such file or directory; give --config FILE"
    ]


def test_a_file_of_another_user_is_named_with_the_remedy(monkeypatch, capsys):
    """As root no file is closed, so that the operating system's answer is made here."""
    closed = PermissionError(errno.EACCES, "Permission denied", "/var/lib/node/node.sqlite")
    monkeypatch.setattr("rebrain_node.cli.program", Mock(side_effect=closed))
    with pytest.raises(SystemExit) as ended:
        app(["status"])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "this user may not use /var/lib/node/node.sqlite; run the command as the user" in said
    assert check("database", Mock(side_effect=closed)).found in said
    lost = OSError(errno.EIO, "Input/output error", "/var/lib/node/audit.pub")
    assert os_error_words(lost) == "/var/lib/node/audit.pub: Input/output error"


def test_bundle_verify_tells_the_shipped_bundle_from_an_altered_copy(tmp_path):
    shipped = ROOT / "rebrain_node/bundles/demo"
    assert run("bundle", "verify", str(shipped)).returncode == 0
    copy = Path(shutil.copytree(shipped, tmp_path / "copy"))
    (copy / "recipe.json").write_bytes((copy / "recipe.json").read_bytes().replace(b"0.9", b"0.8"))
    result = run("bundle", "verify", str(copy), "--json")
    assert result.returncode == 4
    assert "recipe.json" in result.stderr
    assert json.loads(result.stdout)["verified"] is False
    assert "recipe.json" in json.loads(result.stdout)["reason"]


def test_bundle_info_describes_a_bundle_whoever_released_it(tmp_path):
    write_bundle(tmp_path / "b", "tiny", "0.1", plain_contents())
    make_key(tmp_path / "site.key", tmp_path / "site.pub")
    signed = sign_bundle(load_bundle(tmp_path / "b"), read_private_key(tmp_path / "site.key"))
    result = run("bundle", "info", str(tmp_path / "b"), "--json")
    answer = json.loads(result.stdout)
    assert (answer["name"], answer["version"]) == ("tiny", "0.1")
    assert answer["digest"] == signed.digest
    assert answer["signed_by"] == {"key": signing_key(signed), "name": None}
    assert answer["size"] == sum(answer["files"].values())
    assert answer["knowledge_base"] is None
    assert answer["domain"] is None
    shipped = json.loads(run("bundle", "info", "--json").stdout)
    assert shipped["knowledge_base"]["subjects"] == 15
    assert shipped["domain"]["people"] == 21
    assert answer["card"]["limits"] == ["It has no network."]
    assert run("bundle", "verify", str(tmp_path / "b")).returncode == 4


def test_an_altered_bundle_gives_exit_code_4(tmp_path):
    result = run("bundle", "info", REBRAIN_MODEL__BUNDLE=str(tmp_path))
    assert result.returncode == 4
    assert len(result.stderr.splitlines()) == 1


def test_a_password_is_not_shown():
    url = "postgresql://node:secret@host/name"
    result = run("config", "show", "--json", REBRAIN_STORAGE__DATABASE_URL=url)
    assert result.returncode == 0
    assert "secret" not in result.stdout
    assert "node:***@host" in result.stdout


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\rb", "a\u202eb", "a\x00b", "a\nb"])
def test_control_characters_in_values_are_shown_and_not_obeyed(text):
    assert plain(text).isprintable()
    assert "\\" in plain(text)
