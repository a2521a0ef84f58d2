"""Reading answers: whatever comes, it is an answer or an error of the tree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fingerprint.errors import DataError, DegenerateModel, FingerprintError, HostFailed, UnsupportedModel
from fingerprint.remote import byhand
from fingerprint.remote.answers import Answers, decimals, from_array, from_json, index_of, joined
from fingerprint.remote.interface import Manner

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
SCORES = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 7)), elements=st.floats(-9, 9, width=32))


def images(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)


@given(st.lists(JSON, max_size=4), st.integers(0, 4))
def test_any_json_is_an_answer_or_an_error(rows: list[object], count: int) -> None:
    try:
        found = from_json(rows, count)
    except FingerprintError:
        return
    assert len(found.labels) == count > 0
    assert (found.labels >= 0).all()
    assert found.scores is None or (found.scores.shape[0] == count and np.isfinite(found.scores).all())


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex64]),
        arrays.array_shapes(min_dims=0, max_dims=4, max_side=4),
    ),
    st.integers(0, 4),
)
def test_any_array_is_an_answer_or_an_error(array: np.ndarray, count: int) -> None:
    try:
        found = from_array(array, count)
    except FingerprintError:
        return
    assert len(found.labels) == count


@given(SCORES)
def test_scores_come_through_all_forms(scores: np.ndarray) -> None:
    count, width = scores.shape
    for found in (from_array(scores, count), from_json(scores.tolist(), count)):
        assert found.scores is not None and np.array_equal(found.scores, scores)
        assert np.array_equal(found.labels, scores.argmax(axis=1))
    names = [f"class {i}" for i in range(width)]
    named = from_json([{names[i]: float(v) for i, v in enumerate(row)} for row in scores], count, names)
    assert named.scores is not None and np.array_equal(named.scores, scores)


@given(SCORES)
def test_the_top_two_give_the_label_only(scores: np.ndarray) -> None:
    scores = scores + np.linspace(0, 0.5, scores.shape[1], dtype=np.float32)
    top = [{str(i): float(row[i]) for i in np.argsort(-row, kind="stable")[:2]} for row in scores]
    found = from_json(top, len(scores))
    assert found.scores is None, "nobody knows whether there are more classes"
    best = scores.max(axis=1)
    assert np.array_equal(scores[np.arange(len(scores)), found.labels], best)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20))
def test_labels_become_one_hot_rows(labels: list[int]) -> None:
    manner = Manner()
    rows = joined([from_array(np.array(labels), len(labels))], images(len(labels)), manner)
    assert rows.argmax(axis=1).tolist() == labels
    assert rows.shape[1] >= 2 and (rows.sum(axis=1) == 1).all()
    assert manner.open_classes and manner.label_only == "it answers labels only"


@given(SCORES, st.integers(0, 3))
def test_rounding_is_seen(scores: np.ndarray, digits: int) -> None:
    found = decimals(scores.round(digits).astype(np.float32))
    assert found is not None and found <= digits


def test_no_rounding_where_there_is_none() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    assert decimals(logits) is None
    powers = np.exp(logits)
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    assert decimals(probabilities) is None
    assert decimals(probabilities.round(2)) == 2
    manner = Manner()
    joined([from_array(probabilities.round(1), 20)], images(20), manner)
    assert "1 decimals" in manner.label_only and "top classes" in manner.notes[0]


def test_nonsense_is_degenerate() -> None:
    with pytest.raises(DegenerateModel, match="do not depend"):
        joined([from_array(np.ones((9, 3), np.float32), 9)], images(9), Manner())
    with pytest.raises(DegenerateModel, match="width"):
        joined([from_array(np.eye(3)[:2], 2), from_array(np.eye(4)[:2], 2)], images(4), Manner())
    mixed = [from_array(np.eye(3), 3), from_array(np.array([1, 2]), 2)]
    assert joined(mixed, images(5), Manner()).argmax(axis=1).tolist() == [0, 1, 2, 1, 2]
    constant = joined([Answers(np.zeros(9, np.int64), None, "it answers labels only")], images(9), Manner())
    assert constant.shape == (9, 2)  # one label for all inputs is possible: few labels are no proof of nonsense


def test_label_names() -> None:
    assert [index_of(t, ("cat", "7")) for t in ("cat", "7", "12")] == [0, 1, 12]
    for text in ("dog", "-1", "1.0", "", "١", "9" * 20, "\x1b[31m"):
        with pytest.raises(UnsupportedModel) as caught:
            index_of(text, ("cat",))
        assert "--class-names" in caught.value.remedy and "\x1b" not in caught.value.message


def test_an_integer_beyond_every_float_is_degenerate() -> None:
    with pytest.raises(DegenerateModel):
        from_json([{"0": 10**400, "1": 1}], 1)


def test_booleans_and_text_are_no_numbers() -> None:
    for rows in ([True, False], [[0.5, True], [1, 2]], ["1.5", "2"], [[1, "2"], [3, 4]], [None, 1], [{"0": True}, {}]):
        with pytest.raises((HostFailed, UnsupportedModel)):
            from_json(rows, 2)


# -- files of answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("# export: abc\nindex,label\n1,7\n0,3\n", [3, 7]), ("label\n3\n7\n", [3, 7]), ("3\n7\n", [3, 7]),
        ("0.1,0.9\n0.8,0.2\n", [1, 0]), ("index,a,b\n1,0.8,0.2\n0,0.1,0.9\n", [1, 0]),
        ("\ufeffindex,label\r\n0, 3\r\n1, 7\r\n\r\n", [3, 7]),
    ],
)  # fmt: skip
def test_csv(text: str, labels: list[int], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    found = byhand.read(path)
    assert found.answers.labels.tolist() == labels
    assert found.export == ("abc" if "abc" in text else "")


@pytest.mark.parametrize(
    "text",
    [
        "", "index,label\n", "index,label\n0,\n1,2\n", "index,label\n0,1\n0,2\n", "index,label\n0,1\n2,2\n",
        "index,label\nx,1\n", "1,2\n3\n", "0.1,x\n0.2,0.3\n", "index,label\n0,1,2\n", "\x00",
    ],
)  # fmt: skip
def test_csv_that_can_not_be_used(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises((DataError, UnsupportedModel)):
        byhand.read(path)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".npz", ".npy", ".csv", ".json", ".txt", ""]))
def test_any_file_is_answers_or_an_error(data: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"answers{suffix}"
    path.write_bytes(data)
    try:
        byhand.read(path)
    except FingerprintError as error:
        assert error.message


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=np.array([{"a": 1}], object))
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError):
            byhand.read(tmp_path / name)


def test_bombs_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", labels=np.zeros(40_000_000, np.int64))
    assert (tmp_path / "a.npz").stat().st_size < 2_000_000
    with pytest.raises(DataError, match="too much"):
        byhand.read(tmp_path / "a.npz")
    head = {"descr": "<i8", "fortran_order": False, "shape": (10**13,)}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
    with pytest.raises(DataError):
        byhand.read(tmp_path / "a.npy")


def test_json_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"export": "abc", "answers": ["cat", "dog"]}))
    found = byhand.read(path, ["dog", "cat"])
    assert (found.export, found.answers.labels.tolist(), found.count) == ("abc", [1, 0], 2)
    for value in ({}, {"answers": []}, {"export": 3, "answers": [1]}, [], 3, {"answers": {"0": 1}}):
        path.write_text(json.dumps(value))
        with pytest.raises(DataError):
            byhand.read(path)
