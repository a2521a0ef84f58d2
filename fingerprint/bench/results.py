"""All figures of one run, frozen, and as JSON. NaN becomes null there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict

from fingerprint.bench.metrics import Interval
from fingerprint.bench.plan import Row
from fingerprint.bench.zoo import NotMade
from fingerprint.frozen import dataclass

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RowFigures:
    """One method on one row.

    auc: against all judged strangers. matched_auc: against strangers that went through the same. tpr_at_0: share of the
    row's derivatives that score above every judged stranger of their cell. tpr_at_1_percent: share at a threshold that
    lets at most 1 % of these pass, with its interval. positives, matched_negatives: how many models there are of
    either.
    """

    row: str
    group: str
    auc: Interval
    matched_auc: float
    tpr_at_0: float
    tpr_at_1_percent: Interval
    positives: int
    matched_negatives: int


@dataclass(frozen=True)
class GroupFigures:
    """One method on a group of rows. gap: lowest score of a derivative minus highest of a stranger (worst cell)."""

    group: str
    auc: float
    tpr_at_0: float
    gap: float


@dataclass(frozen=True)
class MethodFigures:
    """One method with so many queries.

    auc: over all rows together. mean_auc: mean of the rows' own. tpr_at_0: share of derivatives that score above every
    judged stranger of their cell. negatives: judged unrelated models, each counted once per owner; fpr_limit: upper
    95 % limit of the false-positive rate that no false positive among them implies. strangers, strangers_limit: the
    same where all that was derived of one stranger counts as one model.
    """

    method: str
    families: tuple[str, ...]
    queries: int
    soft: bool
    owners: tuple[str, ...]
    rows: tuple[RowFigures, ...]
    groups: tuple[GroupFigures, ...]
    auc: Interval
    mean_auc: float
    tpr_at_0: Interval
    tpr_at_1_percent: Interval
    negatives: int
    fpr_limit: float
    strangers: int
    strangers_limit: float


@dataclass(frozen=True)
class FamilyFigures:
    """One owner's probes of one family, by plain match rate.

    uniqueness: mean match of compressed copies minus that of strangers as released. transferability: mean match of
    strangers as released. robustness: match of each derivative, by row. highest_strangers: the three that match most.
    """

    owner: str
    family: str
    probes: int
    passes: int
    seconds: float
    uniqueness: float
    aruc: float
    transferability: float
    robustness: Mapping[str, float]
    strangers: Mapping[str, float]

    @property
    def highest_stranger(self) -> tuple[str, float]:
        """Who matches most among the unrelated, and how much."""
        return max(self.strangers.items(), key=lambda item: item[1], default=("-", math.nan))


@dataclass(frozen=True)
class Curve:
    """A ROC curve."""

    method: str
    queries: int
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class MemberFigures:
    """One model of the zoo."""

    name: str
    base: str
    author: str
    row: str
    sha256: str
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class ImageFigures:
    """How many images each set holds; digest of all."""

    training: int
    probes: int
    evaluation: int
    digest: str


@dataclass(frozen=True)
class Results:
    """Everything. main_queries: the budget that the tables by method and the plots are of."""

    schema_version: int
    created: str
    version: str
    plan: str
    seed: int
    images: ImageFigures
    owners: tuple[str, ...]
    halves: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]
    members: tuple[MemberFigures, ...]
    not_made: tuple[NotMade, ...]
    failed: Mapping[str, Mapping[str, str]]
    families: tuple[FamilyFigures, ...]
    main_queries: int
    methods: tuple[MethodFigures, ...]
    queries_needed: Mapping[str, Mapping[str, int | None]]
    curves: tuple[Curve, ...]

    def to_dict(self) -> object:
        """The whole as plain JSON values."""
        return _plain(asdict(self))

    def to_json(self) -> str:
        """The whole as a JSON text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
