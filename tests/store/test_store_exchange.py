"""The exported file: every byte of it counts."""

from __future__ import annotations

import base64
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import equal, make_fingerprint

from fingerprint.canonical import canonical
from fingerprint.errors import EvidenceError, NotFound, StoreError, Tampered, UntrustedSigner
from fingerprint.limits import Limits
from store import exchange
from store.keys import Keys, Signer
from store.sealing import Sealed, seal


@pytest.fixture(scope="module")
def sealed(signer: Signer) -> Sealed:
    return seal(make_fingerprint(count=2, side=1), signer)


@pytest.fixture(scope="module")
def keys(signer: Signer) -> Keys:
    return {signer.key_id: signer.public}


@pytest.fixture(scope="module")
def data(sealed: Sealed) -> bytes:
    return exchange.encode(sealed.envelope, sealed.tensors, sealed.data_key)


@pytest.mark.parametrize("secrets", [True, False])
def test_round_trip(tmp_path: Path, sealed: Sealed, keys: Keys, secrets: bool) -> None:
    path = tmp_path / "record.json"
    exchange.write(path, sealed, include_secrets=secrets)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert exchange.read(path, keys) == (sealed if secrets else replace(sealed, data_key=None))
    if secrets:
        assert equal(exchange.load(path, keys), make_fingerprint(count=2, side=1))
    else:
        assert base64.b64encode(sealed.data_key) not in path.read_bytes()
        with pytest.raises(StoreError, match="data key is not on this machine"):
            exchange.load(path, keys)


def test_the_format(data: bytes, sealed: Sealed) -> None:
    value = json.loads(data)
    assert value.keys() == {"format", "envelope", "tensors", "data_key"}
    assert value["format"] == "dnn-fingerprint/1"
    assert canonical(value["envelope"]) == sealed.envelope
    assert canonical(value) + b"\n" == data


def test_every_byte_changed_removed_or_doubled(data: bytes, keys: Keys) -> None:
    for position in range(len(data)):
        edits = [
            data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :],
            data[:position] + data[position + 1 :],
            data[: position + 1] + data[position:],
        ]
        for changed in edits:
            if changed != data:
                with pytest.raises(EvidenceError):
                    exchange.decode(changed, keys)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data_strategy=st.data())
def test_any_edit(data: bytes, keys: Keys, data_strategy: st.DataObject) -> None:
    start = data_strategy.draw(st.integers(0, len(data)))
    end = data_strategy.draw(st.integers(start, min(len(data), start + 100)))
    changed = data[:start] + data_strategy.draw(st.binary(max_size=20)) + data[end:]
    if changed != data:
        with pytest.raises(EvidenceError):
            exchange.decode(changed, keys)


def test_every_truncation(data: bytes, keys: Keys) -> None:
    for length in range(0, len(data), 3):
        with pytest.raises(Tampered):
            exchange.decode(data[:length], keys)


def test_structured_edits(data: bytes, keys: Keys, signer: Signer) -> None:
    value = json.loads(data)
    other = seal(make_fingerprint(seed=1), signer)
    cases = [
        value | {"format": "dnn-fingerprint/2"},
        value | {"format": None},
        value | {"note": "x"},
        {key: value[key] for key in ("format", "envelope", "tensors")},
        value | {"envelope": json.loads(other.envelope)},
        value | {"envelope": None},
        value | {"tensors": base64.b64encode(other.tensors).decode()},
        value | {"tensors": ""},
        value | {"tensors": None},
        value | {"data_key": base64.b64encode(other.data_key).decode()},
        value | {"data_key": base64.b64encode(bytes(31)).decode()},
        value | {"data_key": ""},
        value | {"data_key": 1},
        value | {"data_key": False},
    ]
    for case in cases:
        with pytest.raises(Tampered):
            exchange.decode(canonical(case) + b"\n", keys)


@pytest.mark.parametrize(
    "junk", [b"", b"\n", b"hello\n", b"\x80\n", b"{}\n", b"[]\n", b"[" * 99_999 + b"\n", bytes(100)]
)
def test_files_that_are_no_export(tmp_path: Path, keys: Keys, junk: bytes) -> None:
    (tmp_path / "file").write_bytes(junk)
    with pytest.raises(Tampered):
        exchange.read(tmp_path / "file", keys)


def test_untrusted(tmp_path: Path, sealed: Sealed, stranger: Signer) -> None:
    exchange.write(tmp_path / "file", sealed, include_secrets=True)
    with pytest.raises(UntrustedSigner):
        exchange.read(tmp_path / "file", {stranger.key_id: stranger.public})


def test_unreadable(tmp_path: Path, sealed: Sealed, keys: Keys) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        exchange.read(tmp_path / "absent", keys)
    with pytest.raises(StoreError, match="not a regular file"):
        exchange.read(tmp_path, keys)
    exchange.write(tmp_path / "file", sealed)
    with pytest.raises(StoreError, match="larger than the limit"):
        exchange.read(tmp_path / "file", keys, Limits(record_bytes=100))


def test_secrets_that_are_not_there(tmp_path: Path, sealed: Sealed) -> None:
    with pytest.raises(StoreError, match="data key"):
        exchange.write(tmp_path / "file", replace(sealed, data_key=None), include_secrets=True)
    assert not (tmp_path / "file").exists()
