"""Settings: the file, the environment and the defaults agree; each setting is described.

The table of docs/settings.md is made of the descriptions (tests/repository/test_pages.py).
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rebrain_node.app.settings_check import settings_faults
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
    text = re.sub(r"^# (\[|[a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
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
_ARR = "[[audit_messages.collectors]]\nname = 'arr'\nhost = 'arr'\n"
_HOOK = "[[notices.webhooks]]\nname = 'chat'\nurl = 'https://h/x'\nsecret_file = '/nowhere'\n"
_MAIL = "[[notices.mails]]\nname = 'mail'\nhost = 'm'\nsender = 'a@b'\nrecipients = ['b@c']\n"


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
        (f"{_ARR}protocol = 'tcp'\n", "protocol of arr must be tls"),
        (_PACS + _ARR.replace("'arr'", "'pacs'"), "'pacs'; give each its own"),
        (_HOOK.replace("https:", "http:"), "url of chat must begin with https"),
        (_HOOK.replace("https://h/", "https://u:p@h/"), "url: must hold no user and no password"),
        (_HOOK.replace("//h/", "//a..b/"), "url: must be a URL in ASCII with a host"),
        (_HOOK.replace("//h/", "//h:99999/"), "a port from 1 to 65535"),
        (_HOOK.replace("//h/x", "//h/kä"), "url: must be a URL in ASCII"),
        (_PACS.replace("t = 'pacs'", "t = 'a..b'"), "must be a host name or an address"),
        (_PACS.replace("t = 'pacs'", "t = '10.0.0.7:104'"), "without a port"),
        (_PACS.replace("t = 'pacs'", "t = ''"), "must be a host name or an address"),
        (_MAIL + "user = 'ü'\npassword_file = '/x'\n", "user: must be printable ASCII"),
        (_ARR + "client_key = '/x'\n", "arr has a client_key and no client_certificate"),
        (f"{_MAIL}encryption = 'none'\n", "encryption of mail must be starttls"),
        (f"{_MAIL}user = 'u'\n", "needs both user and password_file"),
        (_MAIL.replace("@", " at "), "must be a mail address, e.g. it@example.org"),
        (
            _MAIL.replace("b@c", "b@c\\r\\nBcc: d@e").replace("'b", '"b').replace("e']", 'e"]'),
            "must be a mail address",
        ),
        ("workers = 0\n", "workers"),
        ("colour = 'blue'\n", "colour"),
        ("this is not TOML", "not TOML"),
    ],
)
def test_an_unfit_setting_is_refused_and_named(tmp_path, text, named):
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(named)):
        load_settings(tmp_path / "node.toml")


def test_a_password_in_a_url_stands_in_no_message(tmp_path):
    (tmp_path / "node.toml").write_text(_HOOK.replace("https://h/", "https://u:pass@h/"))
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "node.toml")
    assert "pass@" not in str(caught.value)


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
        "name is missing; peers, entry 2: port: must be 65535 or less, found 70000; nam is unknown"
    )


def test_an_unknown_key_at_any_depth_is_answered_with_the_nearest_that_exists():
    with pytest.raises(ValidationError) as caught:
        Node.model_validate({"nmae": "x", "name": "n", "peers": [{"port": 1, "prt": 2}]})
    assert faults_of(caught.value, Node) == (
        "peers, entry 1: prt is unknown, did you mean port?; nmae is unknown, did you mean name?"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[receiver]\nae_title = 'A\\B'\n", "1 to 16 letters, digits, spaces and signs"),
        ("[[destinations]]\nname = 'PACS 1'\nae_title = 'P'\nhost = 'h'\n", "small letters"),
        ("[[dicomweb_destinations]]\nname = 'w'\nurl = 'htp://x'\n", "begins with https://"),
        ("[model]\naccept_older = 'x'\n", "64 digits"),
        ("[objects]\nmr = 'clasic'\n", "did you mean classic?"),
        ("[[receiver.peers]]\nae_title = 'P'\naddresses = ['10.0.0.5/24']\n",
         "write 10.0.0.5 for one machine or 10.0.0.0/24 for all"),
        ("receiver = 5\n", "must be a table"),
        ("workers = 'x'\n", "must be a whole number"),
    ],
)  # fmt: skip
def test_a_fault_is_said_in_words_and_not_as_a_pattern(tmp_path, text, words):
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        load_settings(tmp_path / "node.toml")
    assert not re.search(
        r"\^|\$|\[0\]|Input should|pattern", str(caught.value).partition(".toml")[2]
    )


@pytest.mark.parametrize("name", ["DESTINATIONS", "RECEIVER__PEERS", "RECEIVER"])
def test_a_variable_that_is_no_json_is_named_in_a_sentence(monkeypatch, name):
    monkeypatch.setenv(f"REBRAIN_{name}", '[{"name"')
    with pytest.raises(SettingsError, match=f"REBRAIN_{name} is not JSON"):
        load_settings(None)


PACS = "[[destinations]]\nname = 'pacs'\nae_title = 'P'\nhost = 'h'\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PACS + PACS.replace("'pacs'", "'two'"), "pacs and two are the same system"),
        (PACS.replace("'h'", "'127.0.0.1'") + "port = 11112\n", "pacs is this node itself"),
        ("[storage]\nsoft_mark_bytes = 1\nhard_mark_bytes = 2\n", "storage.hard_mark_bytes is 2"),
        ("[completeness]\nquiet_period_s = 60\nmaximum_wait_s = 10\n", "quiet_period_s is 60"),
        ("[receiver]\nmaximum_unassociated = 4\n", "maximum_unassociated_per_address is 8"),
        ("[health]\nport = 11112\n", "both 11112"),
        ("[model]\nbundle = '/nowhere'\n", "there is no folder /nowhere"),
        ("[storage]\ndatabase_url = 'mysql://h/x'\n", "must be sqlite or postgresql"),
        ("limits = '/nowhere.toml'\n", "limits /nowhere.toml"),
        ("[[dicomweb_destinations]]\nname = 'w'\nurl = 'https://x/y'\ntoken_file = '/nowhere'\n",
         "token_file of w"),
        (f"{_ARR}client_certificate = '/nowhere'\n", "client_certificate of arr"),
        (_HOOK, "secret_file of chat"),
        (f"{_MAIL}user = 'u'\npassword_file = '/nowhere'\n", "password_file of mail"),
        (f"{PACS}tls = {{certificate_authority = '/nowhere'}}\n", "authority /nowhere cannot be"),
        ("[receiver]\ntls = {certificate = '/nowhere', certificate_authority = '/a'}\n",
         "certificate /nowhere with its key"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_found_before_the_start(tmp_path, text, words):
    (tmp_path / "node.toml").write_text(text)
    (fault,) = settings_faults(load_settings(tmp_path / "node.toml"))
    assert words in fault


def test_another_programs_database_is_found_and_left_as_it_is(tmp_path):
    file = tmp_path / "node.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE other (x)")
    before = file.read_bytes()
    (fault,) = settings_faults(Settings(storage={"folder": tmp_path}))
    assert "another program's database" in fault
    assert file.read_bytes() == before


def test_a_misspelt_variable_is_found(monkeypatch):
    monkeypatch.setenv("REBRAIN_RECIEVER__PORT", "1")
    (fault,) = settings_faults(Settings())
    assert "did you mean REBRAIN_RECEIVER?" in fault


def test_the_shipped_settings_have_no_fault():
    assert settings_faults(load_settings(ROOT / "conf/node.toml")) == []


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
