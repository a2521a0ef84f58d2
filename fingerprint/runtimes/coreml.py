"""Core ML models (`.mlmodel`, `.mlpackage`): described, never run, for Core ML exists on Apple's systems only.

Layout of the messages: Model.proto and FeatureTypes.proto of coremltools. The package itself is not needed for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, NoReturn

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadOptions, Runtime
from fingerprint.runtimes.protobuf import Field, message, varints

_DESCRIPTION, _INPUT, _OUTPUT = 2, 1, 10  # of Model; of ModelDescription
_NAME, _TYPE = 1, 3  # of FeatureDescription
_IMAGE, _ARRAY = 4, 5  # of FeatureType
_TYPES = {1: "an integer", 2: "a number", 3: "text", 6: "a dictionary", 7: "a sequence", 8: "a state"}
_COLOURS = {10: "grey", 20: "RGB", 30: "BGR", 40: "grey float16"}
_ARRAYS = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}
_KINDS = {
    200: "pipeline classifier",
    201: "pipeline regressor",
    202: "pipeline",
    303: "neural network regressor",
    403: "neural network classifier",
    500: "neural network",
    502: "program",
}
_SHOWN = 5  # inputs and outputs
_REMEDY = (
    "Run the probes on a device: `fingerprint probes export` writes them, and `verify --responses` takes the answers. "
    "Or verify the model that it was converted from."
)


class CoreMlRuntime(Runtime):
    """Describes Core ML models."""

    name: ClassVar[str] = "coreml"
    extra: ClassVar[str | None] = None
    formats: ClassVar[tuple[str, ...]] = (Format.COREML,)
    executes: ClassVar[bool] = False

    def version(self) -> str:
        """That of this tool: nothing else takes part."""
        return version("dnn-fingerprint")

    def check(self) -> None:
        """See `Runtime.check`: there is nothing to install."""

    def preload(self) -> None:
        """See `Runtime.preload`."""

    def load(self, path: Path, format: str, options: LoadOptions) -> NoReturn:
        """Refuse, saying what the model is.

        Raises:
            UnreadableModel: cut or damaged. UnsupportedModel: always otherwise.
        """
        raise UnsupportedModel(f"it is {describe(path)}; Core ML runs on Apple's systems only", remedy=_REMEDY)


def describe(path: Path) -> str:
    """What a Core ML model is, in one line: its kind, inputs and outputs.

    Raises:
        UnreadableModel: cut or damaged.
    """
    content = path.read_bytes()
    if content.startswith(b"PK"):
        return "a zipped Core ML package"
    try:
        return _described(memoryview(content))
    except ValueError as error:
        raise UnreadableModel(f"its Core ML description is cut or damaged: {error}") from error


def _described(model: memoryview) -> str:
    kind, texts = "model", {_INPUT: list[str](), _OUTPUT: list[str]()}
    for number, field in message(model):
        kind = _KINDS.get(number, kind)
        if number == _DESCRIPTION:
            for which, feature in message(_bytes(field)):
                if which in texts and len(texts[which]) < _SHOWN:
                    texts[which].append(_feature(_bytes(feature)))
    given, answers = (", ".join(texts[which]) or "none" for which in (_INPUT, _OUTPUT))
    return f"a Core ML {kind} (inputs: {given}; outputs: {answers})"


def _feature(feature: memoryview) -> str:
    """For example `image: RGB image 224x224`."""
    fields = dict(message(feature))
    name = bytes(_bytes(fields.get(_NAME, memoryview(b"")))).decode("utf-8", "replace")
    shown = "".join(c for c in name if c.isprintable())[:60]
    for number, value in message(_bytes(fields.get(_TYPE, memoryview(b"")))):
        if number == _IMAGE:
            sizes = dict(message(_bytes(value)))
            return f"{shown}: {_COLOURS.get(_number(sizes.get(3)), '')} image {sizes.get(1, '?')}x{sizes.get(2, '?')}"
        if number == _ARRAY:
            return f"{shown}: {_array(_bytes(value))}"
        if number in _TYPES:
            return f"{shown}: {_TYPES[number]}"
    return shown


def _array(array: memoryview) -> str:
    """For example `float32 (1, 3, 224, 224)`."""
    shape: list[int] = []
    kind = "numbers"
    for number, value in message(array):
        if number == 1:
            shape += _integers(value)
        elif number == 2:
            kind = _ARRAYS.get(_number(value), kind)
    return f"{kind} ({', '.join(map(str, shape[:8]))})"


def _integers(value: Field) -> Iterator[int]:
    return varints(value) if isinstance(value, memoryview) else iter((value,))


def _bytes(field: Field) -> memoryview:
    if isinstance(field, int):
        raise ValueError("a number where a message is expected")
    return field


def _number(field: Field | None) -> int:
    return field if isinstance(field, int) else 0
