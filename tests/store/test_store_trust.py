"""Algorithms, several signers, thresholds, rotation and revocation; and what other tools say of our envelopes."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import World, make_fingerprint
from test_store_ledger import run_of  # type: ignore[import-not-found]

from fingerprint.canonical import canonical
from fingerprint.errors import EvidenceError, RevokedSigner, SignatureInvalid, Tampered, UntrustedSigner, UsageError
from store import algorithms, dsse, predicates, revocation
from store.algorithms import P256_ORDER
from store.cosigning import cosign
from store.keys import Signer, generate, load_signer, public_pem, trust, trusted_keys
from store.sealing import seal
from store.trust import Revocation, Trust

KIND = "application/vnd.in-toto+json"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "model-signing"
# RFC 6979, A.2.5: ECDSA, 256 bits, SHA-256
SECRET = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
VECTORS = {
    b"sample": (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    b"test": (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
}


@pytest.fixture(scope="module")
def ecdsa() -> Signer:
    return Signer(ec.derive_private_key(SECRET, ec.SECP256R1()))


@pytest.mark.parametrize("message", VECTORS)
def test_rfc_6979(message: bytes, ecdsa: Signer) -> None:
    r, s = VECTORS[message]
    assert decode_dss_signature(ecdsa.sign(message)) == (r, min(s, P256_ORDER - s))
    algorithms.verify(ecdsa.public, ecdsa.sign(message), message)


@given(message=st.binary(max_size=100))
def test_the_other_signature_of_the_same_message_is_refused(message: bytes, ecdsa: Signer) -> None:
    """Malleability: (r, n - s) is valid ECDSA, and so is BER with a longer length."""
    signature = ecdsa.sign(message)
    r, s = decode_dss_signature(signature)
    twin = encode_dss_signature(r, P256_ORDER - s)
    ecdsa.public.verify(twin, message, ec.ECDSA(hashes.SHA256()))  # type: ignore[union-attr,call-arg,arg-type]
    longer = b"\x30\x81" + signature[1:]
    for other in (twin, longer, signature + b"\x00", signature[:-1], b""):
        with pytest.raises(InvalidSignature):
            algorithms.verify(ecdsa.public, other, message)


def test_ecdsa_envelopes_and_files(ecdsa: Signer, tmp_path: Path, world: World) -> None:
    paths = generate(tmp_path, b"secret words", algorithm="ecdsa-p256")
    signer = load_signer(paths.private, b"secret words")
    sealed = seal(make_fingerprint(), signer)
    assert len(sealed.key_ids[0]) == 64
    with pytest.raises(UntrustedSigner):
        world.database.add(sealed) and world.database.manifest(world.database.find("resnet"), world.keys)
    trust(world.home, paths.public)
    keys = trusted_keys(world.home)
    assert world.database.load(world.database.find("resnet"), keys)
    assert world.database.check(keys) == []
    for curve in (ec.SECP384R1(), ec.SECP256K1()):
        key = ec.generate_private_key(curve)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / "k").write_bytes(key.private_bytes(*form))
        (tmp_path / "k").chmod(0o600)
        with pytest.raises(Exception, match="neither an Ed25519"):
            load_signer(tmp_path / "k", None)


def test_every_byte_of_an_ecdsa_envelope(ecdsa: Signer) -> None:
    envelope, keys = dsse.sign(b"some payload", KIND, ecdsa), {ecdsa.key_id: ecdsa.public}
    for position in range(len(envelope)):
        for bit in (0x01, 0x20):
            changed = envelope[:position] + bytes([envelope[position] ^ bit]) + envelope[position + 1 :]
            with pytest.raises(EvidenceError):
                dsse.verify(changed, keys)


def test_a_threshold(signer: Signer, stranger: Signer, ecdsa: Signer) -> None:
    keys = {s.key_id: s.public for s in (signer, ecdsa)}
    both = dsse.sign(b"x", KIND, signer, ecdsa)
    assert len(dsse.verify(both, Trust(keys, threshold=2)).key_ids) == 2
    with pytest.raises(UntrustedSigner, match="1 trusted keys, and 2 are needed"):
        dsse.verify(dsse.sign(b"x", KIND, signer, stranger), Trust(keys, threshold=2))
    cosigned = dsse.add_signature(dsse.sign(b"x", KIND, signer), ecdsa)
    assert cosigned == both
    with pytest.raises(ValueError, match="already"):
        dsse.add_signature(cosigned, ecdsa)


WHEN = datetime(2026, 6, 1, tzinfo=UTC)


BEFORE = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(("stamped", "counts"), [(None, False), (WHEN, False), (BEFORE, True)])
def test_a_revoked_key(stamped: datetime | None, counts: bool, signer: Signer, stranger: Signer) -> None:
    envelope = dsse.sign(b"x", KIND, signer)
    keys = Trust({signer.key_id: signer.public}, [Revocation(signer.key_id, WHEN, "stolen")], times=lambda _: stamped)
    if counts:
        assert dsse.verify(envelope, keys).key_ids == (signer.key_id,)
    else:
        with pytest.raises(RevokedSigner, match="stolen"):
            dsse.verify(envelope, keys)
    both = dsse.sign(b"x", KIND, signer, stranger)
    assert stranger.key_id in dsse.verify(both, keys.plus(stranger.key_id, stranger.public)).key_ids


def test_the_earliest_revocation_holds(signer: Signer) -> None:
    later = Revocation(signer.key_id, datetime(2026, 7, 1, tzinfo=UTC), "")
    for given_order in ([later, Revocation(signer.key_id, WHEN, "")], [Revocation(signer.key_id, WHEN, ""), later]):
        assert Trust({}, given_order).revoked[signer.key_id].time == WHEN


def test_a_later_revocation_does_not_put_off_an_earlier_one(world: World) -> None:
    new = Signer(algorithms.generate_key("ed25519"))
    (world.home.ensure(world.home.trusted) / "new.pub").write_bytes(public_pem(new.public))
    times = ("2026-06-01T00:00:00.000Z", "2027-06-01T00:00:00.000Z")
    for time in times:
        event = revocation.event("revoke", world.signer.key_id, time, [new])
        revocation.keep(world.home, world.signer.key_id, event)
    assert len(list(world.home.revoked.iterdir())) == 2
    assert trusted_keys(world.home).revoked[world.signer.key_id].time == WHEN


def revoke(world: World, *, signer: Signer) -> Signer:
    """Revoke the world's key from long ago on; answers the new key, by which that is signed."""
    (world.home.ensure(world.home.trusted) / "new.pub").write_bytes(public_pem(signer.public))
    event = revocation.event("revoke", world.signer.key_id, "2020-01-01T00:00:00.000Z", [signer], reason="stolen")
    revocation.keep(world.home, world.signer.key_id, event)
    world.database.add_key_event(world.signer.key_id, "revoke", event)
    return signer


def test_a_checkpoint_by_the_new_key_vouches_for_what_was_there(world: World) -> None:
    """And for nothing that comes later, nor does one by the old key."""
    world.database.add(world.sealed())
    run_of(world.database, 2, world.signer)
    world.database.checkpoint([world.signer])
    new = revoke(world, signer=Signer(algorithms.generate_key("ed25519")))
    keys = trusted_keys(world.home)

    def kinds() -> list[str]:
        return [p.kind for p in world.database.check(keys) if "revoked" in p.message]

    assert kinds() == ["error"] * 3  # the record, the run, the old checkpoint
    assert all("checkpoint --key" in p.remedy for p in world.database.check(keys))
    world.database.checkpoint([new])
    assert kinds() == ["warning"] * 3
    with pytest.raises(RevokedSigner):
        world.database.load(world.database.find("resnet"), keys)  # it still counts for nobody
    run_of(world.database, 1, world.signer)  # whoever stole the key goes on
    world.database.checkpoint([world.signer])
    assert sorted(kinds()) == ["error"] * 2 + ["warning"] * 3
    assert world.database.rebuild(keys).fingerprints == 1
    assert sorted(kinds()) == ["error"] * 2 + ["warning"] * 3


def test_a_record_is_signed_again_by_the_new_key(world: World) -> None:
    old = world.database.add(world.sealed())
    new = revoke(world, signer=Signer(algorithms.generate_key("ecdsa-p256")))
    keys = trusted_keys(world.home)
    made = cosign(world.database, old, new, keys)
    assert (made.name, made.version, made.id != old.id) == ("resnet", 2, True)
    assert set(made.key_ids) == {world.signer.key_id, new.key_id}
    assert world.database.load(world.database.find("resnet"), keys).payload
    world.database.checkpoint([new])
    assert {p.kind for p in world.database.check(keys)} == {"warning"}
    with pytest.raises(UsageError, match="already"):
        cosign(world.database, made, new, keys)
    with pytest.raises(UntrustedSigner):
        cosign(world.database, old, new, {world.stranger.key_id: world.stranger.public})
    path = Path(f"{world.database.path}.tensors") / f"{old.tensors_sha256}.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Tampered):
        cosign(world.database, old, Signer(algorithms.generate_key("ed25519")), keys)


def test_revocations_in_the_home(world: World) -> None:
    row = world.database.add(world.sealed())
    new = Signer(algorithms.generate_key("ecdsa-p256"))
    (world.home.ensure(world.home.trusted) / "new.pub").write_bytes(public_pem(new.public))
    gone = revocation.event("revoke", world.signer.key_id, "2026-06-01T00:00:00.000Z", [new], reason="lost")
    path = revocation.keep(world.home, world.signer.key_id, gone)
    keys = trusted_keys(world.home)
    with pytest.raises(RevokedSigner, match="lost"):
        world.database.load(row, keys)
    assert any("revoked" in p.message for p in world.database.check(keys))
    data = path.read_bytes()
    for position in range(0, len(data), 7):  # a damaged revocation must not bring the key back
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(EvidenceError):
            trusted_keys(world.home)
    strangers = revocation.event("revoke", world.signer.key_id, "2026-06-01T00:00:00.000Z", [world.stranger])
    path.write_bytes(strangers)
    with pytest.raises(UntrustedSigner):
        trusted_keys(world.home)
    rotation = revocation.event("rotate", world.signer.key_id, "2026-06-01T00:00:00.000Z", [new], successor=new.key_id)
    path.write_bytes(rotation)
    with pytest.raises(Tampered, match="no revocation"):
        trusted_keys(world.home)


# --- other tools -----------------------------------------------------------------------------------------------------


def test_securesystemslib_verifies_ours_and_we_theirs(signer: Signer, ecdsa: Signer) -> None:
    dsse_module = pytest.importorskip("securesystemslib.dsse")
    signer_module = pytest.importorskip("securesystemslib.signer")
    keys = {s.key_id: s.public for s in (signer, ecdsa)}
    theirs = [signer_module.SSlibKey.from_crypto(s.public, keyid=s.key_id) for s in (signer, ecdsa)]
    ours = json.loads(dsse.sign(b'{"a":1}', KIND, signer, ecdsa))
    envelope = dsse_module.Envelope.from_dict(json.loads(json.dumps(ours)))
    assert set(envelope.verify(theirs, 2)) == {signer.key_id, ecdsa.key_id}
    ours["payload"] = base64.b64encode(b'{"a":2}').decode()
    with pytest.raises(Exception, match=r"(?i)threshold|verif"):
        dsse_module.Envelope.from_dict(ours).verify(theirs, 1)

    made = dsse_module.Envelope(b"their payload", KIND, {})
    for own, public in zip((signer, ecdsa), theirs, strict=True):
        made.sign(signer_module.CryptoSigner(own._private, public))
    value = made.to_dict()
    value["signatures"] = sorted(value["signatures"], key=lambda entry: entry["keyid"])
    value["signatures"] = [low_s(entry) for entry in value["signatures"]]  # ECDSA has two spellings, we take one
    verified = dsse.verify(canonical(value), Trust(keys, threshold=2))
    assert (verified.payload, len(verified.key_ids)) == (b"their payload", 2)
    value["signatures"][0]["sig"] = value["signatures"][1]["sig"]
    with pytest.raises(SignatureInvalid):
        dsse.verify(canonical(value), keys)


def low_s(entry: dict[str, str]) -> dict[str, str]:
    signature = base64.b64decode(entry["sig"])
    if len(signature) == 64:
        return entry
    r, s = decode_dss_signature(signature)
    return {**entry, "sig": base64.b64encode(encode_dss_signature(r, min(s, P256_ORDER - s))).decode()}


def test_the_subject_is_what_model_signing_records() -> None:
    """OpenSSF model-signing and this tool name one model file by the same digest; its signature fits our PAE."""
    bundle = json.loads((FIXTURES / "model.sig").read_text())
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    public = serialization.load_pem_public_key((FIXTURES / "signer.pub").read_bytes())
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public.verify(signature, dsse.pae(envelope["payloadType"], payload), ec.ECDSA(hashes.SHA256()))  # type: ignore[union-attr,call-arg,arg-type]
    (resource,) = json.loads(payload)["predicate"]["resources"]
    record = make_fingerprint()
    digest = hashlib.sha256((FIXTURES / "model.onnx").read_bytes()).hexdigest()
    owner = record.manifest.owner.model_copy(update={"sha256": digest})
    from fingerprint.record import statement

    ours = json.loads(statement(record.manifest.model_copy(update={"owner": owner})))
    assert ours["subject"][0]["digest"] == {resource["algorithm"]: resource["digest"]}


def test_every_predicate_has_one_meaning() -> None:
    with pytest.raises(Tampered, match="does not know"):
        predicates.parse(canonical({"_type": "x", "predicateType": "urn:other", "subject": [], "predicate": {}}))
    for broken in (b"", b"[]", b"{}", b"null", b'{"predicateType":[]}', b"[" * 100_000):
        with pytest.raises(Tampered):
            predicates.parse(broken)
