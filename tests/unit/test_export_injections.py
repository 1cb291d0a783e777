"""No text of the audit log becomes a formula, a row or a control sequence of an export."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.settings import load_settings
from tests.support.injections import INJECTIONS
from tests.support.store_cases import fast_folder

#: details that may hold what others wrote: AE titles, reasons, sentences, UIDs, codes
FIELDS = (
    "reason", "address", "called_ae_title", "would_admit", "sentence", "calling_ae_title",
    "series", "study", "sop_class", "transfer_syntax", "destination", "operator", "bundle",
    "version", "digest",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export of a log in which each string stands as a subject and in every field."""
    config = tmp_path_factory.mktemp("export") / "node.toml"
    with fast_folder() as folder:
        config.write_text(f'[storage]\nfolder = "{folder}/state"\n')
        with open_state(load_settings(config)) as state:
            for each in INJECTIONS:
                details = dict.fromkeys(FIELDS, each) | {each: each, "nested": [{each: [each]}]}
                state.audit.record(Event.ASSOCIATION_REFUSED, each, details)
        yield {
            form: CliRunner()
            .invoke(program, ["audit", "export", "--config", str(config), "--format", form])
            .stdout_bytes.decode("ascii")
            for form in ("csv", "jsonl")
        }


def test_there_are_as_many_strings_and_fields_as_are_promised():
    assert (len(set(INJECTIONS)), len(set(FIELDS))) == (60, 15)


def test_a_csv_has_a_row_for_each_event_and_no_cell_that_a_spreadsheet_computes(exported):
    rows = list(csv.reader(io.StringIO(exported["csv"], newline="")))
    assert [row[3] for row in rows[1:]].count("association.refused") == len(INJECTIONS)
    assert {len(row) for row in rows} == {len(rows[0])}
    for row in rows[1:]:
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_a_csv_holds_no_control_sequence(exported):
    assert exported["csv"].replace("\r\n", "").isprintable()


def test_a_line_of_json_is_one_event_with_its_texts_unchanged(exported):
    lines = exported["jsonl"].splitlines()
    lines = [line for line in lines if json.loads(line)["event"] == "association.refused"]
    for line, text in zip(lines, INJECTIONS, strict=True):
        assert line.isprintable()
        details = json.loads(line)["details"]
        assert [details[name] for name in FIELDS] == [text] * len(FIELDS)
        assert details["nested"] == [{text: [text]}]


def test_a_text_that_a_spreadsheet_would_compute_stands_behind_an_apostrophe(exported):
    subjects = [row[4] for row in csv.reader(io.StringIO(exported["csv"], newline=""))]
    for text in ("=1+1", "+1+1", "-1+1", "@SUM(1,1)"):
        assert f"'{text}" in subjects
