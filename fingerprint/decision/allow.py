"""The order on the grammar of transformations: is a chain of steps within what was declared?

`--allow TRANSFORM` is an upper limit. A chain is within the limits when every step is covered by a limit of its own:
the same kind of step, and no stronger. Conversions, fp16 and bit-for-bit steps need none. Order inside a chain does not
count. Works on canonical texts (`Transform.spell`), so a verifier needs no transformation installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

Kind = Literal["re-encoded", "quantized", "pruned", "fine-tuned", "distilled", "tampered"]
KINDS: tuple[Kind, ...] = ("re-encoded", "quantized", "pruned", "fine-tuned", "distilled", "tampered")
Step = tuple[str, ...]

_KIND_OF: dict[str, Kind] = {
    "compile": "re-encoded",
    "quantize": "quantized",
    "prune": "pruned",
    "retrain": "fine-tuned",
    "finetune": "fine-tuned",
    "transfer": "fine-tuned",
    "advtrain": "fine-tuned",
    "average": "fine-tuned",
    "curve": "fine-tuned",
    "distil": "distilled",
}  # every other step is tampering with the function
_COMPRESSIONS = ("compile", "quantize", "prune", "circulant")
_RISING: tuple[Kind, ...] = ("re-encoded", "quantized", "pruned", "fine-tuned", "tampered", "distilled")


def steps_of(text: str) -> tuple[Step, ...]:
    """The steps of a chain, without those that change no more than a conversion does."""
    steps = tuple(tuple(part.strip().split(":")) for part in text.split("+") if part.strip())
    return tuple(step for step in steps if not _is_free(step))


def is_compression(text: str) -> bool:
    """Whether every step of a chain only compresses or converts, without training."""
    return all(step[0] in _COMPRESSIONS and step[:2] not in _TRAINED for step in steps_of(text))


def kind_of(text: str) -> Kind:
    """What a chain is called in attribution: the kind of its heaviest step."""
    found = {_KIND_OF.get(step[0], "tampered") for step in steps_of(text)} - {"re-encoded"}
    return max(found, key=_RISING.index, default="re-encoded")


def within(text: str, limits: Sequence[str]) -> bool:
    """Whether a chain does no more than `limits` declare, each limit's steps being used at most once."""
    declared = [step for limit in limits for step in steps_of(limit)]
    return _matched(list(steps_of(text)), declared)


def _matched(steps: list[Step], declared: list[Step]) -> bool:
    if not steps:
        return True
    first, rest = steps[0], steps[1:]
    return any(
        covers(limit, first) and _matched(rest, declared[:i] + declared[i + 1 :]) for i, limit in enumerate(declared)
    )


def covers(limit: Step, step: Step) -> bool:
    """Whether `step` is the same kind of step as `limit` and no stronger."""
    if limit == step:
        return True
    if limit[0] != step[0] or len(limit) < 2 or len(step) < 2:
        return False
    if limit[0] == "prune":
        return _prune_covers(limit[1:], step[1:])
    return limit[0] == "quantize" and _quantize_covers(limit[1:], step[1:])


_TRAINED = (("prune", "bilevel"), ("quantize", "qat"))
_SHARES = ("magnitude", "layer", "filter", "channel", "shrink")


def _prune_covers(limit: Step, step: Step) -> bool:
    """Arguments of two `prune` steps. Scopes are not compared with each other: they remove different weights."""
    if limit[0] != step[0]:
        return False
    return _ORDER.get(limit[0], _never)(limit[1:], step[1:])


def _no_larger_share(limit: Step, step: Step) -> bool:
    return len(limit) == len(step) == 1 and _number(step[0]) <= _number(limit[0])


def _denser(limit: Step, step: Step) -> bool:
    """N:M, weights kept of each group: 3:4 is within 2:4."""
    if len(limit) != 2 or len(step) != 2:
        return False
    kept, allowed = (_number(pair[0]) / _number(pair[1]) for pair in (step, limit))
    return step[1] == limit[1] and kept >= allowed


def _no_larger_blocks_share(limit: Step, step: Step) -> bool:
    return len(limit) == len(step) == 2 and limit[0] == step[0] and _number(step[1]) <= _number(limit[1])


def _more_patterns(limit: Step, step: Step) -> bool:
    return len(limit) == len(step) == 1 and _number(step[0]) >= _number(limit[0])


def _never(limit: Step, step: Step) -> bool:
    del limit, step
    return False


_ORDER: dict[str, Callable[[Step, Step], bool]] = {
    **dict.fromkeys(_SHARES, _no_larger_share),
    "nm": _denser,
    "block": _no_larger_blocks_share,
    "pattern": _more_patterns,
}
_SCHEMES = {"weights": 0, "dynamic": 1, "static": 2}  # of activations: none, while it runs, from calibration


def _quantize_covers(limit: Step, step: Step) -> bool:
    """Fewer bits are stronger, one scale per tensor is stronger than per channel, static than dynamic than none."""
    above, below = _quantization(limit), _quantization(step)
    if above is None or below is None:
        return False
    bits, coarse, scheme = above
    return below[0] >= bits and below[1] <= coarse and below[2] <= scheme


def _quantization(arguments: Step) -> tuple[int, bool, int] | None:
    """(bits, one scale per tensor, scheme), or None for what is only comparable with itself."""
    match arguments:
        case ("bf16",):
            return 9, False, 0  # 8 significant bits, each value with an exponent of its own: within int8
        case ("static" | "dynamic" as scheme, kind, *how) if (bits := _bits(kind)) is not None and _simulated(how):
            # these tools choose one scale per tensor for some layers
            return bits, True, _SCHEMES[scheme]
        case (kind,) if (bits := _bits(kind)) is not None:
            return bits, False, 0
        case (kind, "tensor") if (bits := _bits(kind)) is not None:
            return bits, True, 0
    return None


def _simulated(how: Sequence[str]) -> bool:
    """Whether what follows is nothing, or which quantizer a copy in a record simulates (`api/copies.py`)."""
    return not how or (len(how) == 1 and how[0].startswith("simulated="))


def _bits(kind: str) -> int | None:
    found = re.fullmatch(r"int([2-9]|1[0-6])", kind)
    return int(found[1]) if found else None


def _is_free(step: Step) -> bool:
    return step[0] == "compile" or step == ("quantize", "fp16")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
