"""`rebrain-train key` and `sign`: the way from a pair of keys to a signed bundle."""

from pathlib import Path

from typer.testing import CliRunner

from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.model.signature import read_public_key, signing_key
from tests.support.plain_bundle import plain_contents
from trainer.cli import program


def test_a_key_is_made_and_signs_a_bundle_whose_digest_stays(tmp_path: Path) -> None:
    folder, private, public = tmp_path / "b", tmp_path / "site.key", tmp_path / "site.pub"
    write_bundle(folder, "tiny", "0.1", plain_contents())
    digest = load_bundle(folder).digest

    made = CliRunner().invoke(program, ["key", str(private)])
    signed = CliRunner().invoke(program, ["sign", str(folder), "--key", str(private)])

    key = read_public_key(public.read_bytes(), public)
    assert (made.exit_code, signed.exit_code) == (0, 0)
    assert key in made.output
    assert f"signed by {key}" in signed.output
    assert signing_key(load_bundle(folder)) == key
    assert load_bundle(folder).digest == digest


def test_a_private_key_is_not_called_as_a_public_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(program, ["key", str(tmp_path / "site.pub")])

    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
