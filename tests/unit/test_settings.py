"""Settings: the file, the environment and the defaults agree; each setting is described.

The table of docs/settings.md is made of the descriptions (tests/unit/test_reference.py).
"""

import re
from pathlib import Path

import pytest

from rebrain_node.errors import SettingsError
from rebrain_node.settings import Settings, load_settings
from tests.support import reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("REBRAIN_")]:
        monkeypatch.delenv(name)


def test_every_setting_has_a_description():
    described = dict(reference.settings())
    assert {"workers", "receiver.peers.ae_title", "destinations.timeout_s"} <= described.keys()
    assert [name for name, field in described.items() if not field.description] == []


def test_the_settings_file_that_ships_is_the_one_in_conf_and_loads():
    shipped = ROOT / "rebrain_node/defaults/node.toml"
    assert shipped.read_bytes() == (ROOT / "conf/node.toml").read_bytes()
    assert load_settings(shipped) == Settings()


def test_the_commented_examples_in_the_settings_file_are_valid(tmp_path):
    text = (ROOT / "conf/node.toml").read_text()
    text = re.sub(r"^# (\[\[|[a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "node.toml").write_text(text)
    settings = load_settings(tmp_path / "node.toml")
    assert [peer.ae_title for peer in settings.receiver.peers] == ["PACS"]
    assert [destination.name for destination in settings.destinations] == ["pacs"]


def test_nobody_may_call_and_nothing_is_sent_by_default():
    assert Settings().receiver.peers == ()
    assert Settings().destinations == ()


def test_the_environment_overrides_the_file(monkeypatch, tmp_path):
    (tmp_path / "node.toml").write_text("[receiver]\nport = 11200\nae_title = 'FILE'\n")
    monkeypatch.setenv("REBRAIN_RECEIVER__PORT", "11300")
    settings = load_settings(tmp_path / "node.toml")
    assert (settings.receiver.port, settings.receiver.ae_title) == (11300, "FILE")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[receiver]\nprot = 1\n", "receiver.prot"),
        ("[receiver]\nport = 70000\n", "receiver.port"),
        ("[receiver]\nae_title = 'SEVENTEEN-LETTERS'\n", "receiver.ae_title"),
        ("[[receiver.peers]]\nae_title = 'PACS'\naddresses = ['10.0.0.300/8']\n", "addresses"),
        ("[model]\nengine = 'cuda'\n", "model.engine"),
        ("workers = 0\n", "workers"),
        ("colour = 'blue'\n", "colour"),
        ("this is not TOML", "not TOML"),
    ],
)
def test_an_unfit_setting_is_refused_and_named(tmp_path, text, named):
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(named)):
        load_settings(tmp_path / "node.toml")


def test_a_missing_settings_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.toml.*--config"):
        load_settings(tmp_path / "absent.toml")
