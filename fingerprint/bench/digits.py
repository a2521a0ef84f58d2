"""The built-in benchmark: scikit-learn's 8x8 digits, nets that train in a second or two."""

from __future__ import annotations

import numpy as np

from fingerprint.bench.plan import Base, Plan, Row
from fingerprint.bench.scratch import Recipe
from fingerprint.bench.splits import Splits, split
from fingerprint.data import CleanImages
from fingerprint.errors import MissingExtra
from fingerprint.model import InputSpec

SPEC = InputSpec("NCHW", (1, 8, 8), mean=(0.5,), std=(0.5,), channels="L", classes=10)
ROWS = (
    Row("prune 50 %", "compression", "prune:magnitude:0.5", x=0.5),
    Row("weights int4", "compression", "quantize:int4", x=4),
    Row("fine-tune all", "fine-tuning", "finetune:all:epochs=2"),
    Row("distil hard, other", "distillation", "distil:hard:cnn:epochs=6"),
)


def images() -> Splits:
    """All digits as 8-bit images, in three sets.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("the built-in benchmark's digits come with scikit-learn", extra="bench") from error
    digits = load_digits()
    pictures = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return split(CleanImages(pictures, digits.target.astype(np.int64)), None)


def plan(seed: int = 1) -> Plan:
    """One owner, six strangers, two of them matched."""

    def base(name: str, kind: str, number: int) -> Base:
        recipe = Recipe(kind, 10, seed * 1000 + number, rate=0.05, shift=1, flip=False)
        return Base(name, f"author-{name}", recipe=recipe)

    owner = base("owner", "small", 0)
    strangers = [base(f"stranger-{number}", "small" if number % 2 else "small-wide", number) for number in range(1, 7)]
    authors = [b.author for b in strangers]
    halves = (frozenset([owner.author, *authors[0::2]]), frozenset(authors[1::2]))
    matched = (strangers[0].name, strangers[1].name)
    return Plan("digits", SPEC, 10, (owner,), tuple(strangers), matched, ROWS, halves, seed)
