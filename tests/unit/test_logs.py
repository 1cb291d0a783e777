"""Log lines of libraries: UIDs become the short ids that commands take, addresses stay."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from rebrain_node.domain.text import reference
from rebrain_node.logs import log_as_json


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_uid_in_a_line_becomes_its_short_id_and_an_address_stays(capsys):
    log_as_json("receiver")
    logging.getLogger("library").warning("from 192.0.2.10: instance 1.2.840.10008.5.1 not taken")
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == f"from 192.0.2.10: instance {reference('1.2.840.10008.5.1')} not taken"
    assert line["process"] == "receiver"
