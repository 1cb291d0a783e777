"""A set is held against its signed manifest: what was altered, added or removed is named."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

from rebrain_node.app.compose import make_audit_key, open_state
from rebrain_node.cli import program
from rebrain_node.domain.job import DerivedSet
from rebrain_node.domain.set_manifest import parse_manifest
from rebrain_node.folder import write_out
from rebrain_node.model.keys import PUBLIC_FILE, make_node_key, node_key
from rebrain_node.settings import Settings, Storage
from rebrain_node.steps.sign import NodeSigner, sign
from rebrain_node.steps.write import ObjectOptions, write
from rebrain_node.store.outbox import ResultOptions
from tests.support.phantoms import head_ct
from tests.support.store_cases import accept, received
from tests.support.synthetic_volumes import provenance, synthetic_volume

SERIES, STUDY = "1.2.1.1", "1.2.1"


@pytest.fixture(scope="module")
def derived() -> DerivedSet:
    source = head_ct()
    volume = synthetic_volume(source, rows=32, columns=32)
    return write(volume, source, provenance(), (), ObjectOptions())


@pytest.fixture(scope="module")
def key_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("key")
    make_node_key(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(derived, key_folder):
    return sign(derived, NodeSigner(ae_title="REBRAIN", key=node_key(key_folder)))


@pytest.fixture
def folder(derived, manifest, tmp_path):
    out = tmp_path / "out"
    write_out(derived, manifest, out)
    return out


@pytest.fixture
def verify(key_folder, tmp_path):
    """Run `verify` on a machine that has no node and knows the key."""
    config = tmp_path / "none.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path}/none"\n')

    def run(*arguments, key=True, config=config):
        given = ["--key", str(key_folder / PUBLIC_FILE)] if key else []
        words = ["verify", *map(str, arguments), *given, "--config", str(config), "--json"]
        result = CliRunner().invoke(program, words)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        answer = json.loads(result.stdout)
        return result.exit_code, answer["sets"]

    return run


def altered(path, change, **options):
    data_set = dcmread(path)
    change(data_set)
    data_set.save_as(path, enforce_file_format=True, **options)
    return str(path)


def one_image(folder):
    return sorted(folder.glob("MR-*.dcm"))[2]


def found(files):
    return {each["path"]: each["integrity"] for each in files if each["integrity"] != "unaltered"}


def test_a_set_as_it_was_made_is_proven_and_says_by_whom(folder, verify, manifest, derived) -> None:
    code, (made,) = verify(folder)
    assert code == 0
    assert made["signature"] == "trusted"
    assert (made["node"], made["bundle"], made["revision"]) == ("REBRAIN", manifest.bundle, 1)
    assert made["set_digest"] == derived.provenance.digest
    assert made["objects"] == len(made["files"]) == len(derived.instances)
    assert (found(made["files"]), made["missing"]) == ({}, [])


def test_a_changed_pixel_is_found(folder, verify) -> None:
    def change(data_set):
        pixels = bytearray(data_set.PixelData)
        pixels[len(pixels) // 2] ^= 1
        data_set.PixelData = bytes(pixels)

    path = altered(one_image(folder), change)
    code, (made,) = verify(folder)
    assert (code, found(made["files"])) == (4, {path: "pixels altered"})


@pytest.mark.parametrize(
    ("group", "element", "value"),
    [(0x0010, 0x0010, "OTHER^NAME"), (0x0020, 0x0013, 99), (0x0008, 0x103E, "T1")],
)
def test_a_changed_header_is_found(folder, verify, group, element, value) -> None:
    def change(data_set):
        data_set[group, element].value = value

    path = altered(one_image(folder), change)
    code, (made,) = verify(folder)
    assert (code, found(made["files"])) == (4, {path: "header altered"})


def test_a_changed_provenance_in_the_private_block_is_found(folder, verify) -> None:
    def change(data_set):
        data_set.private_block(0x0071, "REBRAIN NODE 1")[0x10].value = "MEASURED?"[:8]

    path = altered(one_image(folder), change)
    code, (made,) = verify(folder)
    assert (code, found(made["files"])) == (4, {path: "header altered"})


def test_another_encoding_of_the_same_object_is_no_alteration(folder, verify) -> None:
    def change(data_set):
        data_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        data_set.file_meta.ImplementationVersionName = "AN_ARCHIVE"

    paths = [altered(path, change, implicit_vr=True) for path in folder.glob("MR-*.dcm")]
    code, (made,) = verify(folder)
    assert (code, found(made["files"])) == (0, dict.fromkeys(paths, "unaltered, encoded anew"))


def test_an_added_object_is_named(folder, verify) -> None:
    data_set = dcmread(one_image(folder))
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data_set.save_as(folder / "more.dcm")
    code, (made,) = verify(folder)
    assert (code, found(made["files"])) == (4, {str(folder / "more.dcm"): "added"})


def test_a_missing_object_is_named_where_a_folder_is_asked(folder, verify) -> None:
    removed = one_image(folder)
    uid = str(dcmread(removed).SOPInstanceUID)
    removed.unlink()
    code, (made,) = verify(folder)
    assert (code, made["missing"]) == (4, [uid])
    code, (made,) = verify(one_image(folder))
    assert (code, made["missing"]) == (0, [])
    for path in folder.glob("*.dcm"):
        path.unlink()
    code, (made,) = verify(folder)
    assert (code, len(made["missing"])) == (4, made["objects"])


def test_an_altered_manifest_is_found(folder, verify, manifest) -> None:
    path = folder / manifest.file_name
    path.write_text(path.read_text().replace('"node": "REBRAIN"', '"node": "OTHER"'))
    code, (made,) = verify(folder)
    assert (code, made["signature"]) == (4, "false")


def test_a_manifest_of_a_key_that_is_not_trusted_proves_nothing(
    folder, verify, derived, manifest, tmp_path
) -> None:
    code, (made,) = verify(folder, key=False)
    assert (code, made["signature"]) == (0, "of an unknown key")
    code, _ = verify(folder, "--manifest", folder / manifest.file_name, key=False)
    assert code == 4
    own = tmp_path / "own"
    own.mkdir()
    make_node_key(own)
    forged = sign(derived, NodeSigner(ae_title="REBRAIN", key=node_key(own)))
    (folder / manifest.file_name).write_text(forged.text)
    assert verify(folder)[1][0]["signature"] == "of an unknown key"
    unsigned = sign(derived, NodeSigner(ae_title="REBRAIN", key=None))
    (folder / manifest.file_name).write_text(unsigned.text)
    assert verify(folder)[1][0]["signature"] == "none"
    assert verify(folder, "--manifest", folder / manifest.file_name)[0] == 4


def test_what_is_no_manifest_ends_with_one_line(folder, verify, manifest) -> None:
    (folder / manifest.file_name).write_text("{}")
    with pytest.raises(Exception, match="is no set manifest"):
        verify(folder)


def test_the_same_set_gives_the_same_manifest(derived, key_folder, manifest) -> None:
    again = sign(derived, NodeSigner(ae_title="REBRAIN", key=node_key(key_folder)))
    assert again.text == manifest.text
    assert parse_manifest(manifest.text) == manifest


def test_the_node_knows_the_manifests_of_its_sets(derived, tmp_path, verify) -> None:
    settings = Settings(storage=Storage(folder=tmp_path / "state"))
    config = tmp_path / "node.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path}/state"\n')
    with open_state(settings) as state:
        make_audit_key(state)
        state.ledger.record_received(received(1, SERIES, STUDY))
        job = accept(state.ledger, SERIES, STUDY)
        signer = NodeSigner(ae_title="REBRAIN", key=node_key(state.folder))
        made = sign(derived, signer)
        number = state.outbox.put(derived, ["pacs"], job, options=ResultOptions(manifest=made.text))
        assert state.results.manifest_of(number) == made.text
    out = tmp_path / "exported"
    out.mkdir()
    for place, instance in enumerate(derived.instances):
        (out / f"{place}.dcm").write_bytes(instance.content)
    code, (held,) = verify(out, key=False, config=config)
    assert (code, held["signature"], held["missing"]) == (0, "trusted", [])
    assert held["manifest"] == "database of the node"
    printed = CliRunner().invoke(
        program, ["outbox", "manifest", str(number), "--config", str(config)]
    )
    assert printed.stdout == made.text
    data_set = dcmread(BytesIO(derived.instances[0].content))
    data_set.PatientName = "OTHER"
    data_set.save_as(out / "0.dcm", enforce_file_format=True)
    code, (held,) = verify(out, key=False, config=config)
    assert (code, found(held["files"])) == (4, {str(out / "0.dcm"): "header altered"})
