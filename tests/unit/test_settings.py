"""Settings: the file, the environment and the defaults agree; each setting is described.

The table of docs/settings.md is made of the descriptions (tests/repository/test_pages.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rebrain_node.errors import SettingsError
from rebrain_node.settings import Settings, load_settings
from rebrain_node.validation import faults_of
from tests.support import reference
from trainer.config import TrainConfig

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
    assert settings.notified == (("pacs", "ris"),)


def test_nobody_may_call_and_nothing_is_sent_by_default():
    assert Settings().receiver.peers == ()
    assert Settings().destinations == ()


def test_the_environment_overrides_the_file(monkeypatch, tmp_path):
    (tmp_path / "node.toml").write_text("[receiver]\nport = 11200\nae_title = 'FILE'\n")
    monkeypatch.setenv("REBRAIN_RECEIVER__PORT", "11300")
    settings = load_settings(tmp_path / "node.toml")
    assert (settings.receiver.port, settings.receiver.ae_title) == (11300, "FILE")


_PACS = "[[destinations]]\nname = 'pacs'\nae_title = 'PACS'\nhost = 'pacs'\n"
_RIS = "[[notifications]]\nname = 'ris'\nae_title = 'RIS'\nhost = 'ris'\n"
_FLOW = "[[workflow_managers]]\nname = 'flow'\nurl = 'https://f/rs'\nworkitem_code = 'X'\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[receiver]\nprot = 1\n", "receiver.prot"),
        ("[receiver]\nport = 70000\n", "receiver.port"),
        ("[receiver]\nae_title = 'SEVENTEEN-LETTERS'\n", "receiver.ae_title"),
        ("[[receiver.peers]]\nae_title = 'PACS'\naddresses = ['10.0.0.300/8']\n", "addresses"),
        ("[model]\nengine = 'cuda'\n", "model.engine"),
        (f"{_PACS}confirmation = 'none'\n{_RIS}", "no [[destinations]] has a confirmation other"),
        (f"{_PACS}{_RIS}destinations = ['archive']\n", "which is none of the [[destinations]]"),
        (f"{_PACS}confirmation = 'none'\n{_RIS}destinations = ['pacs']\n", "is none, so that"),
        (f"{_PACS}{_RIS.replace('ris', 'pacs')}", "'pacs'; give each its own"),
        (_PACS + _FLOW.replace("'flow'", "'pacs'"), "'pacs'; give each its own"),
        (f"{_FLOW}transaction = 'header'\n", "transaction"),
        (f"[receiver]\npeers = [{{ae_title = 'A', query = 'ris'}}]\n{_PACS}{_RIS}", "no source"),
        ("workers = 0\n", "workers"),
        ("colour = 'blue'\n", "colour"),
        ("this is not TOML", "not TOML"),
    ],
)
def test_an_unfit_setting_is_refused_and_named(tmp_path, text, named):
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(named)):
        load_settings(tmp_path / "node.toml")


def test_every_destination_that_confirms_is_notified_of_unless_some_are_named(tmp_path):
    archive = _PACS.replace("pacs", "archive")
    silent = _PACS.replace("pacs", "silent") + "confirmation = 'none'\n"
    file = tmp_path / "node.toml"
    file.write_text(_PACS + archive + silent + _RIS)
    assert load_settings(file).notified == (("pacs", "ris"), ("archive", "ris"))
    file.write_text(_PACS + archive + silent + _RIS + "destinations = ['archive']\n")
    assert load_settings(file).notified == (("archive", "ris"),)


def test_a_missing_settings_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.toml.*--config"):
        load_settings(tmp_path / "absent.toml")


class Peer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    port: int = Field(le=65535)


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    peers: tuple[Peer, ...] = ()


def test_all_faults_are_listed_each_with_its_key():
    with pytest.raises(ValidationError) as caught:
        Node.model_validate({"peers": [{"port": 4}, {"port": 70000}], "nam": "x"})
    assert faults_of(caught.value) == (
        "name is missing; peers[1].port: Input should be less than or equal to 65535, found 70000; "
        "nam is unknown"
    )


def test_a_long_value_is_cut_and_a_whole_table_is_not_shown():
    with pytest.raises(ValidationError) as caught:
        Node.model_validate({"name": "n", "peers": [{"port": "9" * 500 + "x"}]})
    assert len(faults_of(caught.value)) < 200
    with pytest.raises(ValidationError) as caught:
        Node.model_validate_json("{")
    assert faults_of(caught.value).startswith("the file: Invalid JSON")


@pytest.mark.parametrize(
    ("text", "named"),
    [("[train]\nsteppes = 1\n", "train.steppes is unknown"), ("[train", "not TOML")],
)
def test_an_unfit_parameter_of_training_is_a_settings_error(tmp_path, text, named):
    (tmp_path / "train.toml").write_text(text)
    with pytest.raises(SettingsError, match=named):
        TrainConfig.load(tmp_path / "train.toml")
    with pytest.raises(SettingsError, match="--config"):
        TrainConfig.load(tmp_path / "absent.toml")
