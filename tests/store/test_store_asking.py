"""Probes that are asked before their record is opened in full: nothing unsigned or changed gets that far."""

from __future__ import annotations

import pytest
from store_helpers import World, make_fingerprint

from fingerprint.errors import SignatureInvalid, Tampered, UntrustedSigner
from store.asking import probes_of
from store.sealing import seal


def test_the_probes_of_a_record(world: World) -> None:
    made = make_fingerprint()
    sealed = seal(made, world.signer)
    row = world.database.add(sealed)
    assert sealed.data_key is not None
    assert (probes_of(sealed.envelope, sealed.tensors, sealed.data_key, world.keys) == made.payload.probes).all()
    found = world.database.probes(row, world.keys)
    assert found is not None and (found == made.payload.probes).all()


def test_what_does_not_hold_is_not_opened(world: World) -> None:
    sealed = seal(make_fingerprint(), world.signer)
    assert sealed.data_key is not None
    with pytest.raises(UntrustedSigner):
        probes_of(sealed.envelope, sealed.tensors, sealed.data_key, {})
    place = sealed.envelope.index(b'"sig":"') + 12
    other = b"A" if sealed.envelope[place : place + 1] != b"A" else b"B"
    with pytest.raises(SignatureInvalid):
        probes_of(
            sealed.envelope[:place] + other + sealed.envelope[place + 1 :], sealed.tensors, sealed.data_key, world.keys
        )
    with pytest.raises(Tampered, match="not what was signed"):
        probes_of(sealed.envelope, sealed.tensors[:-1] + b"!", sealed.data_key, world.keys)
    with pytest.raises(Tampered, match="does not open"):
        probes_of(sealed.envelope, sealed.tensors, bytes(32), world.keys)


def test_a_signed_statement_of_another_kind(world: World) -> None:
    from store import dsse

    for payload in (b"{}", b"[]", b'{"predicate":{"tensors":null}}', b"no JSON"):
        envelope = dsse.sign(payload, "application/vnd.in-toto+json", world.signer)
        with pytest.raises(Tampered, match="not a fingerprint"):
            probes_of(envelope, b"", bytes(32), world.keys)
