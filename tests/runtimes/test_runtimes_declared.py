"""What headers say of inputs: as the runtimes see it, and nothing of what is unusual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fingerprint.runtimes.declared import NO_NUMBERS, Declared, End, declared
from fingerprint.runtimes.formats import Format

FIXTURES = Path(__file__).parents[1] / "fixtures"
IMAGES = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, None])


def network(inputs: list[onnx.ValueInfoProto], **more: object) -> onnx.ModelProto:
    """The first input, handed on; the others are not used."""
    (first, *_) = inputs
    output = helper.make_tensor_value_info("out", first.type.tensor_type.elem_type or TensorProto.FLOAT, None)
    nodes = [helper.make_node("Identity", [first.name], ["out"])]
    graph = helper.make_graph(nodes, "g", inputs, [output], **more)  # type: ignore[arg-type]
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def read(data: bytes, folder: Path, format: str = Format.ONNX) -> Declared | None:
    path = folder / "model"
    path.write_bytes(data)
    with path.open("rb") as file:
        return declared(file.fileno(), format)


def test_an_input_and_the_first_output(tmp_path: Path) -> None:
    found = read(network([IMAGES]).SerializeToString(), tmp_path)
    assert found == Declared((End("images", "float32", (None, 3, 8, None)),), End("out", "float32", None))


def test_inputs_with_a_default_are_none(tmp_path: Path) -> None:
    """Before version 4 of the format every constant was listed as an input."""
    weights = numpy_helper.from_array(np.zeros((2, 2), np.float32), "w")
    listed = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2])
    found = read(network([IMAGES, listed], initializer=[weights]).SerializeToString(), tmp_path)
    assert found is not None and [end.name for end in found.inputs] == ["images"]


def test_inputs_of_text_models(tmp_path: Path) -> None:
    words = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in ("ids", "mask")]
    found = read(network(words).SerializeToString(), tmp_path)
    assert found is not None and found.inputs == tuple(End(name, "int64", (None, None)) for name in ("ids", "mask"))
    strings = helper.make_tensor_value_info("text", TensorProto.STRING, [1])
    found = read(network([strings]).SerializeToString(), tmp_path)
    assert found is not None and found.inputs == (End("text", NO_NUMBERS, (1,)),)


def _twice(model: onnx.ModelProto) -> bytes:
    data = model.SerializeToString()
    return data + data  # a parser of protobuf would merge the two graphs


def _two_types(_: onnx.ModelProto) -> bytes:
    return b"\x08\x08\x3a\x09\x5a\x07\x0a\x01x\x12\x00\x12\x00"  # graph: {input: {name: "x", type: {}, type: {}}}


def _no_names(model: onnx.ModelProto) -> bytes:
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    model.graph.input[0].name = ""
    return model.SerializeToString()


def _same_names(model: onnx.ModelProto) -> bytes:
    model.graph.input.append(model.graph.input[0])
    return model.SerializeToString()


def _sparse(model: onnx.ModelProto) -> bytes:
    model.graph.sparse_initializer.add()
    return model.SerializeToString()


def _cut(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString()[:-10]


@pytest.mark.parametrize(
    "made", [_twice, _two_types, _no_names, _same_names, _sparse, _cut, lambda _: b"", lambda _: b"\x3a\x00" * 9]
)
def test_what_is_unusual_is_no_statement(made: Callable[[onnx.ModelProto], bytes], tmp_path: Path) -> None:
    assert read(made(network([IMAGES])), tmp_path) is None


def test_a_file_of_too_many_fields_is_given_up(tmp_path: Path) -> None:
    assert read(network([IMAGES]).SerializeToString() + b"\x08\x08" * 250_000, tmp_path) is None


@given(st.binary(max_size=200))
def test_no_bytes_hurt(data: bytes) -> None:
    from fingerprint.runtimes import onnx_header, tflite_header

    for reader in (onnx_header.read, tflite_header.read):
        try:
            found = reader(memoryview(data))
        except ValueError:
            continue
        assert found.inputs


@pytest.mark.parametrize("name", ["tiny_float", "tiny_int8", "tiny_mixing", "tiny_single"])
def test_tensorflow_lite_as_its_runtime_sees_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    path = FIXTURES / f"{name}.tflite"
    found = read(path.read_bytes(), tmp_path, Format.TFLITE)
    details = Interpreter(model_path=str(path)).get_input_details()
    expected = [(one["name"], np.dtype(one["dtype"]).name, tuple(one["shape"].tolist())) for one in details]
    assert found is not None and [(end.name, end.dtype, end.shape) for end in found.inputs] == expected


@given(st.data())
def test_damaged_tensorflow_lite_is_read_or_refused(data: st.DataObject) -> None:
    from fingerprint.runtimes import tflite_header

    changed = bytearray((FIXTURES / "tiny_int8.tflite").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=20)):
        changed[place] = data.draw(st.integers(0, 255))
    try:
        tflite_header.read(memoryview(bytes(changed)))
    except ValueError:
        return


def test_other_formats_say_nothing(tmp_path: Path) -> None:
    assert read(b"7767517\n", tmp_path, Format.NCNN) is None
