"""Envelopes: published vectors, several signers, and everything that must be refused."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.canonical import canonical
from fingerprint.errors import EvidenceError, SignatureInvalid, Tampered, UntrustedSigner
from fingerprint.record import leaf, merkle_root
from store.dsse import MAX_SIGNATURES, pae, sign, verify
from store.keys import Keys, Signer

KIND = "application/vnd.in-toto+json"


def known(*signers: Signer) -> Keys:
    return {signer.key_id: signer.public for signer in signers}


def test_pae_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("ü", "ü".encode()) == "DSSEv1 2 ü 2 ü".encode()


def test_the_signed_vector_of_the_specification() -> None:
    """secure-systems-lab/dsse, protocol.md: ECDSA P-256 over PAE, r and s as they are."""
    secret = 97358161215184420915383655311931858321456579547487070936769975997791359926199
    key = ec.derive_private_key(secret, ec.SECP256R1())
    signature = base64.b64decode(
        "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    )
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    message = pae("http://example.com/HelloWorld", b"hello world")
    key.public_key().verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    signer = Signer(key)  # the same in our one form: deterministic, DER, the smaller s
    value = json.loads(sign(b"hello world", "http://example.com/HelloWorld", signer))
    assert value["payload"] == "aGVsbG8gd29ybGQ="
    assert verify(canonical(value), known(signer)).payload == b"hello world"


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(a=st.tuples(TEXTS, st.binary()), b=st.tuples(TEXTS, st.binary()))
def test_pae_is_injective(a: tuple[str, bytes], b: tuple[str, bytes]) -> None:
    assert (pae(*a) == pae(*b)) == (a == b)


def test_merkle_tree_of_rfc_6962() -> None:
    """Vectors of the Certificate Transparency reference code."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    leaves = [leaf(b"", bytes.fromhex(item)) for item in data]
    assert [merkle_root(leaves[: i + 1]).hex() for i in range(8)] == roots
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(payload=st.binary(max_size=200), kind=TEXTS)
def test_round_trip(signer: Signer, payload: bytes, kind: str) -> None:
    envelope = sign(payload, kind, signer)
    verified = verify(envelope, known(signer))
    assert (verified.payload, verified.payload_type) == (payload, kind)
    assert verified.key_ids == verified.signers == (signer.key_id,)
    assert sign(payload, kind, signer) == envelope


def test_several_signers(signer: Signer, stranger: Signer) -> None:
    envelope = sign(b"x", KIND, signer, stranger)
    both = tuple(sorted((signer.key_id, stranger.key_id)))
    assert envelope == sign(b"x", KIND, stranger, signer)
    assert verify(envelope, known(signer, stranger)).key_ids == both
    one = verify(envelope, known(stranger))
    assert (one.key_ids, one.signers) == ((stranger.key_id,), both)


def test_every_known_signature_must_hold(signer: Signer, stranger: Signer) -> None:
    value = json.loads(sign(b"x", KIND, signer, stranger))
    other = json.loads(sign(b"y", KIND, signer, stranger))
    for i, entry in enumerate(value["signatures"]):
        forged = [*value["signatures"]]
        forged[i] = other["signatures"][i]
        envelope = canonical(value | {"signatures": forged})
        with pytest.raises(SignatureInvalid):
            verify(envelope, known(signer, stranger))
        broken = signer if entry["keyid"] == signer.key_id else stranger
        sound = stranger if broken is signer else signer
        with pytest.raises(SignatureInvalid):
            verify(envelope, known(broken))
        assert verify(envelope, known(sound)).key_ids == (sound.key_id,)


def test_signing_needs_different_signers(signer: Signer) -> None:
    for signers in ((), (signer, signer)):
        with pytest.raises(ValueError, match="different signers"):
            sign(b"x", KIND, *signers)


def test_untrusted(signer: Signer, stranger: Signer) -> None:
    envelope = sign(b"x", KIND, signer)
    for keys in ({}, known(stranger)):
        with pytest.raises(UntrustedSigner) as caught:
            verify(envelope, keys)
        assert "--key PUB" in caught.value.remedy
        assert "trusted/" in caught.value.remedy


def test_a_signature_by_another_key_under_a_trusted_name(signer: Signer, stranger: Signer) -> None:
    value = json.loads(sign(b"x", KIND, stranger))
    value["signatures"][0]["keyid"] = signer.key_id
    with pytest.raises(SignatureInvalid):
        verify(canonical(value), known(signer))


def test_a_signature_under_another_name(signer: Signer, stranger: Signer) -> None:
    """One of two is renamed: what is left would be enough, and is refused all the same."""
    both = known(signer, stranger)
    value = json.loads(sign(b"x", KIND, signer, stranger))
    for entry in value["signatures"]:
        first = entry["keyid"]
        entry["keyid"] = first[:-1] + ("0" if first[-1] != "0" else "1")
        with pytest.raises(Tampered, match="under the name"):
            verify(canonical(value), both)
        entry["keyid"] = first
    assert len(verify(canonical(value), both).key_ids) == 2
    alone = verify(canonical(value), known(signer))  # of the other signature nothing can be known
    assert (alone.key_ids, len(alone.signers)) == ((signer.key_id,), 2)


def test_payload_and_its_type_are_both_signed(signer: Signer) -> None:
    value = json.loads(sign(b"x", KIND, signer))
    for change in ({"payload": "eQ=="}, {"payloadType": "text/plain"}):
        with pytest.raises(SignatureInvalid):
            verify(canonical(value | change), known(signer))


def malformed(envelope: bytes) -> list[bytes]:
    value = json.loads(envelope)
    entry = value["signatures"][0]
    text = envelope.decode()
    return [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 10_000,
        envelope + b"\n",
        b" " + envelope,
        b"\xef\xbb\xbf" + envelope,
        envelope.decode().encode("utf-16"),
        text.replace(":", ": ").encode(),
        text.replace('"payloadType"', '"payload\\u0054ype"').encode(),
        text.replace('{"payload":', '{"payload":"eQ==","payload":').encode(),
        json.dumps(value).encode(),
        canonical(value | {"extra": 1}),
        canonical({key: value[key] for key in ("payload", "signatures")}),
        canonical(value | {"payload": 1}),
        canonical(value | {"payload": value["payload"][:-1]}),
        canonical(value | {"payload": value["payload"][:-2] + "x=" if value["payload"].endswith("=") else "eB=="}),
        canonical(value | {"payload": "e A=="}),
        canonical(value | {"payload": "eA==\n"}),
        canonical(value | {"payload": "eB=="}),
        canonical(value | {"payload": "é"}),
        canonical(value | {"payloadType": None}),
        canonical(value | {"signatures": []}),
        canonical(value | {"signatures": {}}),
        canonical(value | {"signatures": [entry, entry]}),
        canonical(value | {"signatures": [entry] * (MAX_SIGNATURES + 1)}),
        canonical(value | {"signatures": [entry, {"keyid": "0" * 64, "sig": entry["sig"]}]}),
        canonical(value | {"signatures": [entry | {"cert": "x"}]}),
        canonical(value | {"signatures": [entry | {"keyid": entry["keyid"].upper()}]}),
        canonical(value | {"signatures": [entry | {"keyid": None}]}),
        canonical(value | {"signatures": [entry | {"sig": "AAAA"}]}),
        canonical(value | {"signatures": [entry | {"sig": ""}]}),
        canonical(value | {"signatures": ["x"]}),
        text.replace(KIND, "\\ud800").encode(),
        text.replace('"payloadType":', '"payloadType":NaN,"x":').encode(),
    ]


def test_everything_malformed_is_tampered(signer: Signer) -> None:
    envelope = sign(b"x", KIND, signer)
    for case in malformed(envelope):
        with pytest.raises(Tampered):
            verify(case, known(signer))
    value = json.loads(envelope)
    cut = canonical(value | {"signatures": [{**value["signatures"][0], "sig": value["signatures"][0]["sig"][:-4]}]})
    with pytest.raises(SignatureInvalid):  # as long as an ECDSA signature can be
        verify(cut, known(signer))


def test_every_byte_counts(signer: Signer) -> None:
    envelope = sign(b"some payload", KIND, signer)
    for position in range(len(envelope)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytes([envelope[position] ^ bit])
            with pytest.raises(EvidenceError):
                verify(envelope[:position] + changed + envelope[position + 1 :], known(signer))
        with pytest.raises(EvidenceError):
            verify(envelope[:position] + envelope[position + 1 :], known(signer))
        with pytest.raises(EvidenceError):
            verify(envelope[:position], known(signer))


@given(data=st.data())
def test_any_edit_is_refused(signer: Signer, data: st.DataObject) -> None:
    envelope = sign(b"some payload", KIND, signer)
    start = data.draw(st.integers(0, len(envelope)))
    end = data.draw(st.integers(start, min(len(envelope), start + 8)))
    changed = envelope[:start] + data.draw(st.binary(max_size=8)) + envelope[end:]
    if changed != envelope:
        with pytest.raises(EvidenceError):
            verify(changed, known(signer))
