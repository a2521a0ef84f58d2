"""Reading and writing ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import MissingExtra, TransformError
from fingerprint.transforms.files import first_line

if TYPE_CHECKING:
    import onnx

_TYPES = {1: "float32", 10: "float16", 11: "float64", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Raises:
        TransformError: damaged. MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("onnx", "onnx") from error
    try:
        return onnx.load(path)
    except Exception as error:
        raise TransformError(f"{path} can't be read as ONNX: {first_line(error)}") from error


def save_onnx(model: onnx.ModelProto, out: Path) -> None:
    """Write one file, weights inside.

    Raises:
        TransformError: more than ONNX can hold in one file.
    """
    import onnx

    try:
        onnx.save(model, out)
    except ValueError as error:  # protobuf: more than 2 GiB
        raise TransformError(f"the model is too large for one ONNX file: {first_line(error)}") from error


def onnx_input(model: onnx.ModelProto) -> tuple[tuple[int | None, ...], str]:
    """Shape (None = open) and dtype of the one input.

    Raises:
        TransformError: there are several.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise TransformError(f"the model takes {len(inputs)} inputs; only models with one can be converted")
    tensor = inputs[0].type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    return shape, _TYPES.get(tensor.elem_type, "float32")
