"""Probes as pictures with the answers they got. Only for reports that were asked to show probes: they are secret."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO

from fingerprint.frozen import dataclass
from fingerprint.model import Images
from fingerprint.record import Manifest, Payload

SHOWN = 60  # probes of one suspect
LARGEST = 96  # pixels of a side; larger probes are shown reduced


@dataclass(frozen=True)
class Picture:
    """One probe: where it comes from, what the owner's model and the suspect answered. `same`: None where unknown.

    radius: the random weight change, relative to each tensor's RMS, that its label is certified to stand, or None.
    """

    number: int
    family: str
    source: str  # data: URI of a PNG
    owner: int
    suspect: int | None
    same: bool | None
    radius: float | None = None


@dataclass(frozen=True)
class Gallery:
    """What of the probes is shown."""

    pictures: tuple[Picture, ...]
    left_out: int
    reduced: bool

    @property
    def certified(self) -> bool:
        """Whether a picture states a radius."""
        return any(picture.radius is not None for picture in self.pictures)


def gallery(manifest: Manifest, payload: Payload, answers: Mapping[str, Sequence[int]] | None, matches: int) -> Gallery:
    """The probes that were asked, at most `SHOWN`.

    matches: as many as the verdict counted. Where the labels as they stand give another number, the suspect's labels
    mean something else than the owner's, and no probe is called a match.
    """
    asked = _asked(answers, len(payload.targets))
    numbers = shown(answers, len(payload.targets))
    comparable = sum(label == int(payload.targets[probe]) for probe, label in asked.items()) == matches
    pictures = tuple(
        Picture(
            number=number,
            family=manifest.families[int(payload.family[number])].name,
            source=data_uri(payload.probes[number]),
            owner=int(payload.targets[number]),
            suspect=asked.get(number),
            same=asked[number] == int(payload.targets[number]) if comparable and number in asked else None,
            radius=_radius(payload, number),
        )
        for number in numbers
    )
    return Gallery(
        pictures, (len(asked) or len(payload.targets)) - len(numbers), max(payload.probes.shape[1:3]) > LARGEST
    )


def shown(answers: Mapping[str, Sequence[int]] | None, count: int) -> list[int]:
    """Numbers of the probes shown, out of `count`: the first `SHOWN` of those asked (of all, where that is unknown)."""
    return sorted(_asked(answers, count) or range(count))[:SHOWN]


def _radius(payload: Payload, number: int) -> float | None:
    radius = math.nan if payload.certified_radius is None else float(payload.certified_radius[number])
    return None if math.isnan(radius) else radius


def _asked(answers: Mapping[str, Sequence[int]] | None, count: int) -> dict[int, int]:
    if not answers:
        return {}
    pairs = zip(answers.get("probes", ()), answers.get("labels", ()), strict=False)
    return {int(probe): int(label) for probe, label in pairs if 0 <= int(probe) < count}


def data_uri(image: Images) -> str:
    """A PNG of an 8-bit image (H, W, C), as a data: URI. Of unusual channels the first or the first three are shown."""
    from PIL import Image

    drawn = Image.fromarray(image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0])
    drawn.thumbnail((LARGEST, LARGEST))
    out = BytesIO()
    drawn.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(out.getvalue()).decode()
