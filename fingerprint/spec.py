"""Reading input specs: a sidecar `MODEL.spec.json`, or a file given by the user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fingerprint.errors import SpecError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.model import Channels, InputSpec, Layout
from fingerprint.runtimes.parts import main_file

Size = Annotated[int, Field(gt=0, le=65536)]
FIELDS = "layout, shape, dtype, range, mean, std, channels, classes, class_offset, author"


class _SpecFile(BaseModel):
    """What a spec file may hold. Unknown fields are ignored, so that a sidecar can carry notes."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    layout: Layout
    shape: tuple[Size, Size, Size]
    dtype: Annotated[str, Field(pattern=r"^(float32|float16|uint8|int8)$")] = "float32"
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: Channels | None = None
    classes: Annotated[int, Field(gt=1)] | None = None
    class_offset: Annotated[int, Field(ge=0)] = 0
    author: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        depth = self.shape[0] if self.layout == "NCHW" else self.shape[2]
        if depth not in (1, 3):
            raise ValueError(f"shape {self.shape} has {depth} channels in layout {self.layout}; 1 or 3 can be used")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) not in (1, depth):
                raise ValueError(f"{name} has {len(value)} entries for {depth} channels")
        if self.std is not None and min(map(abs, self.std)) == 0:
            raise ValueError("std holds a zero")
        if self.range[0] == self.range[1]:
            raise ValueError("range is empty")
        if self.channels is not None and (self.channels == "L") != (depth == 1):
            raise ValueError(f"channels {self.channels} contradict {depth} channels in shape")
        return self

    def to_input_spec(self) -> InputSpec:
        return InputSpec.completed(self.model_dump())


@dataclass(frozen=True)
class FoundSpec:
    """A spec and where it came from: `flag`, `sidecar` or `detected`."""

    spec: InputSpec
    origin: str


def load_spec(path: Path) -> InputSpec:
    """Read a spec file.

    Raises:
        SpecError: missing, too large, not JSON, or a field is wrong (named).
    """
    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT.spec_bytes + 1)
    except OSError as error:
        raise SpecError(f"the input spec {path} can't be read: {error.strerror}") from error
    if len(data) > DEFAULT.spec_bytes:
        raise SpecError(f"the input spec {path} is larger than {DEFAULT.spec_bytes} bytes")
    try:
        return _SpecFile.model_validate_json(data).to_input_spec()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SpecError(
            f"the input spec {path} is wrong: {where}: {first['msg']}",
            remedy=f"Fields: {FIELDS}; see docs/input-spec.md.",
        ) from error


def sidecar_path(model: Path) -> Path:
    """`MODEL.spec.json` beside the file."""
    return model.with_name(model.name + ".spec.json")


def find_spec(model: Path, given: Path | InputSpec | None) -> FoundSpec | None:
    """The spec to use for a model file: the given one, else its sidecar, else None."""
    if isinstance(given, InputSpec):
        return FoundSpec(given, "flag")
    if given is not None:
        return FoundSpec(load_spec(given), "flag")
    for file in dict.fromkeys((model, main_file(model))):  # weights beside their network share its sidecar
        sidecar = sidecar_path(file)
        if sidecar.is_file():
            return FoundSpec(load_spec(sidecar), "sidecar")
    return None
