"""Writing torch files: exported programs, TorchScript, safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import TransformError
from fingerprint.transforms.files import format_of, write_through_memory
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.programs import load_program, program_input, program_module

if TYPE_CHECKING:
    import torch


def to_pt2(source: Path, out: Path, context: DeriveContext) -> None:
    """An exported program, without example inputs."""
    import torch

    program = load_program(source, context)
    write_through_memory(lambda file: torch.export.save(program, file), out)


def to_torchscript(source: Path, out: Path, context: DeriveContext) -> None:
    """A plain trace (a TorchScript source stays the program that it is)."""
    import torch

    if format_of(source) == "torchscript":
        script = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
        write_through_memory(lambda file: torch.jit.save(script, file), out)
        return
    program = load_program(source, context)
    given = program_input(program)
    with torch.no_grad():
        traced = torch.jit.trace(program_module(program), (given.zeros(2),), check_trace=False)  # type: ignore[no-untyped-call]
        if given.batch is None and len(_first(traced(given.zeros(3)))) != 3:
            raise TransformError(
                "tracing froze the batch size of this model", remedy="compile:pt2 and compile:onnx keep it open."
            )
    write_through_memory(lambda file: torch.jit.save(traced, file), out)


def _first(answer: object) -> torch.Tensor:
    while isinstance(answer, (tuple, list)):
        answer = answer[0]
    return answer  # type: ignore[return-value]


def to_safetensors(source: Path, out: Path, context: DeriveContext) -> None:
    """The tensors alone, by the names that the source gives them."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().contiguous().clone() for name, tensor in _tensors(source).items()}, out)


def _tensors(source: Path) -> dict[str, torch.Tensor]:
    import torch

    from fingerprint.transforms.weights.script import script_tensors
    from fingerprint.transforms.weights.torch_files import load_state_dict

    format = format_of(source)
    if format == "pt2":
        program = torch.export.load(source)
        constants = {k: v for k, v in program.constants.items() if isinstance(v, torch.Tensor)}
        return {**program.state_dict, **constants}
    if format == "torchscript":
        module: torch.jit.ScriptModule = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
        return script_tensors(module)
    if format == "onnx":
        from onnx import numpy_helper

        from fingerprint.transforms.onnx_files import load_onnx

        return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in load_onnx(source).graph.initializer}
    if format in ("state-dict", "safetensors"):
        return load_state_dict(source)
    raise TransformError(f"the weights of a {format} file can't be written as safetensors")
