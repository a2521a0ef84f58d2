"""Input specs: sidecars, defaults, and that every wrong field is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.errors import SpecError
from fingerprint.limits import DEFAULT
from fingerprint.model import InputSpec
from fingerprint.spec import FoundSpec, find_spec, load_spec, sidecar_path

FULL: dict[str, object] = {
    "layout": "NCHW", "shape": [3, 32, 40], "dtype": "float32", "range": [-1, 1], "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 0.6, 0.7], "channels": "BGR", "classes": 11, "class_offset": 1, "author": "somebody",
}  # fmt: skip


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_all_fields(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path / "s.json", FULL))
    assert spec == InputSpec(
        "NCHW", (3, 32, 40), "float32", (-1.0, 1.0), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "BGR", 11, 1, "somebody"
    )
    assert (spec.height, spec.width, spec.depth, spec.image_shape) == (32, 40, 3, (32, 40, 3))
    assert load_spec(write(tmp_path / "again.json", spec.to_dict())) == spec


def test_defaults(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path / "s.json", {"layout": "NHWC", "shape": [28, 20, 1]}))
    assert spec == InputSpec("NHWC", (28, 20, 1), "float32", (0.0, 1.0), (0.0,), (1.0,), "L", None, 0, None)
    assert (spec.height, spec.width, spec.depth) == (28, 20, 1)
    colour = load_spec(write(tmp_path / "c.json", {"layout": "NCHW", "shape": [3, 8, 9], "mean": [0.5], "std": [2]}))
    assert (colour.mean, colour.std, colour.channels) == ((0.5,) * 3, (2.0,) * 3, "RGB")  # one number serves all


def test_notes_are_ignored(tmp_path: Path) -> None:
    noted = load_spec(write(tmp_path / "s.json", {**FULL, "comment": ["anything"], "licence": None}))
    assert noted == load_spec(write(tmp_path / "t.json", FULL))


WRONG = [
    ("layout", "NCWH"), ("layout", None), ("layout", 3),
    ("shape", [3, 32]), ("shape", [3, 32, 32, 1]), ("shape", [3, 0, 32]), ("shape", [3, -1, 32]),
    ("shape", [3, 32, 70_000]), ("shape", [4, 32, 32]), ("shape", [2, 32, 32]), ("shape", "3x32x32"), ("shape", None),
    ("dtype", "float64"), ("dtype", "int32"), ("dtype", ""), ("dtype", 8),
    ("range", [0]), ("range", [0, 1, 2]), ("range", [1, 1]), ("range", ["a", 1]), ("range", None),
    ("mean", [0.1, 0.2]), ("mean", []), ("mean", [0, 0, 0, 0]), ("mean", "0"), ("mean", [None]), ("mean", 0.5),
    ("std", [1, 1]), ("std", [1, 0, 1]), ("std", [0]), ("std", [-0.0, 1, 1]), ("std", []),
    ("channels", "RGBA"), ("channels", "L"), ("channels", 3),
    ("classes", 1), ("classes", 0), ("classes", -3), ("classes", 2.5), ("classes", "ten"),
    ("class_offset", -1), ("class_offset", 0.5), ("class_offset", None),
    ("author", 3), ("author", ["a"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_every_wrong_field_is_named(name: str, value: object, tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.json", {**FULL, name: value})
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    text = caught.value.message
    assert str(path) in text
    assert name in text.replace(str(path), "")
    assert name in caught.value.remedy  # the list of fields


@pytest.mark.parametrize("name", ["layout", "shape"])
def test_every_missing_field_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=name):
        load_spec(write(tmp_path / "s.json", {k: v for k, v in FULL.items() if k != name}))


@pytest.mark.parametrize("name", ["range", "mean", "std"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(name: str, number: str, tmp_path: Path) -> None:
    text = json.dumps({**FULL, name: [1.5, 2.5] if name == "range" else [1.5] * 3}).replace("1.5", number)
    with pytest.raises(SpecError):
        load_spec(write(tmp_path / "s.json", text))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"spec"', "[" * 50_000, "\x00", '{"layout":'])
def test_what_is_no_spec(text: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"s\.json"):
        load_spec(write(tmp_path / "s.json", text))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="can't be read"):
        load_spec(tmp_path / "absent.json")
    with pytest.raises(SpecError, match="can't be read"):
        load_spec(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00{}")
    with pytest.raises(SpecError):
        load_spec(tmp_path / "binary.json")


def test_too_large_a_file(tmp_path: Path) -> None:
    padded = json.dumps(FULL) + " " * DEFAULT.spec_bytes
    with pytest.raises(SpecError, match="larger than"):
        load_spec(write(tmp_path / "s.json", padded))
    assert load_spec(write(tmp_path / "t.json", padded[: DEFAULT.spec_bytes])).classes == 11


def test_depth_follows_the_layout(tmp_path: Path) -> None:
    for layout, shape in (("NHWC", [3, 32, 32]), ("NCHW", [32, 32, 3])):
        with pytest.raises(SpecError, match="32 channels"):
            load_spec(write(tmp_path / "s.json", {"layout": layout, "shape": shape}))
    with pytest.raises(SpecError, match="channels"):
        load_spec(write(tmp_path / "s.json", {"layout": "NCHW", "shape": [1, 8, 8], "channels": "RGB"}))


def test_which_spec_is_found(tmp_path: Path) -> None:
    model = tmp_path / "model.v1.onnx"
    assert sidecar_path(model) == tmp_path / "model.v1.onnx.spec.json"
    assert find_spec(model, None) is None
    beside = {"layout": "NCHW", "shape": [1, 4, 4]}
    write(sidecar_path(model), beside)
    assert find_spec(model, None) == FoundSpec(load_spec(sidecar_path(model)), "sidecar")
    given_file = write(tmp_path / "given.json", FULL)
    assert find_spec(model, given_file) == FoundSpec(load_spec(given_file), "flag")
    spec = load_spec(given_file)
    assert find_spec(model, spec) == FoundSpec(spec, "flag")
    with pytest.raises(SpecError):
        find_spec(model, tmp_path / "absent.json")
    write(sidecar_path(model), "{")
    with pytest.raises(SpecError):
        find_spec(model, None)


FINITE = st.floats(-1e6, 1e6)


@given(
    st.sampled_from(["NCHW", "NHWC"]),
    st.integers(1, 500),
    st.integers(1, 500),
    st.sampled_from(["L", "RGB", "BGR"]),
    st.sampled_from(["float32", "float16", "uint8", "int8"]),
    st.tuples(FINITE, FINITE).filter(lambda r: r[0] != r[1]),
    st.lists(FINITE, min_size=3, max_size=3),
    st.lists(FINITE.filter(bool), min_size=3, max_size=3),
    st.integers(0, 5),
)
def test_specs_survive_their_file(
    tmp_path_factory: pytest.TempPathFactory, layout: str, height: int, width: int, channels: str, dtype: str,
    numbers: tuple[float, float], mean: list[float], std: list[float], offset: int,
) -> None:  # fmt: skip
    depth = 1 if channels == "L" else 3
    shape = (depth, height, width) if layout == "NCHW" else (height, width, depth)
    spec = InputSpec(
        layout, shape, dtype, numbers, tuple(mean[:depth]), tuple(std[:depth]), channels, None, offset  # type: ignore[arg-type]
    )  # fmt: skip
    assert load_spec(write(tmp_path_factory.mktemp("specs") / "s.json", spec.to_dict())) == spec


@pytest.mark.parametrize(
    "fields",
    [
        {"layout": "NCHW", "shape": [3, 8, 8]},
        {"layout": "NHWC", "shape": [8, 8, 1], "dtype": "uint8", "range": [0, 255], "classes": 10},
        {"layout": "NCHW", "shape": [3, 8, 8], "mean": [0.5], "std": [0.2, 0.3, 0.4], "channels": "BGR"},
        {"layout": "NCHW", "shape": [3, 8, 8], "mean": None, "class_offset": 1, "author": "a", "note": "ignored"},
    ],
)
def test_a_spec_completed_without_checks_is_the_same(tmp_path: Path, fields: dict[str, object]) -> None:
    (tmp_path / "s.json").write_text(json.dumps(fields))
    assert InputSpec.completed(fields) == load_spec(tmp_path / "s.json")
