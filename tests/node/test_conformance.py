"""The conformance statement is true of objects that were really made, and lists all they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from typer.testing import CliRunner

from rebrain_node import cli
from rebrain_node.app.conformance import conformance_statement
from rebrain_node.app.tasks import process_folder
from rebrain_node.network.services import CLASSES
from rebrain_node.report.statement import (
    SectionBlock,
    StatementDocument,
    TableBlock,
    as_html,
    as_markdown,
)
from rebrain_node.settings import Model, Objects, Settings
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.injections import INJECTIONS
from tests.support.phantoms import head_ct
from tests.support.quick_node import public_key
from tests.support.synthetic_volumes import provenance, synthetic_volume

Path_ = tuple[str, ...]


def stated(document: StatementDocument, kind: str) -> dict[Path_, tuple[str, str, str, str]]:
    """VR, presence, source and value of each attribute of a kind of object, by its path."""
    every, own = (
        next(s for s in document.sections if s.number == "A.A.1"),
        next(s for s in document.sections if s.title.startswith(f"{kind}: ")),
    )
    found: dict[Path_, tuple[str, str, str, str]] = {}
    for section in (every, own):
        path: Path_ = ()
        for table in section.content:
            if isinstance(table, TableBlock) and table.head[0] == "tag":
                for tag, _, vr, _, *rest in table.rows:
                    depth = tag.count(">")
                    path = (*path[:depth], tag.lstrip(">"))
                    found[path] = (vr, *rest)
    return found


def held(dataset: Dataset, outer: Path_ = ()) -> Iterator[tuple[Path_, str, bool, str]]:
    """Path, VR, emptiness and text of every element of an object."""
    for element in dataset:
        tag = Tag(element.tag)
        own = tag.is_private and tag.elem > 0xFF
        number = f"xx{tag.elem & 0xFF:02X}" if own else f"{tag.elem:04X}"
        path = (*outer, f"({tag.group:04X},{number})")
        value = element.value
        many = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
        yield (
            path,
            element.VR,
            element.is_empty,
            ("\\".join(map(str, value)) if many else str(value)),
        )
        if element.VR == "SQ" and element.keyword != "ContentSequence":
            for item in value:
                yield from held(item, path)


def contradictions(rows: dict[Path_, tuple[str, str, str, str]], dataset: Dataset) -> list[str]:
    """What an object holds that the statement does not say, or says otherwise."""
    faults, seen = [], set()
    for path, vr, empty, text in held(dataset):
        seen.add(path)
        row = rows.get(path)
        if row is None:
            faults.append(f"{path} is not stated")
            continue
        stated_vr, presence, source, value = row
        if stated_vr != vr:
            faults.append(f"{path} has VR {vr}, not {stated_vr}")
        if empty != (presence == "EMPTY") and presence not in {"VNAP", "ANAP"}:
            faults.append(f"{path} is {'empty' if empty else 'filled'}, stated {presence}")
        if source == "FIXED" and value and not empty and text != value:
            faults.append(f"{path} is {text}, stated {value}")
    for path, (_, presence, _, _) in rows.items():
        if len(path) == 1 and presence in {"ALWAYS", "VNAP", "EMPTY"} and path not in seen:
            faults.append(f"{path} is missing, stated {presence}")
    return faults


@pytest.fixture(scope="module")
def made(quick_bundle, study_folder, tmp_path_factory):
    """A set that the quick bundle made, by kind, and the settings."""
    out = tmp_path_factory.mktemp("made")
    settings = Settings(model=Model(bundle=quick_bundle, trusted_keys=(public_key(quick_bundle),)))
    run = process_folder(settings, study_folder, out, lambda *_: None)
    kinds = {uid: kind for kind, (uid, _) in CLASSES.items()}
    found: dict[str, list[Dataset]] = {}
    for path in run.outputs:
        dataset = dcmread(path)
        found.setdefault(kinds[str(dataset.SOPClassUID)], []).append(dataset)
    return settings, found


@pytest.fixture(scope="module")
def statement(made):
    return conformance_statement(made[0])


def test_the_statement_is_true_of_a_set_that_was_really_made(made, statement):
    _, found = made
    assert list(found)
    assert {"MR", "PM", "SEG", "SC", "PR", "SR", "KOS"} == set(found)
    for kind, datasets in found.items():
        rows = stated(statement, kind)
        for dataset in datasets:
            assert contradictions(rows, dataset) == []


def test_an_object_with_another_value_contradicts_the_statement(made, statement):
    rows = stated(statement, "MR")
    image = deepcopy(made[1]["MR"][0])
    image.SyntheticData = "NO"
    assert contradictions(rows, image) == ["('(0008,001C)',) is NO, stated YES"]
    del image.SyntheticData
    assert contradictions(rows, image) == ["('(0008,001C)',) is missing, stated ALWAYS"]
    image.SyntheticData, image.StationName = "YES", "CT1"
    assert contradictions(rows, image) == ["('(0008,1010)',) is not stated"]


def test_the_statement_follows_the_settings():
    settings = Settings(
        objects=Objects(
            mr="enhanced", map_precision="float32", companions=("PM", "SR"), uncertain_above=0.1
        )
    )
    document = conformance_statement(settings)
    source = head_ct(rows=16, columns=16, pixel_spacing_mm=(14.0, 14.0),
                     slice_distances_mm=(0.0, 12.0, 24.0))  # fmt: skip
    options = ObjectOptions(mr="enhanced", map_precision="float32", companions=("PM", "PR", "SR"))
    derived = write(synthetic_volume(source), source, provenance(), (), options)
    for each in derived.instances:
        rows = stated(document, each.kind)
        assert contradictions(rows, dcmread(BytesIO(each.content))) == []
    text = as_markdown(document)
    assert "| Enhanced MR Image Storage | 1.2.840.10008.5.1.4.1.1.4.1 | Y |" in text
    assert "| Segmentation Storage | 1.2.840.10008.5.1.4.1.1.66.4 | Y |" not in text


def test_the_command_names_the_systems_of_the_settings_in_both_formats(tmp_path: Path):
    config = tmp_path / "node.toml"
    config.write_text(
        '[receiver]\nae_title = "SYNTHMR"\n[[receiver.peers]]\nae_title = "CT1"\n'
        '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        'confirmation = "commitment"\n'
    )
    for form in ("markdown", "html"):
        out = tmp_path / form
        arguments = ["conformance", "--config", config, "--format", form, "--out", out]
        assert CliRunner().invoke(cli.program, list(map(str, arguments))).exit_code == 0
        page = out.read_text(encoding="utf-8")
        for word in ("SYNTHMR", "CT1", "PACS@127.0.0.1:104", "7.2.1.4 Association acceptance"):
            assert word in page
    line = "| 1.2.2 Storage Commitment Push Model | 1.2.840.10008.1.20.1 | Y | N | Y |"
    assert line in (tmp_path / "markdown").read_text(encoding="utf-8")


def test_no_text_of_a_table_is_markup():
    for text in INJECTIONS:
        table = TableBlock(caption=text, head=("a", "b"), rows=((text, "x"),))
        section = SectionBlock(number="1", title="T", content=(text, table))
        document = StatementDocument(title="T", cover=(), sections=(section,))
        other = TableBlock(caption="x", head=("a", "b"), rows=(("x", "x"),))
        plain = replace(document, sections=(replace(section, content=("x", other)),))
        assert as_html(document).count("<td") == as_html(plain).count("<td")
        assert "<script" not in as_html(document) + as_markdown(document)
        rows = [line for line in as_markdown(document).splitlines() if line.startswith("| ")]
        assert len(rows) == 3
        assert json.dumps(rows[2].replace("\\|", "")).count("|") == 3
