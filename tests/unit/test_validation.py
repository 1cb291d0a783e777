"""Faults of configuration and files: each is named by key, requirement and value found."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rebrain_node.errors import SettingsError
from rebrain_node.validation import faults_of
from trainer.config import TrainConfig


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
