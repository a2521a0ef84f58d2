"""Input filters inside the graph: JPEG, resize, blur, bit depth. What a host puts before a model against odd inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import count, positive, share

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable

GRAMMAR = (
    "filter:jpeg:Q (quality 1 to 100), filter:resize:S (to the share S of the side and back), filter:blur:SIGMA "
    "(pixels) or filter:bits:N (1 to 7 bits per value)"
)


@dataclass(frozen=True)
class Filter(ModuleTransform):
    """The source behind a filter of its 8-bit input, in one graph."""

    kind: str
    value: float

    name: ClassVar[str] = "filter"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Filter:
        """From (kind, value)."""
        match arguments:
            case ("jpeg", quality):
                return cls("jpeg", count(quality, GRAMMAR, 1, 100))
            case ("bits", number):
                return cls("bits", count(number, GRAMMAR, 1, 7))
            case ("resize", part):
                return cls("resize", share(part, GRAMMAR))
            case ("blur", sigma):
                return cls("blur", positive(sigma, GRAMMAR))
        raise TransformError(f"filter can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")

    def spell(self) -> str:
        """For example `filter:jpeg:75`."""
        return f"filter:{self.kind}:{self.value!r}"

    def check(self, context: DeriveContext) -> None:
        """A spec must say what an 8-bit value becomes; JPEG needs colour or grey images of 8 pixels at least."""
        from fingerprint.transforms.training import specified

        spec = specified(context, self.spell())
        smallest = {"jpeg": 8, "resize": 2}.get(self.kind, 1)
        if min(spec.height, spec.width) < smallest:
            raise TransformError(f"images of {spec.height}x{spec.width} are too small for {self.spell()}")

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Input to 8-bit values, the filter, rounding, and back to input."""
        from fingerprint.transforms.pictures import filtered
        from fingerprint.transforms.training import specified
        from fingerprint.transforms.wrappers import rewrapped

        module = filtered(self.kind, self.value, specified(context, self.spell()), model.module)
        return rewrapped(module, model, self.spell())
