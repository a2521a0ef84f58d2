"""Writing ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import MissingExtra
from fingerprint.transforms.files import format_of
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.onnx_files import save_onnx
from fingerprint.transforms.programs import load_program, spec_input

if TYPE_CHECKING:
    import onnx


def to_onnx(source: Path, out: Path, context: DeriveContext) -> None:
    """One ONNX file with the weights inside; the batch is open where the source leaves it open.

    Raises:
        MissingExtra: the exporter is not installed. TransformError: not a source for this.
    """
    import torch

    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra("onnxscript", "compile-onnx") from error
    if format_of(source) == "torchscript":
        _from_script(source, out, context)
        return
    program = load_program(source, context)
    exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["input"])
    if exported is None:
        raise RuntimeError("torch.onnx.export answered nothing")
    model = exported.model_proto
    _name_batch(model)
    _without_origin(model)
    save_onnx(model, out)


def _from_script(source: Path, out: Path, context: DeriveContext) -> None:
    """The older exporter: it keeps the control flow of a script."""
    import torch

    module: torch.jit.ScriptModule = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
    names = {"input": {0: "batch"}, "output": {0: "batch"}}
    example = (spec_input(source, context).zeros(2),)
    torch.onnx.export(
        module.eval(), example, out, dynamo=False, input_names=["input"], output_names=["output"], dynamic_axes=names
    )


def _name_batch(model: onnx.ModelProto) -> None:
    """Call the open batch `batch`, not by the exporter's running number."""
    first = model.graph.input[0].type.tensor_type.shape.dim
    symbol = first[0].dim_param if first else ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if symbol and size.dim_param == symbol:
                size.dim_param = "batch"


def _without_origin(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source paths, names of the torch program); no runtime reads them."""
    graph = model.graph
    for part in [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        kept = [note for note in part.metadata_props if not note.key.startswith("pkg.")]
        del part.metadata_props[:]
        part.metadata_props.extend(kept)
    for node in graph.node:
        node.doc_string = ""
