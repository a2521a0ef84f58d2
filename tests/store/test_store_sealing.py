"""Sealing and unsealing: round trips, determinism, and what must be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import equal, make_fingerprint

from fingerprint.canonical import canonical
from fingerprint.errors import EvidenceError, StoreError, Tampered, UntrustedSigner
from fingerprint.record import PAYLOAD_TYPE, Fingerprint, Manifest, Payload, statement
from store import dsse
from store.keys import Signer
from store.sealing import Sealed, envelope_id, read_manifest, seal, unseal


def keys_of(signer: Signer) -> dict[str, object]:
    return {signer.key_id: signer.public}


def reopened(sealed: Sealed, signer: Signer, **changes: object) -> Fingerprint:
    parts = {"envelope": sealed.envelope, "tensors": sealed.tensors, "data_key": sealed.data_key} | changes
    return unseal(**parts, keys=keys_of(signer))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    seed=st.integers(0, 1000),
    count=st.integers(1, 9),
    side=st.integers(1, 5),
    outputs=st.integers(2, 20),
    evidential=st.booleans(),
)
def test_round_trip(
    signer: Signer, name: str, seed: int, count: int, side: int, outputs: int, evidential: bool
) -> None:
    original = make_fingerprint(name, seed=seed, count=count, side=side, outputs=outputs, evidential=evidential)
    sealed = seal(original, signer)
    opened = reopened(sealed, signer)
    assert equal(original, opened)
    assert opened.id == sealed.id == envelope_id(sealed.envelope)
    assert opened.manifest == sealed.manifest == read_manifest(sealed.envelope, keys_of(signer))  # type: ignore[arg-type]
    assert sealed.key_ids == (signer.key_id,)


def test_evidential_records_never_repeat_a_key_or_nonce(signer: Signer) -> None:
    original = make_fingerprint()
    sealed = [seal(original, signer) for _ in range(20)]
    for values in ({s.data_key for s in sealed}, {s.tensors for s in sealed}, {s.id for s in sealed}):
        assert len(values) == 20
    assert len({s.manifest.tensors.nonce for s in sealed}) == 20


def test_seeded_records_repeat_bit_by_bit(signer: Signer) -> None:
    first, second = (seal(make_fingerprint(evidential=False), signer) for _ in range(2))
    assert first == second


def test_seeded_records_that_differ_share_neither_key_nor_nonce(signer: Signer) -> None:
    """The same secret K under another plaintext, or under other associated data, must give another key."""
    original = make_fingerprint(evidential=False)
    responses = replace(original.payload, responses=original.payload.responses + 1)
    owner = original.manifest.owner.model_copy(update={"sha256": "0" * 64})
    variants = [
        original,
        replace(original, payload=responses),
        replace(original, manifest=original.manifest.model_copy(update={"owner": owner})),
    ]
    sealed = [seal(variant, signer) for variant in variants]
    assert len({s.data_key for s in sealed}) == len({s.manifest.tensors.nonce for s in sealed}) == 3


def test_a_data_key_can_be_given(signer: Signer) -> None:
    sealed = seal(make_fingerprint(), signer, data_key=bytes(32))
    assert sealed.data_key == bytes(32)
    assert equal(reopened(sealed, signer), make_fingerprint())


def test_nothing_secret_is_public(signer: Signer) -> None:
    original = make_fingerprint(count=8, side=8)
    sealed = seal(original, signer)
    for tensor in ("probes", "responses", "salts", "secret", "clean_images"):
        secret = getattr(original.payload, tensor).tobytes()[:16]
        assert secret not in sealed.envelope
        assert secret not in sealed.tensors
    assert sealed.data_key.hex() not in repr(sealed)
    assert str(sealed.data_key) not in repr(sealed)


def test_contradictions_are_not_signed(signer: Signer) -> None:
    original = make_fingerprint()
    with pytest.raises(Tampered):
        seal(replace(original, payload=make_fingerprint(seed=1).payload), signer)


def test_untrusted_signer(signer: Signer, stranger: Signer) -> None:
    sealed = seal(make_fingerprint(), stranger)
    with pytest.raises(UntrustedSigner):
        reopened(sealed, signer)
    with pytest.raises(UntrustedSigner):
        read_manifest(sealed.envelope, keys_of(signer))  # type: ignore[arg-type]


def test_missing_data_key(signer: Signer) -> None:
    with pytest.raises(StoreError, match="encrypted") as caught:
        reopened(seal(make_fingerprint(), signer), signer, data_key=None)
    assert not isinstance(caught.value, EvidenceError)
    assert "store export --include-secrets" in caught.value.remedy


@pytest.mark.parametrize("data_key", [bytes(32), b"", b"short"])
def test_wrong_data_key(signer: Signer, data_key: bytes) -> None:
    with pytest.raises(Tampered, match="does not open"):
        reopened(seal(make_fingerprint(), signer), signer, data_key=data_key)


def test_every_byte_of_the_ciphertext_counts(signer: Signer) -> None:
    sealed = seal(make_fingerprint(), signer)
    for position in range(len(sealed.tensors)):
        changed = bytearray(sealed.tensors)
        changed[position] ^= 1
        with pytest.raises(Tampered):
            reopened(sealed, signer, tensors=bytes(changed))
    for tensors in (b"", sealed.tensors[:-1], sealed.tensors + b"\0", sealed.tensors[1:]):
        with pytest.raises(Tampered):
            reopened(sealed, signer, tensors=tensors)


def test_every_byte_of_the_envelope_counts(signer: Signer) -> None:
    sealed = seal(make_fingerprint(), signer)
    for position in range(len(sealed.envelope)):
        changed = bytearray(sealed.envelope)
        changed[position] ^= 1 << position % 8
        with pytest.raises(EvidenceError):
            reopened(sealed, signer, envelope=bytes(changed))


def test_tensors_of_another_record(signer: Signer) -> None:
    first, second = (seal(make_fingerprint(seed=seed), signer) for seed in (0, 1))
    with pytest.raises(Tampered):
        reopened(first, signer, tensors=second.tensors, data_key=second.data_key)


def resigned(sealed: Sealed, signer: Signer, plaintext: bytes, manifest: Manifest | None = None) -> Fingerprint:
    """What a dishonest but trusted signer could hand over: any plaintext, correctly encrypted and signed."""
    import hashlib

    manifest = manifest or sealed.manifest
    associated = (
        b"dnn-fingerprint/tensors/v1"
        + bytes.fromhex(manifest.probes.merkle_root)
        + bytes.fromhex(manifest.owner.sha256)
    )
    tensors = ChaCha20Poly1305(bytes(32)).encrypt(bytes(12), plaintext, associated)
    described = manifest.tensors.model_copy(
        update={"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors), "nonce": "00" * 12}
    )
    envelope = dsse.sign(statement(manifest.model_copy(update={"tensors": described})), PAYLOAD_TYPE, signer)
    return unseal(envelope, tensors, bytes(32), keys_of(signer))  # type: ignore[arg-type]


def test_the_associated_data_are_what_the_design_says(signer: Signer) -> None:
    original = make_fingerprint()
    sealed = seal(original, signer)
    assert equal(resigned(sealed, signer, original.payload.to_bytes()), original)


def test_payloads_that_contradict_the_manifest(signer: Signer) -> None:
    original = make_fingerprint()
    sealed, payload = seal(original, signer), original.payload
    cases = [
        b"",
        b"\xff" * 100,
        payload.to_bytes()[:-1],
        make_fingerprint(seed=1).payload.to_bytes(),
        replace(payload, probes=payload.probes[::-1]).to_bytes(),
        replace(payload, salts=payload.salts[:, :16]).to_bytes(),
        replace(payload, secret=payload.secret[::-1]).to_bytes(),
        replace(payload, responses=payload.responses[:, :-1]).to_bytes(),
        replace(payload, responses=payload.responses.astype(np.float64)).to_bytes(),
        replace(payload, family=np.zeros_like(payload.family)).to_bytes(),
        replace(payload, family=payload.family + 200).to_bytes(),
        replace(payload, targets=payload.targets[:-1]).to_bytes(),
    ]
    for name in Payload.__annotations__:
        if getattr(payload, name) is None:
            continue
        cases.append(replace(payload, **{name: np.array(1, dtype=getattr(payload, name).dtype)}).to_bytes())
        cases.append(replace(payload, **{name: getattr(payload, name)[:0]}).to_bytes())
    for plaintext in cases:
        if plaintext == payload.to_bytes():
            continue
        try:
            opened = resigned(sealed, signer, plaintext)
        except Tampered:
            continue
        opened.check()  # only the clean inputs, which the manifest does not bind, may be others
        assert opened.manifest.probes.merkle_root == original.manifest.probes.merkle_root


def test_signed_things_that_are_no_fingerprint(signer: Signer) -> None:
    sealed = seal(make_fingerprint(), signer)
    good = statement(sealed.manifest)
    text = good.decode()
    cases = [
        (good, "text/plain"),
        (b"", PAYLOAD_TYPE),
        (b"[]", PAYLOAD_TYPE),
        (b"[" * 100_000, PAYLOAD_TYPE),
        (b"\xff", PAYLOAD_TYPE),
        (canonical({"predicateType": "x"}), PAYLOAD_TYPE),
        (text.replace("fingerprint:v1", "verification:v1").encode(), PAYLOAD_TYPE),
        (text.replace('"schema_version":1', '"schema_version":2').encode(), PAYLOAD_TYPE),
        (text.replace('"count":4', '"count":"4"').encode(), PAYLOAD_TYPE),
        (text.replace('"steps":10', '"steps":1e999').encode(), PAYLOAD_TYPE),
        (text.replace('"steps":10', '"steps":"\\ud800"').encode(), PAYLOAD_TYPE),
        (text.replace('"steps":10', '"steps":NaN').encode(), PAYLOAD_TYPE),
        (text.replace('"name":"resnet","outputs"', '"name":"\\ud800","outputs"').encode(), PAYLOAD_TYPE),
        (text.replace('"name":"resnet","outputs"', '"name":"other","outputs"').encode(), PAYLOAD_TYPE),
        (good + b" ", PAYLOAD_TYPE),
    ]
    for payload, kind in cases:
        assert (payload, kind) != (good, PAYLOAD_TYPE)
        with pytest.raises(Tampered):
            read_manifest(dsse.sign(payload, kind, signer), keys_of(signer))  # type: ignore[arg-type]
    bare = statement(make_fingerprint().manifest)  # never sealed: names no tensors
    with pytest.raises(Tampered, match="does not name its tensors"):
        unseal(dsse.sign(bare, PAYLOAD_TYPE, signer), b"", None, keys_of(signer))  # type: ignore[arg-type]


def test_records_without_optional_fields_still_open(signer: Signer) -> None:
    """A record of an earlier release lacks the optional fields that came later."""
    import json

    sealed = seal(make_fingerprint(), signer)
    value = json.loads(statement(sealed.manifest))
    for name in ("previous", "declared_bound"):
        assert value["predicate"].pop(name) is None
    envelope = dsse.sign(canonical(value), PAYLOAD_TYPE, signer)
    assert unseal(envelope, sealed.tensors, sealed.data_key, keys_of(signer)).manifest == sealed.manifest  # type: ignore[arg-type]


def test_chacha20_poly1305_of_rfc_8439() -> None:
    """RFC 8439, section 2.8.2: the cipher that seals records."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would "
    )
    text += b"be it."
    sealed = ChaCha20Poly1305(bytes(range(0x80, 0xA0))).encrypt(
        bytes.fromhex("070000004041424344454647"), text, bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    )
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
        "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
        "61161ae10b594f09e26a7e902ecbd0600691"
    )
