"""The grammar of transformations: which chains only compress, and which is no stronger than what was declared.

A chain is `step+step`, a step `name:argument:argument`. It is within limits when every step is covered by a limit of
its own: of the same kind, and no stronger. Conversions and fp16 need none.
"""

from __future__ import annotations

import re

COMPRESSIONS = ("compile", "quantize", "prune", "circulant")
TRAINED = (("prune", "bilevel"), ("quantize", "qat"))  # compression that trains, too
FINE_TUNING = ("retrain", "finetune", "transfer", "advtrain", "average", "curve")
NOTHING = float("nan")


def steps_of(chain):
    """The steps of a chain, without those that change no more than a conversion does."""
    steps = [tuple(part.strip().split(":")) for part in chain.split("+") if part.strip()]
    return [step for step in steps if step[0] != "compile" and step != ("quantize", "fp16")]


def compresses(chain):
    """Whether every step only compresses or converts, without training."""
    return all(step[0] in COMPRESSIONS and step[:2] not in TRAINED for step in steps_of(chain))


def kind_of(chain):
    """The kind of its heaviest step: tampered, fine-tuned, ..."""
    kinds = ["re-encoded", "quantized", "pruned", "fine-tuned", "tampered", "distilled"]  # rising
    names = {"quantize": 1, "prune": 2, "distil": 5}
    names.update(dict.fromkeys(FINE_TUNING, 3))
    return kinds[max((names.get(step[0], 4) for step in steps_of(chain)), default=0)]


def scheme(chain):
    """The names of a chain's steps without their strengths."""
    named = []
    for step in steps_of(chain):
        kept = step[0] == "prune" or (len(step) > 1 and step[1] in ("static", "dynamic"))
        named.append(":".join(step[:2]) if kept else step[0])
    return tuple(named)


def within(chain, limits):
    """Whether a chain does no more than the limits declare, each step of these being used at most once."""
    return matched(steps_of(chain), [step for limit in limits for step in steps_of(limit)])


def matched(steps, declared):
    """Whether each step finds a limit of its own."""
    if not steps:
        return True
    return any(
        covers(limit, steps[0]) and matched(steps[1:], declared[:i] + declared[i + 1 :])
        for i, limit in enumerate(declared)
    )


def covers(limit, step):
    """Whether `step` is of the same kind as `limit` and no stronger."""
    if limit == step:
        return True
    if limit[0] != step[0] or len(limit) < 2 or len(step) < 2:
        return False
    if limit[0] == "quantize":
        above, below = quantization(limit[1:]), quantization(step[1:])
        return bool(above and below) and below[0] >= above[0] and below[1] <= above[1] and below[2] <= above[2]
    return limit[0] == "prune" and limit[1] == step[1] and weaker(limit[1], limit[2:], step[2:])


def weaker(how, limit, step):
    """Whether pruning takes no larger share (or, of groups and patterns, keeps as much)."""
    if len(limit) != len(step):
        return False
    values = [number(text) for text in limit], [number(text) for text in step]
    if how in ("magnitude", "layer", "filter", "channel", "shrink") and len(step) == 1:
        return values[1][0] <= values[0][0]
    if how == "pattern" and len(step) == 1:
        return values[1][0] >= values[0][0]
    if how == "block" and len(step) == 2:
        return limit[0] == step[0] and values[1][1] <= values[0][1]
    if how == "nm" and len(step) == 2:
        return limit[1] == step[1] and values[1][0] / values[1][1] >= values[0][0] / values[0][1]
    return False


def quantization(words):
    """(bits, whether one scale serves a tensor, how activations are quantized), or None."""
    if words == ("bf16",):
        return 9, False, 0
    found = [re.fullmatch(r"int([2-9]|1[0-6])", word) for word in words]
    simulated = len(words) == 3 and words[2].startswith("simulated=")  # a copy in a record names its quantizer
    if (len(words) == 2 or simulated) and words[0] in ("dynamic", "static") and found[1]:
        return int(found[1][1]), True, ("dynamic", "static").index(words[0]) + 1
    if found and found[0] and (len(words) == 1 or words[1:] == ("tensor",)):
        return int(found[0][1]), len(words) == 2, 0
    return None


def number(text):
    """A number, or one that compares with nothing."""
    try:
        return float(text)
    except ValueError:
        return NOTHING
