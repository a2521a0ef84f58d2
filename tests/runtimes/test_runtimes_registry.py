"""The registry knows the built-in runtimes without scanning, and plug-ins by entry points."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import ClassVar

import pytest

from fingerprint.errors import MissingExtra, UnreadableModel, UnsupportedModel, UsageError
from fingerprint.runtimes import packages, registry
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.registry import BUILTIN, runtime_for, runtime_name, runtime_named, runtime_names

ROOT = Path(__file__).parents[2]


class Plugged(Runtime):
    """A plug-in for a format that is told apart but not executed by the built-in ones."""

    name: ClassVar[str] = "plugged"
    extra: ClassVar[str | None] = None
    formats: ClassVar[tuple[str, ...]] = ("gguf",)

    def version(self) -> str:
        return "1"

    def preload(self) -> None:
        return

    def load(self, path: Path, format: str, options: LoadOptions) -> LoadedModel:
        raise NotImplementedError


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch):
    points = EntryPoints(
        [
            EntryPoint("plugged", f"{__name__}:Plugged", registry.GROUP),
            EntryPoint("wrong", "json:dumps", registry.GROUP),
            EntryPoint("torch", f"{__name__}:Plugged", registry.GROUP),
        ]
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    registry._plugins.cache_clear()
    registry.runtime_named.cache_clear()
    yield
    registry._plugins.cache_clear()
    registry.runtime_named.cache_clear()


def test_the_list_is_that_of_the_entry_points() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    assert declared == BUILTIN


def test_built_in_formats_are_those_of_the_classes() -> None:
    listed = {(f, name) for name in BUILTIN for f in runtime_named(name).formats}
    assert listed == set(registry._BUILTIN_FORMATS.items())
    assert all(runtime_named(name).name == name for name in BUILTIN)


def test_known_formats() -> None:
    assert runtime_for("onnx").name == "onnx" and runtime_for("tflite").name == "litert"
    assert runtime_for("pt2") is runtime_for("safetensors")
    always = ("torch", "onnx", "litert", "openvino", "ncnn", "mnn", "executorch")  # what `dev` installs
    assert all(runtime_named(name).version()[0].isdigit() for name in always)
    for name in set(BUILTIN) - set(always):  # an optional one says its version, or which extra brings it
        try:
            assert runtime_named(name).version()[0].isdigit()
        except MissingExtra as error:
            assert error.extra in ("tvm", "coreml", "all")


@pytest.mark.parametrize(("format", "word"), [("keras", "Keras"), ("apk", "Android"), ("nonsense", "nonsense")])
def test_others_are_named(format: str, word: str) -> None:
    with pytest.raises(UnsupportedModel, match=word):
        runtime_name(format)


def test_remedies() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        runtime_name("git-lfs-pointer")
    assert "git lfs pull" in caught.value.remedy
    with pytest.raises(UnreadableModel):
        runtime_name("damaged-zip")


@pytest.mark.usefixtures("plugged")
def test_plugins_come_last_and_never_replace() -> None:
    assert runtime_for("gguf").name == "plugged"
    assert type(runtime_named("torch")).__name__ == "TorchRuntime"
    assert runtime_names() == [*BUILTIN, "plugged", "wrong"]
    with pytest.raises(UsageError, match="no subclass"):
        runtime_named("wrong")


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="no runtime is named"):
        runtime_named("nonsense")


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtra) as caught:
        require("no_such_module", "no-such-thing", "onnx")
    assert "dnn-fingerprint[onnx]" in caught.value.remedy
    with pytest.raises(MissingExtra):
        version_of("no-such-thing", None)
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(MissingExtra):
        runtime_for("onnx")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from fingerprint.runtimes.registry import runtime_for, runtime_name; runtime_name('onnx');"
        "assert 'numpy' not in sys.modules; runtime_for('onnx'), runtime_for('tflite'), runtime_for('pt2');"
        "names = {'torch', 'onnxruntime', 'ai_edge_litert', 'onnx', 'pydantic', 'importlib.metadata'};"
        "heavy = names & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
