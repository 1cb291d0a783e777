"""The signature of a bundle names its signer, or the bundle is refused."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from rebrain_node.errors import BundleError, KeyFileError
from rebrain_node.model.bundle import MANIFEST, SIGNATURE, ModelBundle, load_bundle, write_bundle
from rebrain_node.model.signature import (
    PrivateKey,
    Signer,
    make_key,
    read_private_key,
    read_public_key,
    sign_bundle,
    signing_key,
    trusted_signer,
)
from tests.support.plain_bundle import plain_contents

KEY = PrivateKey.from_private_bytes(b"1" * 32)
UNTRUSTED = PrivateKey.from_private_bytes(b"2" * 32)
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def _bundle(folder: Path, version: str = "0.1") -> ModelBundle:
    write_bundle(folder, "tiny", version, plain_contents())
    return load_bundle(folder)


def test_signing_names_the_signer_and_changes_no_digest(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "b")

    signed = sign_bundle(bundle, KEY)

    assert signing_key(bundle) is None
    assert signing_key(signed) == PUBLIC
    assert signed.digest == bundle.digest
    assert trusted_signer(signed, {PUBLIC: "site"}) == Signer(name="site", key=PUBLIC)


def test_a_bundle_is_signed_once(tmp_path: Path) -> None:
    signed = sign_bundle(_bundle(tmp_path / "b"), KEY)

    with pytest.raises(BundleError, match="signed already; remove it"):
        sign_bundle(signed, UNTRUSTED)
    assert signing_key(load_bundle(tmp_path / "b")) == PUBLIC


def test_an_untrusted_signer_is_named(tmp_path: Path) -> None:
    signed = sign_bundle(_bundle(tmp_path / "b"), KEY)

    with pytest.raises(
        BundleError, match=rf"untrusted key {PUBLIC}; trusted are demo, site;.*trusted_keys"
    ):
        trusted_signer(signed, {"a" * 64: "site", "b" * 64: "demo"})


def test_the_signature_of_another_bundle_is_refused(tmp_path: Path) -> None:
    sign_bundle(_bundle(tmp_path / "b"), KEY)
    sign_bundle(_bundle(tmp_path / "other", "0.2"), KEY)
    shutil.copy(tmp_path / "other" / SIGNATURE, tmp_path / "b" / SIGNATURE)

    with pytest.raises(BundleError, match=r"did not sign this manifest\.json"):
        signing_key(load_bundle(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"manifest\.sig: format: .*found 2"),
        ({"algorithm": "none"}, r"manifest\.sig: algorithm: "),
        ({"key": "0" * 63}, r"manifest\.sig: key: "),
        ({"key": "f" * 64}, "did not sign"),  # no point of the curve
        ({"signature": "0" * 128}, "did not sign"),
        ({"more": 1}, r"manifest\.sig: more is unknown"),
        ({"key": PUBLIC.upper()}, r"manifest\.sig: key: "),
    ],
)
def test_a_signature_of_another_form_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    sign_bundle(_bundle(tmp_path / "b"), KEY)
    file = tmp_path / "b" / SIGNATURE
    file.write_text(json.dumps(json.loads(file.read_bytes()) | changes, indent=2) + "\n")

    with pytest.raises(BundleError, match=message):
        signing_key(load_bundle(tmp_path / "b"))


def test_a_pair_of_keys_is_for_its_owner_and_never_overwritten(tmp_path: Path) -> None:
    private, public = tmp_path / "site.key", tmp_path / "site.pub"

    found = make_key(private, public)

    assert private.stat().st_mode & 0o777 == 0o600
    assert read_public_key(public.read_bytes(), public) == found
    assert read_private_key(private).public_key().public_bytes_raw().hex() == found
    before = private.read_bytes()
    for missing in (public, private):
        missing.unlink()
        with pytest.raises(KeyFileError, match="never overwritten"):
            make_key(private, public)
        assert not missing.exists()
        missing.write_bytes(before)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_keys_we_read_and_checks_signatures_we_write(tmp_path: Path) -> None:
    def openssl(*arguments: object) -> str:
        command = ["openssl", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    private, public, raw = (tmp_path / name for name in ("site.key", "site.pub", "raw.sig"))
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    private.chmod(0o600)
    signed = sign_bundle(_bundle(tmp_path / "b"), read_private_key(private))
    raw.write_bytes(bytes.fromhex(json.loads(signed.read(SIGNATURE))["signature"]))

    told = openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", public,
        "-rawin", "-in", tmp_path / "b" / MANIFEST, "-sigfile", raw,
    )  # fmt: skip

    assert "Verified Successfully" in told
    assert signing_key(signed) == read_public_key(public.read_bytes(), public)


def _private(key: object, password: bytes | None = None) -> bytes:
    protection = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (_private(KEY), 0o640, r"mode 640.*chmod 600"),
        (_private(KEY, b"secret"), 0o600, "not an unencrypted private key in PEM"),
        (_private(ec.generate_private_key(ec.SECP256R1())), 0o600, "another kind"),
        (b"no key", 0o600, "not an unencrypted private key in PEM"),
    ],
)
def test_a_private_key_that_cannot_sign_or_is_open_is_refused(
    tmp_path: Path, content: bytes, mode: int, message: str
) -> None:
    (tmp_path / "site.key").write_bytes(content)
    (tmp_path / "site.key").chmod(mode)

    with pytest.raises(KeyFileError, match=message):
        read_private_key(tmp_path / "site.key")


def test_a_private_key_that_is_missing_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"absent\.key: .*rebrain-train key"):
        read_private_key(tmp_path / "absent.key")


def test_a_public_key_of_another_kind_or_none_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(KeyFileError, match="another kind"):
        read_public_key(pem, Path("ec.pub"))
    with pytest.raises(KeyFileError, match=r"site\.key is not a public key"):
        read_public_key(_private(KEY), Path("site.key"))
