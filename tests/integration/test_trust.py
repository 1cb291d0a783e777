"""Whose bundles the node takes, and that it does not go back."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from rebrain_node.app import compose
from rebrain_node.app.model_check import activate_bundle
from rebrain_node.domain.audit import Event
from rebrain_node.domain.release import Release
from rebrain_node.errors import BundleError, SettingsError
from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.model.signature import make_key, read_private_key, sign_bundle
from rebrain_node.settings import Model, Settings, Storage
from rebrain_node.trust import refuse_older, signer_of, trusted_keys
from tests.support.plain_bundle import plain_contents, tiny_network_contents


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Public key of a site; the private one lies beside it."""
    make_key(tmp_path / "site.key", tmp_path / "site.pub")
    return tmp_path / "site.pub"


def _signed(folder: Path, version: str, key: Path, contents: dict[str, bytes]) -> Path:
    write_bundle(folder, "rebrain-demo", version, contents)
    sign_bundle(load_bundle(folder), read_private_key(key.with_suffix(".key")))
    return folder


def _settings(tmp_path: Path, **model: object) -> Settings:
    return Settings(model=Model(**model), storage=Storage(folder=tmp_path / "state"))


@pytest.mark.hazard("H17")
def test_the_bundle_that_ships_is_signed_by_the_key_that_ships() -> None:
    settings = Settings()

    found = compose.open_bundle(settings).bundle

    assert signer_of(settings, found).name == "demo"


@pytest.mark.hazard("H17")
def test_a_bundle_that_a_key_of_the_site_signed_is_taken(tmp_path: Path, site: Path) -> None:
    folder = _signed(tmp_path / "b", "2.0", site, plain_contents())

    with pytest.raises(BundleError, match=r"untrusted key [0-9a-f]{64}; trusted are demo;"):
        compose.open_bundle(_settings(tmp_path, bundle=folder))
    trusting = _settings(tmp_path, bundle=folder, trusted_keys=(site,))
    assert signer_of(trusting, compose.open_bundle(trusting).bundle).name == "site"


@pytest.mark.hazard("H17")
def test_an_unsigned_bundle_is_taken_only_where_the_settings_say_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", "tiny", "0.1", plain_contents())

    with pytest.raises(BundleError, match=r"tiny 0\.1 is not signed.*model\.unsigned"):
        compose.open_bundle(_settings(tmp_path, bundle=tmp_path / "b"))
    accepting = _settings(tmp_path, bundle=tmp_path / "b", unsigned="accept")
    assert signer_of(accepting, compose.open_bundle(accepting).bundle) is None


@pytest.mark.hazard("H17")
def test_where_unsigned_bundles_are_accepted_an_untrusted_signature_is_not(
    tmp_path: Path, site: Path
) -> None:
    folder = _signed(tmp_path / "b", "2.0", site, plain_contents())

    with pytest.raises(BundleError, match="signed with the untrusted key"):
        compose.open_bundle(_settings(tmp_path, bundle=folder, unsigned="accept"))


def test_a_trusted_key_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "empty.pub").write_bytes(b"")

    with pytest.raises(
        SettingsError, match=r"model\.trusted_keys: .*empty\.pub is not a public key"
    ):
        trusted_keys(_settings(tmp_path, trusted_keys=(tmp_path / "empty.pub",)))
    with pytest.raises(SettingsError, match=r"model\.trusted_keys .*absent\.pub: No such file"):
        trusted_keys(_settings(tmp_path, trusted_keys=(tmp_path / "absent.pub",)))


def _release(version: str, digest: str = "a") -> Release:
    return Release(name="t1", version=version, digest=digest * 64)


@pytest.mark.parametrize(
    ("version", "digest", "known", "message"),
    [
        ("1.0.0", "a", [], None),
        ("1.10", "a", ["1.9"], None),
        ("1.9", "a", ["1.10"], r"t1 1\.9 .* is older than t1 1\.10 "),
        ("1.0", "b", ["1.0.0"], None),  # the very same bundle again
        ("1.0", "a", ["1.0.0"], r"another release of the same version"),
        ("2", "a", ["1.0", "3", "2.5"], r"older than t1 3 "),
        ("0", "a", ["0.0.1"], r"older than"),
    ],
)
def test_only_a_later_version_follows(
    version: str, digest: str, known: list[str], message: str | None
) -> None:
    found, before = _release(version, digest), [_release(each, "b") for each in known]
    if message is None:
        refuse_older(found, before, None)
        return
    with pytest.raises(BundleError, match=message):
        refuse_older(found, before, "c" * 64)
    refuse_older(found, before, found.digest)


def _running(tmp_path: Path, site: Path, version: str, **files: bytes) -> Settings:
    """Settings with a bundle in force whose tiny network really runs."""
    contents = plain_contents() | tiny_network_contents() | files
    folder = _signed(tmp_path / version, version, site, contents)
    return _settings(tmp_path, bundle=folder, trusted_keys=(site,))


@pytest.mark.hazard("H17")
def test_a_node_does_not_go_back_to_an_older_bundle_unless_it_is_named(
    tmp_path: Path, site: Path
) -> None:
    older, newer = (_running(tmp_path, site, version) for version in ("1.9", "1.10"))
    digest = compose.open_bundle(older).bundle.digest
    named = _settings(
        tmp_path, bundle=older.model.bundle, trusted_keys=(site,), accept_older=digest
    )
    with compose.open_state(older) as state:
        for settings in (older, newer):
            activate_bundle(settings, state)
        with pytest.raises(BundleError, match=r"1\.9 .* is older than rebrain-demo 1\.10 "):
            activate_bundle(older, state)
        for settings in (newer, named):
            activate_bundle(settings, state)
        events = state.audit.events(10)

    assert [(str(event.event), event.details.get("version")) for event in events] == [
        ("bundle.verified", "1.9"),
        ("bundle.verified", "1.10"),
        ("bundle.refused", None),
        ("bundle.verified", "1.10"),
        ("bundle.verified", "1.9"),
    ]
    assert events[0].subject == digest
    assert events[0].details["signed_by"]["name"] == "site"
    assert "model.accept_older" in events[2].details["reason"]


@pytest.mark.hazard("H17")
@pytest.mark.parametrize("output", ["f", "f_guided"])
def test_a_bundle_whose_golden_output_deviates_bars_nobody_s_way_back(
    tmp_path: Path, site: Path, output: str
) -> None:
    golden = load(tiny_network_contents()["golden.safetensors"])
    golden[output] = golden[output] * np.float32(1.1)
    good = _running(tmp_path, site, "1.0")
    deviating = _running(tmp_path, site, "2.0", **{"golden.safetensors": save(golden)})
    with compose.open_state(good) as state:
        with pytest.raises(BundleError, match="deviates by"):
            activate_bundle(deviating, state)
        activate_bundle(good, state)
        events = [str(event.event) for event in state.audit.events(10)]

    assert events == ["bundle.refused", "bundle.verified"]


def test_what_is_no_version_in_an_old_log_bars_nothing(tmp_path: Path) -> None:
    with compose.open_state(_settings(tmp_path)) as state:
        for version in ("9.0-beta", "1.0"):
            told = {"name": "t1", "version": version}
            state.audit.record(Event.BUNDLE_VERIFIED, "a" * 64, told)
        state.audit.record(Event.BUNDLE_VERIFIED, "a" * 64, told)
        state.audit.record(Event.BUNDLE_VERIFIED, "b" * 64, {"name": "t2", "version": "3"})

        assert state.releases.named("t1") == (_release("1.0"),)
