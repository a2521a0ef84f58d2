"""Converters of others, each in a process of its own and, where its pins clash with ours, in an environment of its own.

An interpreter that has a converter is the one that a variable names, this one where it has the packages, or
`converters/NAME` in the tool's home. A process of its own contains what converters do: crashes, chatter, settings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from fingerprint.errors import MissingExtra, TransformError
from fingerprint.frozen import dataclass

CONVERT_S = 1800.0  # wall seconds that one conversion may take
VARIABLE = "FINGERPRINT_CONVERTER_PYTHON"  # of the LiteRT converter; of others with _NAME behind it
_TAIL = 12  # lines of the converter's stderr that an error shows


@dataclass(frozen=True)
class Converter:
    """One converter.

    Attributes:
        name: of its folder below `converters/`.
        title: what a person calls it.
        modules: what must be importable where it runs.
        packages: what pip installs for that, as requirements.
        makes: what it is for, as `fingerprint doctor` shows it.
        script: a file beside this one that runs alone there and imports nothing of this package.
        size: of an environment that has it.
        clashes: its pins are not those of this tool, so that it should not be installed here.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    makes: str
    script: str = "_compile_worker.py"
    size: str = "about 1.5 GB"
    clashes: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that names an interpreter that has it."""
        return VARIABLE if self.name == "litert" else f"{VARIABLE}_{self.name.upper()}"

    def python(self) -> Path:
        """The interpreter that has it.

        Raises:
            MissingExtra: there is none. TransformError: the variable names none.
        """
        named = os.environ.get(self.variable, "")
        if named:
            if not Path(named).is_file():
                raise TransformError(f"{self.variable} names {named}, which does not exist", remedy=self._how())
            return Path(named)
        if all(find_spec(module) for module in self.modules):
            return Path(sys.executable)
        python = self._environment() / "bin" / "python"
        if python.is_file():
            return python
        raise self._missing()

    def version(self) -> str:
        """Versions of its packages, and where they are.

        Raises:
            MissingExtra, TransformError: there is none, or it can't be asked.
        """
        python = self.python()
        names = [package.split(">")[0] for package in self.packages]
        code = f"from importlib.metadata import version as v; print(*(f'{{n}} {{v(n)}}' for n in {names}), sep=', ')"
        try:
            asked = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TransformError(f"{python} can't be run: {error}", remedy=self._how()) from error
        if asked.returncode:
            raise self._missing()
        return f"{asked.stdout.strip()} in {python}"

    def run(self, folder: Path, *arguments: str | Path) -> None:
        """Run its script. The output goes to a file in `folder`, so that no grandchild can hold a pipe open.

        Raises:
            MissingExtra: no such converter. TransformError: it failed, with the end of what it said.
        """
        python = self.python()
        own = python.absolute() == Path(sys.executable).absolute()
        environment = {k: v for k, v in os.environ.items() if own or k not in ("PYTHONPATH", "PYTHONHOME")}
        environment["PYTHONSAFEPATH"] = "1"  # modules beside the script must not stand before packages of that name
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
        environment["PATH"] = os.pathsep.join([str(python.absolute().parent), environment.get("PATH", os.defpath)])
        with (folder / "converter.log").open("w+b") as log:
            process = subprocess.Popen(
                [python, Path(__file__).with_name(self.script), *(_absolute(a) for a in arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
            try:
                code = process.wait(CONVERT_S)
            except subprocess.TimeoutExpired as error:
                raise TransformError(f"the {self.title} did not finish in {CONVERT_S:.0f} s") from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            log.seek(0)
            said = log.read().decode(errors="replace")
        if code:
            raise self._failure(code, said)

    def _environment(self) -> Path:
        from platformdirs import user_data_path

        home = os.environ.get("FINGERPRINT_HOME", "")
        base = Path(home).expanduser() if home else user_data_path("dnn-fingerprint", appauthor=False)
        return base.absolute() / "converters" / self.name

    def _missing(self) -> MissingExtra:
        error = MissingExtra(f"the {self.title} ({', '.join(self.modules)})", "compile")
        error.remedy = self._how()
        return error

    def _how(self) -> str:
        folder = self._environment()
        packages = " ".join(f"'{package}'" for package in self.packages)
        here = "" if self.clashes else f"Install it here with: pip install {packages}\nor m"
        return (
            f"{here or 'M'}ake an environment for it ({self.size}), which is then found by itself:\n"
            f"  python3 -m venv {folder}\n  {folder}/bin/pip install {packages}\n"
            f"or name the interpreter of one that has it in {self.variable}."
        )

    def _failure(self, code: int, said: str) -> TransformError | MissingExtra:
        lines = [line for line in said.splitlines() if line.strip()]
        if lines and lines[-1].startswith("ModuleNotFoundError"):
            return self._missing()
        tail = "\n".join(lines[-_TAIL:])
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        return TransformError(f"the {self.title} failed ({how}):\n{tail}")


LITERT = Converter(
    "litert",
    "LiteRT converter",
    ("litert_torch", "ai_edge_quantizer"),
    ("litert-torch>=0.10", "ai-edge-quantizer>=0.10"),
    "compile:litert, quantize of .tflite files",
    "_litert_worker.py",
    "about 2 GB",
    clashes=True,
)
OPENVINO = Converter("openvino", "OpenVINO converter", ("openvino",), ("openvino>=2025.0",), "compile:openvino")
NNCF = Converter(
    "nncf", "NNCF quantizer", ("openvino", "nncf"), ("openvino>=2025.0", "nncf>=2.14"), "quantize:static:int8 of .xml"
)
NCNN = Converter("ncnn", "ncnn converter", ("pnnx", "torch"), ("pnnx>=20250101", "torch>=2.6"), "compile:ncnn")
MNN = Converter("mnn", "MNN converter", ("MNN",), ("MNN>=3.0",), "compile:mnn")
EXECUTORCH = Converter("executorch", "ExecuTorch exporter", ("executorch",), ("executorch>=1.0",), "compile:executorch")
TVM = Converter("tvm", "TVM compiler", ("tvm", "torch"), ("apache-tvm>=0.20", "torch>=2.6"), "compile:tvm")
AOTINDUCTOR = Converter("aotinductor", "AOTInductor compiler", ("torch",), ("torch>=2.6",), "compile:aotinductor")
COREML = Converter(
    "coreml", "Core ML converter", ("coremltools", "torch"), ("coremltools>=8", "torch>=2.6"), "compile:coreml"
)
CONVERTERS = (LITERT, OPENVINO, NNCF, NCNN, MNN, EXECUTORCH, TVM, AOTINDUCTOR, COREML)
MAKERS = {
    "tflite": LITERT,
    "openvino": OPENVINO,
    "ncnn": NCNN,
    "mnn": MNN,
    "executorch": EXECUTORCH,
    "tvm": TVM,
    "aotinductor": AOTINDUCTOR,
    "coreml": COREML,
}  # the converter that makes a format


def _absolute(argument: str | Path) -> str | Path:
    return argument.absolute() if isinstance(argument, Path) else argument
