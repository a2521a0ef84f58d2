"""Statements that released versions signed are read for ever, and fit the schemas that were published for them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from store import dsse, predicates
from store.keys import key_id, load_public
from store.trust import Trust

HERE = Path(__file__).parent
EVIDENCE = HERE / "evidence-v1"
SCHEMAS = HERE.parents[1] / "docs" / "schema"
NAMES = sorted(path.stem for path in EVIDENCE.glob("*.json"))
BOTH = {"verification", "audit"}


@pytest.fixture(scope="module")
def keys() -> Trust:
    return Trust({key_id(key): key for key in map(load_public, sorted(EVIDENCE.glob("*.pub")))})


def test_all_kinds_are_here() -> None:
    kinds = {kind.split(":")[2] for kind in predicates.MODELS} - {"bundle"}
    assert set(NAMES) == kinds


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_of_the_first_release(name: str, keys: Trust) -> None:
    verified = dsse.verify((EVIDENCE / f"{name}.json").read_bytes(), keys.at_least(2 if name in BOTH else 1))
    statement = predicates.parse(verified.payload, verified.payload_type)
    assert statement.predicate_type == f"urn:dnn-fingerprint:{name}:v1"
    schema = json.loads((SCHEMAS / f"{name}-v1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    value = json.loads(verified.payload)
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
    for broken in (value | {"_type": "x"}, value | {"extra": 1}, value | {"predicate": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("kind", predicates.MODELS)
def test_the_published_schemas_are_those_of_the_code(kind: str) -> None:
    _, _, name, version = kind.split(":")
    published = json.loads((SCHEMAS / f"{name}-{version}.schema.json").read_text())
    made = json.loads(json.dumps(predicates.schema_of(kind)))
    assert published == made, "run: python tests/golden/make_evidence_v1.py --schemas"
