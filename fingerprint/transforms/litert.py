"""TFLite files by litert-torch and ai-edge-quantizer, in a process of their own.

Their pins clash with ours, so that they usually live in another environment: `$FINGERPRINT_CONVERTER_PYTHON`, this
interpreter where it has them, or `converters/litert` in the tool's home.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import MissingExtra, TransformError
from fingerprint.transforms.files import workspace
from fingerprint.transforms.interface import DeriveContext

VARIABLE = "FINGERPRINT_CONVERTER_PYTHON"
CONVERT_S = 1800.0  # wall seconds that one conversion may take
_SCRIPT = Path(__file__).with_name("_litert_worker.py")
_PACKAGES = "'litert-torch>=0.10' 'ai-edge-quantizer>=0.10'"
_VERSIONS = "from importlib.metadata import version as v; print(v('litert-torch'), v('ai-edge-quantizer'), sep=' and ')"
_TAIL = 12  # lines of the converter's stderr that an error shows


def to_tflite(source: Path, out: Path, context: DeriveContext, half: bool = False) -> None:
    """A torch or ONNX file as TFLite at batch 1, in the layout that it has; `half`: weights stored as float16.

    Raises:
        MissingExtra: no converter environment; the remedy says how to make one.
        TransformError: the converter failed, with the end of what it said.
    """
    from fingerprint.transforms.files import format_of

    python = converter_python()
    with workspace(out.parent) as folder:
        if format_of(source) == "tflite":
            converted = source
        else:
            from fingerprint.transforms.to_torch import to_pt2

            program, converted = folder / "program.pt2", folder / "converted.tflite"
            to_pt2(source, program, context)
            _run(python, "convert", program, converted)
        if half:
            _run(python, "fp16", converted, out)
        else:
            out.write_bytes(converted.read_bytes())


def quantize_static(source: Path, out: Path, inputs: NDArray[np.float32]) -> None:
    """Weights, activations, input and output as int8, ranges from `inputs` (N, ...). Raises as `to_tflite`."""
    python = converter_python()
    with workspace(out.parent) as folder:
        np.save(folder / "inputs.npy", inputs)
        _run(python, "static", source, folder / "quantized.tflite", folder / "inputs.npy")
        (folder / "quantized.tflite").replace(out)


def quantize_dynamic(source: Path, out: Path) -> None:
    """Weights as int8, activations quantized while it runs. Raises as `to_tflite`."""
    _run(converter_python(), "dynamic", source, out)


def converter_python() -> Path:
    """The interpreter that has the converter.

    Raises:
        MissingExtra: there is none.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        if not Path(named).is_file():
            raise TransformError(f"{VARIABLE} names {named}, which does not exist", remedy=_how_to_install())
        return Path(named)
    if find_spec("litert_torch") and find_spec("ai_edge_quantizer"):
        return Path(sys.executable)
    python = _environment() / "bin" / "python"
    if python.is_file():
        return python
    raise _missing()


def converter_version() -> str:
    """Versions of the converter's packages, and where they are.

    Raises:
        MissingExtra, TransformError: there is none, or it can't be asked.
    """
    python = converter_python()
    try:
        asked = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransformError(f"{python} can't be run: {error}", remedy=_how_to_install()) from error
    if asked.returncode:
        raise _missing()
    return f"{asked.stdout.strip()} in {python}"


def _environment() -> Path:
    from platformdirs import user_data_path

    home = os.environ.get("FINGERPRINT_HOME", "")
    base = Path(home).expanduser() if home else user_data_path("dnn-fingerprint", appauthor=False)
    return base.absolute() / "converters" / "litert"


def _missing() -> MissingExtra:
    error = MissingExtra("the LiteRT converter (litert-torch, ai-edge-quantizer)", "compile")
    error.remedy = _how_to_install()
    return error


def _how_to_install() -> str:
    folder = _environment()
    return (
        "Make an environment for it (about 2 GB), which is then found by itself:\n"
        f"  python3 -m venv {folder}\n  {folder}/bin/pip install {_PACKAGES}\n"
        f"or name the interpreter of one that has both in {VARIABLE}."
    )


def _run(python: Path, *arguments: str | Path) -> None:
    """Run the worker script; its output goes to a file, so that no grandchild can hold a pipe open."""
    folder = Path(arguments[2]).parent
    own = python.absolute() == Path(sys.executable).absolute()
    environment = {k: v for k, v in os.environ.items() if own or k not in ("PYTHONPATH", "PYTHONHOME")}
    with (folder / "converter.log").open("w+b") as log:
        process = subprocess.Popen(
            [python, _SCRIPT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(CONVERT_S)
        except subprocess.TimeoutExpired as error:
            raise TransformError(f"the LiteRT converter did not finish in {CONVERT_S:.0f} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if code:
        raise _failure(code, said)


def _failure(code: int, said: str) -> TransformError | MissingExtra:
    lines = [line for line in said.splitlines() if line.strip()]
    if lines and lines[-1].startswith("ModuleNotFoundError"):
        return _missing()
    tail = "\n".join(lines[-_TAIL:])
    return TransformError(f"the LiteRT converter failed (exit {code}):\n{tail}")
