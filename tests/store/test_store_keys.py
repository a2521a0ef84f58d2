"""Signing keys: files, permissions, passphrases, trust."""

from __future__ import annotations

import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fingerprint.errors import KeyFileError
from store.home import Home
from store.keys import (
    Signer,
    generate,
    is_encrypted,
    key_id,
    load_public,
    load_signer,
    trust,
    trusted_keys,
)
from store.pkcs8 import encrypted_pem

PASSPHRASE = "correct horse ☃".encode()

# RFC 8032, section 7.1, tests 1 to 3: secret key, public key, message, signature
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert signer.public.public_bytes_raw().hex() == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature


def test_key_id_is_the_digest_of_the_spki(tmp_path: Path) -> None:
    import base64
    import hashlib

    paths = generate(tmp_path, None)
    der = base64.b64decode("".join(paths.public.read_text().splitlines()[1:-1]))
    assert key_id(load_public(paths.public)) == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_round_trip(tmp_path: Path, passphrase: bytes | None) -> None:
    paths = generate(tmp_path / "keys", passphrase)
    assert paths.private.name == "fingerprint.key"
    assert stat.S_IMODE(paths.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.private.parent.stat().st_mode) == 0o700
    assert is_encrypted(paths.private) == (passphrase is not None)
    signer = load_signer(paths.private, passphrase)
    assert signer.key_id == key_id(load_public(paths.public))
    signer.public.verify(signer.sign(b"data"), b"data")
    assert sorted(p.name for p in paths.private.parent.iterdir()) == ["fingerprint.key", "fingerprint.pub"]


def test_a_passphrase_for_an_open_key_is_ignored(tmp_path: Path) -> None:
    assert load_signer(generate(tmp_path, None).private, b"not needed")


def test_repr_shows_the_key_id_only(signer: Signer) -> None:
    assert repr(signer) == f"Signer({signer.key_id})"


@pytest.mark.parametrize("which", ["fingerprint.key", "fingerprint.pub"])
def test_never_overwrites(tmp_path: Path, which: str) -> None:
    (tmp_path / which).write_text("mine")
    with pytest.raises(KeyFileError, match="exists already"):
        generate(tmp_path, None)
    assert [p.name for p in tmp_path.iterdir()] == [which]
    assert (tmp_path / which).read_text() == "mine"


def test_overwrites_when_told_to(tmp_path: Path) -> None:
    first = load_signer(generate(tmp_path, None).private, None)
    second = generate(tmp_path, None, overwrite=True)
    assert load_signer(second.private, None).key_id == key_id(load_public(second.public)) != first.key_id


def test_empty_passphrase(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="empty"):
        generate(tmp_path, b"")
    assert not list(tmp_path.iterdir())


def test_wrong_and_missing_passphrase(tmp_path: Path) -> None:
    private = generate(tmp_path, PASSPHRASE).private
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        load_signer(private, b"guess")
    for missing in (None, b""):
        with pytest.raises(KeyFileError, match="needs a passphrase"):
            load_signer(private, missing)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_open_permissions_are_refused(tmp_path: Path, mode: int) -> None:
    private = generate(tmp_path, None).private
    private.chmod(mode)
    with pytest.raises(KeyFileError, match="open to other users") as caught:
        load_signer(private, None)
    assert f"chmod 600 {private}" in caught.value.remedy


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_files_that_are_no_private_key(tmp_path: Path) -> None:
    paths = generate(tmp_path, None)
    other = _rsa().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cases = {
        "not a private key": b"hello",
        "can't read the key file": b"x" * 1_000_000,
        "neither an Ed25519 nor an ECDSA P-256 key": other,
        "is a public key": paths.public.read_bytes(),
        "is not a private key": paths.private.read_bytes()[:60],
    }
    for message, data in cases.items():
        with pytest.raises(KeyFileError, match=message):
            load_signer(_write(tmp_path / "case", data), None)
    with pytest.raises(KeyFileError, match="there is no key file"):
        load_signer(tmp_path / "absent", None)
    with pytest.raises(KeyFileError, match="can't read"):
        load_signer(tmp_path, None)
    with pytest.raises(KeyFileError, match="there is no key file"):
        is_encrypted(tmp_path / "absent")


def test_files_that_are_no_public_key(tmp_path: Path) -> None:
    paths = generate(tmp_path, None)
    other = (
        _rsa().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    cases = {
        "not a public key": b"hello",
        "neither an Ed25519 nor an ECDSA P-256 key": other,
        "is a private key": paths.private.read_bytes(),
    }
    for message, data in cases.items():
        with pytest.raises(KeyFileError, match=message):
            load_public(_write(tmp_path / "case", data))
    with pytest.raises(KeyFileError, match="there is no key file"):
        load_public(tmp_path / "absent")


def test_halves_of_two_pairs(tmp_path: Path) -> None:
    first, second = generate(tmp_path / "a", None), generate(tmp_path / "b", None)
    shutil.copy(second.public, first.public)
    with pytest.raises(KeyFileError, match="are not a pair"):
        load_signer(first.private, None)
    first.public.write_text("ssh-ed25519 AAAA somebody else's file")
    assert load_signer(first.private, None)
    first.public.unlink()
    assert load_signer(first.private, None)


def test_any_change_to_an_encrypted_key_is_seen(tmp_path: Path) -> None:
    private = generate(tmp_path, PASSPHRASE).private
    identity, data = load_signer(private, PASSPHRASE).key_id, private.read_bytes()
    for position in range(5, len(data), 61):
        changed = bytes([data[position] ^ 1])
        _write(private, data[:position] + changed + data[position + 1 :])
        with suppress(KeyFileError):
            assert load_signer(private, PASSPHRASE).key_id == identity  # a byte outside of the key itself


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_reads_both_files(tmp_path: Path) -> None:
    paths = generate(tmp_path, b"pass")
    command = ["openssl", "pkey", "-in", str(paths.private), "-passin", "pass:pass", "-pubout"]
    done = subprocess.run(command, capture_output=True, check=False)
    if b"nsupported" in done.stderr:
        pytest.skip("this openssl knows no Ed25519 or scrypt")
    assert done.stdout == paths.public.read_bytes()


def test_long_contents_are_encoded_too() -> None:
    for size in (1, 200, 300):  # every form of a DER length
        lines = encrypted_pem(bytes(size), b"x").splitlines()
        assert lines[0] == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
        assert max(map(len, lines[1:-1])) <= 64


def test_the_cost_of_guessing_a_passphrase(tmp_path: Path) -> None:
    import base64

    der = base64.b64decode("".join(generate(tmp_path, PASSPHRASE).private.read_text().splitlines()[1:-1]))
    scrypt = "06092b06010401da47040b"
    assert bytes.fromhex(scrypt) in der
    assert bytes.fromhex("02024000020108020105") in der  # N = 2**14, r = 8, p = 5


def test_trust(tmp_path: Path, home: Home) -> None:
    assert trusted_keys(home) == {}
    assert not home.path.exists()
    first, second = generate(tmp_path / "a", None), generate(tmp_path / "b", None)
    copy = trust(home, first.public)
    identity = key_id(load_public(first.public))
    assert copy == home.trusted / f"{identity[:16]}.pub"
    assert trust(home, first.public) == copy
    assert list(trusted_keys(home)) == [identity]
    both = trusted_keys(home, [second.public])
    assert both.keys() == {identity, key_id(load_public(second.public))}
    (home.trusted / "note.txt").write_text("ignored")
    assert list(trusted_keys(home)) == [identity]
    (home.trusted / "bad.pub").write_text("not a key")
    with pytest.raises(KeyFileError, match=r"bad\.pub"):
        trusted_keys(home)
    with pytest.raises(KeyFileError, match="is a private key"):
        trust(home, first.private)
