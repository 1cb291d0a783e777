"""Ways to tamper with a released bundle: each takes its folder, a random generator, a `Stock`.

Each changes the content of the folder; none leaves the newest release of the trusted key.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rebrain_node.model.bundle import EXEMPLARS, MANIFEST, SIGNATURE, FileRecord
from rebrain_node.model.signature import PrivateKey, sign

Contents = Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Stock:
    """Material for the tamperings.

    Attributes
    ----------
    other, older, twin : mapping of str to bytes
        Whole bundles of the trusted key: of another name, of an earlier version, of the same.
    untrusted, releaser : PrivateKey
        An untrusted key; the trusted one, for manifests that it should not have signed.
    """

    other: Contents
    older: Contents
    twin: Contents
    untrusted: PrivateKey
    releaser: PrivateKey


Tampering = Callable[[Path, random.Random, Stock], None]


def files_of(folder: Path) -> list[Path]:
    """Every file of a bundle's folder, in an order that does not depend on the disk."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def fill(folder: Path, contents: Contents) -> None:
    """Write a whole bundle."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _one(folder: Path, chance: random.Random) -> Path:
    return chance.choice(files_of(folder))


def _rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    before = file.read_bytes()
    after = change(before)
    assert after != before
    file.write_bytes(after)


def _rehash(folder: Path, name: str) -> None:
    """Record the present content of a file in the manifest."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = FileRecord.of((folder / name).read_bytes()).model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _named(folder: Path, chance: random.Random) -> str:
    """Name of a file that is checked against the manifest only."""
    return chance.choice(["weights.safetensors", "network.onnx", "control.onnx", "CARD.md"])


def _sign_with(folder: Path, key: PrivateKey) -> None:
    (folder / SIGNATURE).write_bytes(sign((folder / MANIFEST).read_bytes(), key))


def flip_a_bit(folder, chance, stock):
    def change(content):
        at = chance.randrange(8 * len(content))
        return (int.from_bytes(content) ^ 1 << at).to_bytes(len(content))

    _rewrite(_one(folder, chance), change)


def change_a_byte(folder, chance, stock):
    def change(content):
        at = chance.randrange(len(content))
        other = (content[at] + chance.randint(1, 255)) % 256
        return content[:at] + bytes([other]) + content[at + 1 :]

    _rewrite(_one(folder, chance), change)


def cut_the_end(folder, chance, stock):
    _rewrite(_one(folder, chance), lambda content: content[: chance.randrange(len(content))])


def add_to_the_end(folder, chance, stock):
    more = chance.choice([b"\n", b" ", b"\0", chance.randbytes(chance.randint(1, 99))])
    _rewrite(_one(folder, chance), lambda content: content + more)


def put_bytes_in(folder, chance, stock):
    def change(content):
        at = chance.randint(0, len(content))
        return content[:at] + chance.randbytes(chance.randint(1, 9)) + content[at:]

    _rewrite(_one(folder, chance), change)


def change_line_ends(folder, chance, stock):
    name = chance.choice([MANIFEST, SIGNATURE, "recipe.json", "CARD.md"])
    _rewrite(folder / name, lambda content: content.replace(b"\n", b"\r\n") + b"\r\n")


def delete_a_file(folder, chance, stock):
    _one(folder, chance).unlink()


def add_a_file(folder, chance, stock):
    where = folder / chance.choice(["", EXEMPLARS])
    name = chance.choice(["weights.pt", ".hidden", "run.py", "more.npy", "manifest.json.bak"])
    (where / name).write_bytes(chance.randbytes(chance.randint(0, 20)))


def add_a_folder(folder, chance, stock):
    where = folder / chance.choice(["", EXEMPLARS])
    (where / chance.choice(["__pycache__", "more", ".git"])).mkdir()


def exchange_two_files(folder, chance, stock):
    one, two = chance.sample(files_of(folder), 2)
    first, second = one.read_bytes(), two.read_bytes()
    assert first != second
    one.write_bytes(second)
    two.write_bytes(first)


def take_a_file_of_another_bundle(folder, chance, stock):
    bundle = chance.choice([stock.other, stock.older, stock.twin])
    name = chance.choice([n for n in bundle if bundle[n] != (folder / n).read_bytes()])
    (folder / name).write_bytes(bundle[name])


def take_manifest_and_signature_of_another_bundle(folder, chance, stock):
    bundle = chance.choice([stock.other, stock.older, stock.twin])
    fill(folder, {name: bundle[name] for name in (MANIFEST, SIGNATURE)})


def rename_a_file(folder, chance, stock):
    file = _one(folder, chance)
    file.rename(file.with_name(chance.choice([f"{file.name}x", file.name.upper() + "1", "a b"])))


def link_a_file(folder, chance, stock):
    file = _one(folder, chance)
    elsewhere = folder.parent / f"linked-{file.name}"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def link_the_exemplars(folder, chance, stock):
    elsewhere = folder.parent / f"linked-{EXEMPLARS}"
    (folder / EXEMPLARS).rename(elsewhere)
    (folder / EXEMPLARS).symlink_to(elsewhere)


def replace_a_file_by_a_folder(folder, chance, stock):
    file = _one(folder, chance)
    file.unlink()
    file.mkdir()


def replace_a_file_by_a_pipe(folder, chance, stock):
    file = _one(folder, chance)
    file.unlink()
    os.mkfifo(file)


def change_json_indentation(folder, chance, stock):
    name = chance.choice([MANIFEST, SIGNATURE, "recipe.json", "card.json"])
    indent = chance.choice([None, 1, 3, 4])
    _rewrite(folder / name, lambda text: json.dumps(json.loads(text), indent=indent).encode())


def reverse_json_order(folder, chance, stock):
    def change(text):
        items = list(json.loads(text).items())
        return (json.dumps(dict(reversed(items)), indent=2) + "\n").encode()

    _rewrite(folder / chance.choice([MANIFEST, SIGNATURE]), change)


def repeat_a_json_key(folder, chance, stock):
    file = folder / chance.choice([MANIFEST, SIGNATURE])
    _rewrite(file, lambda text: text.replace(b"{", b'{\n  "format": 1,', 1))


def write_the_signature_in_upper_case(folder, chance, stock):
    def change(text):
        signature = json.loads(text)
        field = chance.choice(["key", "signature"])
        return (json.dumps(signature | {field: signature[field].upper()}, indent=2) + "\n").encode()

    _rewrite(folder / SIGNATURE, change)


def edit_the_manifest(folder, chance, stock):
    changes = [{"name": "tiny-2"}, {"version": "9.9"}, {"version": "0.1"}, {"format": 2}]

    def change(text):
        return (json.dumps(json.loads(text) | chance.choice(changes), indent=2) + "\n").encode()

    _rewrite(folder / MANIFEST, change)


def alter_and_rehash(folder, chance, stock):
    name = _named(folder, chance)
    _rewrite(folder / name, lambda content: content + chance.randbytes(3))
    _rehash(folder, name)


def alter_rehash_and_sign_with_an_untrusted_key(folder, chance, stock):
    alter_and_rehash(folder, chance, stock)
    _sign_with(folder, stock.untrusted)


def alter_rehash_and_leave_unsigned(folder, chance, stock):
    alter_and_rehash(folder, chance, stock)
    (folder / SIGNATURE).unlink()


def alter_rehash_sign_and_claim_the_trusted_key(folder, chance, stock):
    key = json.loads((folder / SIGNATURE).read_bytes())["key"]
    alter_rehash_and_sign_with_an_untrusted_key(folder, chance, stock)
    signature = json.loads((folder / SIGNATURE).read_bytes()) | {"key": key}
    (folder / SIGNATURE).write_text(json.dumps(signature, indent=2) + "\n")


def sign_with_an_untrusted_key(folder, chance, stock):
    _sign_with(folder, stock.untrusted)


def remove_the_signature(folder, chance, stock):
    (folder / SIGNATURE).unlink()


def restore_the_older_bundle(folder, chance, stock):
    fill(folder, stock.older)


def replace_by_another_of_the_same_version(folder, chance, stock):
    fill(folder, stock.twin)


def release_an_unknown_format(folder, chance, stock):
    manifest = json.loads((folder / MANIFEST).read_bytes()) | {"format": chance.choice([0, 2, "1"])}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    _sign_with(folder, stock.releaser)


def release_a_path_outside_the_bundle(folder, chance, stock):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    name = chance.choice(["../stolen", "/etc/hostname", "exemplars/../../stolen.npy", "a/b.npy"])
    manifest["files"][name] = FileRecord.of(b"").model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    _sign_with(folder, stock.releaser)


TAMPERINGS: tuple[Tampering, ...] = (
    flip_a_bit,
    change_a_byte,
    cut_the_end,
    add_to_the_end,
    put_bytes_in,
    change_line_ends,
    delete_a_file,
    add_a_file,
    add_a_folder,
    exchange_two_files,
    take_a_file_of_another_bundle,
    take_manifest_and_signature_of_another_bundle,
    rename_a_file,
    link_a_file,
    link_the_exemplars,
    replace_a_file_by_a_folder,
    replace_a_file_by_a_pipe,
    change_json_indentation,
    reverse_json_order,
    repeat_a_json_key,
    write_the_signature_in_upper_case,
    edit_the_manifest,
    alter_and_rehash,
    alter_rehash_and_sign_with_an_untrusted_key,
    alter_rehash_and_leave_unsigned,
    alter_rehash_sign_and_claim_the_trusted_key,
    sign_with_an_untrusted_key,
    remove_the_signature,
    restore_the_older_bundle,
    replace_by_another_of_the_same_version,
    release_an_unknown_format,
    release_a_path_outside_the_bundle,
)
