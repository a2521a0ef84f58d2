"""The record: canonical bytes, Merkle trees, tensors, and that nothing changes unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import fingerprint, manifest, match, payload, references

from fingerprint.canonical import canonical
from fingerprint.errors import Tampered
from fingerprint.model import InputSpec
from fingerprint.record import (
    PREDICATE_TYPE,
    Fingerprint,
    Manifest,
    Payload,
    Reference,
    Spec,
    leaf,
    merkle_root,
    parse_statement,
    statement,
)

RECORD = fingerprint()
STATEMENT = statement(
    RECORD.manifest.model_copy(
        update={
            "name": "Größe 7 ✓ \"quoted\" \\ \u2028",
            "references": tuple(
                Reference.model_validate(r.model_dump())
                for r in references([{"family-0": 2, "family-1": 1}], 5, [{"family-0": 0.25}], ["author"])
            ),
            "declared_bound": 0.3,
        }
    )
)  # fmt: skip
PAYLOAD = RECORD.payload.to_bytes()
SOME_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


# -- Merkle trees ----------------------------------------------------------------------------------------------------


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, level by level: pairs are joined, a last one without partner moves up as it is."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        joined = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = joined + ([level[-1]] if len(level) % 2 else [])
    return level[0]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 100])
def test_merkle_root_is_rfc_6962(count: int) -> None:
    leaves = [hashlib.sha256(bytes([0, i])).digest() for i in range(count)]
    assert merkle_root(leaves) == naive_root(leaves)


def test_merkle_root_of_the_published_leaves() -> None:
    """The tree of 1, 2, 3 and 8 inputs of certificate-transparency's own test suite."""
    inputs = [
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    ]  # fmt: skip
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(text)).digest() for text in inputs]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    for count, root in roots.items():
        assert merkle_root(leaves[:count]).hex() == root


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=20, unique=True), st.data())
def test_every_leaf_and_its_place_matter(leaves: list[bytes], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(leaves) - 2))
    swapped = [*leaves[:i], leaves[i + 1], leaves[i], *leaves[i + 2 :]]
    assert merkle_root(swapped) != merkle_root(leaves)
    assert merkle_root(leaves[:-1]) != merkle_root(leaves)
    assert merkle_root([*leaves, leaves[-1]]) != merkle_root(leaves)


def test_leaf_is_salted_and_apart_from_nodes() -> None:
    assert leaf(b"salt", b"probe") == hashlib.sha256(b"\x00saltprobe").digest()
    assert leaf(b"\x01" * 32, b"x") != leaf(b"\x02" * 32, b"x")


def test_payload_root_is_over_salted_probes() -> None:
    tensors = payload()
    leaves = [
        hashlib.sha256(b"\x00" + s.tobytes() + p.tobytes()).digest()
        for s, p in zip(tensors.salts, tensors.probes, strict=True)
    ]
    assert tensors.merkle_root() == naive_root(leaves).hex()


# -- canonical JSON and statements -----------------------------------------------------------------------------------


@given(SOME_JSON)
def test_canonical_is_one_encoding(value: object) -> None:
    try:
        data = canonical(value)  # type: ignore[arg-type]
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    again = json.loads(data)
    assert again == value
    assert canonical(again) == data


def test_canonical_by_hand() -> None:
    assert canonical({"b": [1, 2.5, None], "a": {"é": True}}) == '{"a":{"é":true},"b":[1,2.5,null]}'.encode()
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            canonical(value)


def test_statement_round_trip() -> None:
    found = parse_statement(STATEMENT)
    assert statement(found) == STATEMENT
    value = json.loads(STATEMENT)
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == PREDICATE_TYPE == "urn:dnn-fingerprint:fingerprint:v1"
    assert value["subject"] == [{"name": found.name, "digest": {"sha256": found.owner.sha256}}]


def test_a_record_without_later_optional_fields_still_reads() -> None:
    """Records of an earlier release lack fields that came later; their bytes are kept as they were signed."""
    value = json.loads(STATEMENT)
    for name in ("declared_bound", "previous", "tensors"):
        del value["predicate"][name]
    assert parse_statement(canonical(value)).declared_bound is None


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(STATEMENT) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_is_another_record(place: int, change: int) -> None:
    """Of changed bytes, those that survive parsing are exactly the encoding of a *different* manifest.

    So no two byte strings mean the same record, and a signature over the bytes is one over the meaning.
    """
    changed = bytearray(STATEMENT)
    changed[place] ^= change
    try:
        found = parse_statement(bytes(changed))
    except Tampered:
        return
    assert statement(found) == bytes(changed)
    assert found != parse_statement(STATEMENT)


@settings(max_examples=150)
@given(st.integers(0, len(STATEMENT)), st.binary(max_size=3), st.integers(0, 3))
def test_inserted_and_missing_bytes(place: int, inserted: bytes, dropped: int) -> None:
    changed = STATEMENT[:place] + inserted + STATEMENT[place + dropped :]
    if changed == STATEMENT:
        return
    try:
        found = parse_statement(changed)
    except Tampered:
        return
    assert statement(found) == changed
    assert found != parse_statement(STATEMENT)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"predicateType":1}', b"1e999",
        STATEMENT + b" ", b" " + STATEMENT, STATEMENT + STATEMENT, STATEMENT.decode().encode("utf-16"),
        json.dumps(json.loads(STATEMENT)).encode(), json.dumps(json.loads(STATEMENT), indent=1).encode(),
        STATEMENT.replace(b"fingerprint:v1", b"verification:v1"),
        STATEMENT.replace(b'"outputs":6', b'"outputs":6.0'), STATEMENT.replace(b'"outputs":6', b'"outputs":"6"'),
        STATEMENT.replace(b'"outputs":6', b'"outputs":1'), STATEMENT.replace(b'"outputs":6', b'"outputs":NaN'),
        STATEMENT.replace(b'"outputs":6', b'"outputs":6,"outputs":6'),
        STATEMENT.replace(b'"outputs":6', b'"outputs":6,"unknown":0'),
        STATEMENT.replace(b'"schema_version":1', b'"schema_version":2'),
        STATEMENT.replace(b'"evidential":false', b'"evidential":0'),
        STATEMENT.replace(b'"declared_bound":0.3', b'"declared_bound":1.3'),
        STATEMENT.replace(b'"declared_bound":0.3', b'"declared_bound":1e400'),
        STATEMENT.replace(b'"declared_bound":0.3', b'"declared_bound":0.30'),
        STATEMENT.replace(b'"count":5', b'"count":0'),
        STATEMENT.replace(b'"matches":2', b'"matches":' + b"9" * 5000),
    ],
)  # fmt: skip
def test_what_is_no_statement(data: bytes) -> None:
    with pytest.raises(Tampered):
        parse_statement(data)


@pytest.mark.parametrize("field", ["name", "digest"])
def test_a_subject_that_contradicts_the_manifest(field: str) -> None:
    value = json.loads(STATEMENT)
    value["subject"][0][field] = "other" if field == "name" else {"sha256": "0" * 64}
    with pytest.raises(Tampered, match="canonical"):
        parse_statement(canonical(value))


def test_manifests_are_frozen_and_strict() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RECORD.manifest.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra"):
        Manifest.model_validate({**RECORD.manifest.model_dump(), "extra": 1})
    for wrong in ("0" * 63, "G" * 64, "A" * 64):
        with pytest.raises(ValueError, match="pattern"):
            Manifest.model_validate({**RECORD.manifest.model_dump(), "previous": wrong})
    with pytest.raises(ValueError, match="finite"):
        match(1, 2, float("nan"))


def test_spec_and_input_spec() -> None:
    spec = InputSpec("NHWC", (8, 9, 1), "int8", (-1.0, 1.0), (0.1,), (0.2,), "L", 11, 1, "me")
    assert Spec.of(spec).to_input_spec() == spec
    stored = Spec.model_validate_json(Spec.of(spec).model_dump_json())
    assert stored.to_input_spec() == spec
    assert hash(stored.to_input_spec()) == hash(spec)  # lists would not


# -- tensors ---------------------------------------------------------------------------------------------------------


def test_payload_round_trip() -> None:
    again = Payload.from_bytes(PAYLOAD)
    for field in fields(Payload):
        before, after = getattr(RECORD.payload, field.name), getattr(again, field.name)
        assert (before is None) == (after is None)
        if before is None:
            continue
        assert before.dtype == after.dtype
        assert before.shape == after.shape
        assert before.tobytes() == after.tobytes()
    assert again.to_bytes() == PAYLOAD


def test_payload_bytes_are_determined_by_the_values() -> None:
    assert payload(seed=3).to_bytes() == payload(seed=3).to_bytes()
    assert payload(seed=3).to_bytes() != payload(seed=4).to_bytes()
    tensors = payload()
    strided = np.asfortranarray(tensors.probes)
    assert not strided.flags.c_contiguous
    assert replace(tensors, probes=strided).to_bytes() == tensors.to_bytes()
    assert payload(clean=0).to_bytes() == Payload.from_bytes(payload(clean=0).to_bytes()).to_bytes()


WRONG = {
    "probes": [np.zeros((8, 4, 5, 3), np.int8), np.zeros((8, 4, 5), np.uint8), np.zeros((), np.uint8)],
    "targets": [np.zeros(8, np.int32), np.zeros(7, np.int64), np.zeros((8, 1), np.int64)],
    "family": [np.zeros(8, np.int64), np.zeros(9, np.uint8)],
    "groups": [np.zeros(8, np.int32), np.zeros(7, np.int64), np.zeros((8, 1), np.int64)],
    "responses": [np.zeros((8, 6), np.float64), np.zeros((7, 6), np.float32), np.zeros(8, np.float32)],
    "salts": [np.zeros((8, 31), np.uint8), np.zeros((8, 32), np.int8), np.zeros((7, 32), np.uint8)],
    "secret": [np.zeros(31, np.uint8), np.zeros(32, np.int8), np.zeros((32, 1), np.uint8)],
    "clean_images": [np.zeros((3, 4, 5, 3), np.uint8), np.zeros((2, 4, 5), np.uint8), np.zeros((2, 4, 5, 3), bool)],
    "clean_labels": [np.zeros(3, np.int64), np.zeros(2, np.uint8)],
    "reference_orders": [np.zeros((0, 8, 6), np.int64), np.zeros((0, 8, 5), np.uint16), np.zeros((0, 8), np.uint16)],
    "clean_responses": [np.zeros((1, 6), np.float32), np.zeros((2, 6), np.float16)],
    "trial_labels": [np.zeros((0, 8), np.int64), np.zeros((0, 7), np.uint16), np.zeros((2, 8), np.uint16)],
    "trial_margins": [np.zeros((0, 8), np.float64), np.zeros((2, 8), np.float32), np.zeros(8, np.float32)],
    "control_probes": [np.zeros((2, 8, 4, 5, 3), np.uint8)],  # without their targets
    "control_targets": [np.zeros((2, 8), np.int64)],
    "ancestor_labels": [np.zeros((1, 7), np.int64), np.zeros((1, 8), np.int32), np.zeros(8, np.int64)],
    "kin_labels": [np.zeros((1, 9), np.int64), np.zeros((1, 8), np.uint8)],
    "weight_sketch": [np.zeros(9, np.int8), np.zeros((3, 3), np.uint8)],
    "certified_radius": [
        np.zeros(8, np.float64),
        np.zeros(7, np.float32),
        np.zeros((8, 1), np.float32),
        np.full(8, -0.1, np.float32),
        np.full(8, np.inf, np.float32),
    ],
    "trial_contrast": [np.zeros(2, np.float32), np.zeros(1, np.float64), np.full(1, np.nan, np.float32)],
}


def test_wrong_tensors_cover_every_field() -> None:
    assert set(WRONG) == {f.name for f in fields(Payload)}


@pytest.mark.parametrize(("name", "index"), [(n, i) for n, values in WRONG.items() for i in range(len(values))])
def test_wrong_shapes_and_dtypes_are_named(name: str, index: int) -> None:
    wrong = replace(RECORD.payload, **{name: WRONG[name][index]})
    with pytest.raises(Tampered) as caught:
        wrong.validate()
    shown = {"probes": "", "clean_images": "clean", "control_probes": "control", "control_targets": "control"}.get(
        name, name
    )  # a wrong N shows at whoever is compared with it
    assert shown in caught.value.message
    with pytest.raises(Tampered):
        Payload.from_bytes(wrong.to_bytes())
    with pytest.raises(Tampered):
        Fingerprint(RECORD.manifest, wrong).check()


def test_missing_and_additional_tensors() -> None:
    from safetensors.numpy import load, save

    tensors = load(PAYLOAD)
    for changed in ({k: v for k, v in tensors.items() if k != "salts"}, {**tensors, "more": np.zeros(1, np.uint8)}):
        with pytest.raises(Tampered):
            Payload.from_bytes(save(changed))


@settings(max_examples=300)
@given(st.integers(0, len(PAYLOAD) - 1), st.integers(1, 255), st.integers(0, len(PAYLOAD)))
def test_damaged_tensors_never_raise_anything_else(place: int, change: int, length: int) -> None:
    """Header or body, changed or cut: either `Tampered`, or tensors of the right shapes."""
    changed = bytearray(PAYLOAD)
    changed[place % 900] ^= change  # mostly the header
    changed[place] ^= change
    for data in (bytes(changed), PAYLOAD[:length], PAYLOAD[length:]):
        try:
            Payload.from_bytes(data).validate()
        except Tampered:
            continue


# -- the two together ------------------------------------------------------------------------------------------------


def test_a_whole_record_passes() -> None:
    for made in (fingerprint(), fingerprint((1,), clean=0), fingerprint((2, 2, 9), clean=5, seed=9)):
        made.check()
        assert made.id is None


def changed_payload(name: str) -> Payload:
    value = getattr(RECORD.payload, name).copy()
    value.reshape(-1)[-1] += 1
    return replace(RECORD.payload, **{name: value})


@pytest.mark.parametrize(("name", "word"), [("probes", "Merkle"), ("salts", "Merkle"), ("secret", "commitment")])
def test_changed_secrets_are_noticed(name: str, word: str) -> None:
    with pytest.raises(Tampered, match=word):
        Fingerprint(RECORD.manifest, changed_payload(name)).check()


def test_changed_families_are_noticed() -> None:
    for family in (np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 1, 1, 2]), np.zeros(8)):
        wrong = replace(RECORD.payload, family=family.astype(np.uint8))
        with pytest.raises(Tampered, match="families"):
            Fingerprint(RECORD.manifest, wrong).check()


def test_missing_probes_and_other_widths_are_noticed() -> None:
    tensors = RECORD.payload
    fewer = {n: getattr(tensors, n)[:-1] for n in ("probes", "targets", "family", "responses", "salts", "groups")}
    tensors = replace(tensors, reference_orders=None)
    with pytest.raises(Tampered, match="number or shape"):
        Fingerprint(RECORD.manifest, replace(tensors, **fewer)).check()
    with pytest.raises(Tampered, match="responses"):
        Fingerprint(RECORD.manifest, replace(tensors, responses=tensors.responses[:, :-1].copy())).check()
    other = manifest(families={"family-0": 0.5, "family-1": 0.5})
    with pytest.raises(Tampered):
        Fingerprint(other, tensors).check()


def certified(families: Sequence[dict[str, float] | None], radius: Sequence[float]) -> Fingerprint:
    stated = [
        family.model_copy(update={"parameters": {} if said is None else {"certificate": said}})
        for family, said in zip(RECORD.manifest.families, families, strict=True)
    ]
    return Fingerprint(
        RECORD.manifest.model_copy(update={"families": tuple(stated)}),
        replace(RECORD.payload, certified_radius=np.array(radius, np.float32)),
    )


def test_radii_of_single_probes_are_those_that_the_manifest_sums_up() -> None:
    stated: list[dict[str, float] | None] = [{"lowest": 0.02, "median": 0.1}, None]
    radius, none = [0.02, 0.05, 0.1, 0.4, 0.2], [np.nan] * 3
    record = certified(stated, [*radius, *none])
    record.check()
    again = Payload.from_bytes(record.payload.to_bytes()).certified_radius
    assert again is not None and again.tobytes() == np.array([*radius, *none], np.float32).tobytes()
    wrong: list[tuple[list[dict[str, float] | None], list[float]]] = [
        (stated, [0.01, *radius[1:], *none]),  # the lowest is another
        (stated, [0.02, 0.05, 0.05, 0.05, 0.2, *none]),  # the median is another
        (stated, [np.nan, *radius[1:], *none]),  # one is missing
        (stated, [*radius, np.nan, 0.1, np.nan]),  # one of a family without a certificate
        ([None, stated[0]], [*radius, *none]),  # of the other family
        ([{"lowest": 0.02}, None], [*radius, *none]),
    ]
    for families, held in wrong:
        with pytest.raises(Tampered, match="certified radii"):
            certified(families, held).check()
    replace(record, payload=replace(record.payload, certified_radius=None)).check()  # of an earlier release


def test_bytes_of_something_else_altogether() -> None:
    for data in (b"", b"PK\x03\x04" + bytes(100), bytes(8), b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"):
        with pytest.raises(Tampered):
            Payload.from_bytes(data)
