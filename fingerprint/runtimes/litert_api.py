"""What is used of LiteRT, typed, and the few things it makes necessary."""

from __future__ import annotations

from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnsupportedModel

DTYPES = ("float32", "float16", "uint8", "int8", "int16", "int32", "int64")


class TensorDetails(TypedDict):
    """What LiteRT tells of a tensor."""

    name: str
    index: int
    shape: NDArray[np.int32]
    shape_signature: NDArray[np.int32]
    dtype: type[np.generic]
    quantization: tuple[float, int]


class InterpreterLike(Protocol):
    """What is used of LiteRT's interpreter."""

    def allocate_tensors(self) -> None: ...
    def resize_tensor_input(self, index: int, shape: tuple[int, ...]) -> None: ...
    def get_input_details(self) -> list[TensorDetails]: ...
    def get_output_details(self) -> list[TensorDetails]: ...
    def set_tensor(self, index: int, value: NDArray[np.generic]) -> None: ...
    def invoke(self) -> None: ...
    def get_tensor(self, index: int) -> NDArray[np.generic]: ...


def ends(interpreter: InterpreterLike) -> tuple[TensorDetails, TensorDetails]:
    """The only input and the first output.

    Raises:
        UnsupportedModel: not one tensor of numbers each.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1:
        raise UnsupportedModel(f"it has {len(inputs)} inputs; one batch of images is needed")
    if not outputs:
        raise UnsupportedModel("it has no output")
    for end, details in (("input", inputs[0]), ("output", outputs[0])):
        if np.dtype(details["dtype"]).name not in DTYPES:
            raise UnsupportedModel(f"its {end} is {np.dtype(details['dtype']).name}, not a tensor of numbers")
    if not len(inputs[0]["shape"]):
        raise UnsupportedModel("its input is one number; a batch of images is needed")
    return inputs[0], outputs[0]
