"""A released bundle that was tampered with is refused."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from rebrain_node.app import compose
from rebrain_node.domain.audit import Event
from rebrain_node.errors import BundleError
from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.model.signature import PrivateKey, make_key, read_private_key, sign_bundle
from rebrain_node.settings import Model, Settings, Storage
from tests.support.plain_bundle import retrieving_contents
from tests.support.tamperings import TAMPERINGS, Contents, Stock, files_of, fill

SEED = 20261128
Check = Callable[[Path], None]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the releaser's keys."""
    folder = tmp_path_factory.mktemp("desk")
    make_key(folder / "site.key", folder / "site.pub")
    return folder


def _released(desk: Path, name: str, version: str, word: bytes) -> dict[str, bytes]:
    """The files of a signed bundle; each differs from those of the other bundles."""
    folder = desk / "made"
    contents = {
        file: content if file.endswith(".json") else content + word
        for file, content in retrieving_contents().items()
    }
    contents["card.json"] = contents["card.json"].replace(b"Tests.", b"Tests " + word)
    contents["recipe.json"] += b" " * len(word)
    write_bundle(folder, name, version, contents)
    sign_bundle(load_bundle(folder), read_private_key(desk / "site.key"))
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_of(folder)}
    shutil.rmtree(folder)
    return found


@pytest.fixture(scope="module")
def released(desk: Path) -> dict[str, bytes]:
    return _released(desk, "tiny", "0.2", b"!")


@pytest.fixture(scope="module")
def stock(desk: Path) -> Stock:
    return Stock(
        other=_released(desk, "other", "0.2", b"??"),
        older=_released(desk, "tiny", "0.1", b"..."),
        twin=_released(desk, "tiny", "0.2", b",,,,"),
        untrusted=PrivateKey.generate(),
        releaser=read_private_key(desk / "site.key"),
    )


def _node(folder: Path, desk: Path) -> Settings:
    return Settings(
        model=Model(bundle=folder, trusted_keys=(desk / "site.pub",)),
        storage=Storage(folder=desk / "state"),
    )


@pytest.fixture(scope="module")
def check(
    desk: Path, released: Contents, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Check]:
    """The node's check of a bundle before it opens an engine; `released` was the active bundle."""
    first = tmp_path_factory.mktemp("first") / "bundle"
    fill(first, released)
    with compose.open_state(_node(first, desk)) as state:
        found = compose.open_bundle(_node(first, desk)).bundle
        told = {"name": found.name, "version": found.version}
        state.audit.record(Event.BUNDLE_VERIFIED, found.digest, told)

        def refuse_altered(folder: Path) -> None:
            settings = _node(folder, desk)
            compose.refuse_rollback(settings, state, compose.open_bundle(settings).bundle.release)

        yield refuse_altered


def _passing(
    check: Check, numbers: Iterable[int], folder: Path, released: Contents, stock: Stock
) -> list[tuple[int, str]]:
    """Number and name of every tampering that a check does not refuse."""
    passed = []
    for number in numbers:
        tampering = TAMPERINGS[number % len(TAMPERINGS)]
        bundle = folder / str(number) / "bundle"
        fill(bundle, released)
        tampering(bundle, random.Random(f"{SEED} {number}"), stock)
        try:
            check(bundle)
        except BundleError:
            continue
        passed.append((number, tampering.__name__))
    return passed


@pytest.mark.hazard("H17")
@pytest.mark.parametrize("count", [320, pytest.param(1000, marks=pytest.mark.full)])
def test_every_random_tampering_is_refused(
    check: Check, count: int, tmp_path: Path, released: Contents, stock: Stock
) -> None:
    passed = _passing(check, range(count), tmp_path, released, stock)

    assert passed == [], f"seed {SEED}; each is its number in the sequence and what was done"


def test_an_unchanged_bundle_is_accepted(check: Check, tmp_path: Path, released: Contents) -> None:
    for copy in ("one", "another"):
        fill(tmp_path / copy, released)
        check(tmp_path / copy)


def test_a_check_without_signature_and_version_accepts_forgeries(
    tmp_path: Path, released: Contents, stock: Stock
) -> None:
    # Negative control: the battery can fail, and digests alone are not enough.
    def digests_alone(folder: Path) -> None:
        load_bundle(folder)

    passed = _passing(digests_alone, range(len(TAMPERINGS)), tmp_path, released, stock)

    assert {name for _, name in passed} >= {
        "alter_and_rehash",
        "alter_rehash_and_sign_with_an_untrusted_key",
        "alter_rehash_and_leave_unsigned",
        "alter_rehash_sign_and_claim_the_trusted_key",
        "sign_with_an_untrusted_key",
        "remove_the_signature",
        "restore_the_older_bundle",
        "replace_by_another_of_the_same_version",
    }
    assert len(passed) < len(TAMPERINGS) // 2
