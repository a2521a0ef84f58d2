"""Which error level is reachable with the references and control sets at hand, and how many more would reach another.

A level is reachable if a suspect that gives the owner's label on every probe would be called derived at it. More
references are assumed to be like those at hand: authors at evenly spaced quantiles of the fitted law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from fingerprint.decision.null import MINIMUM_FITTED, MatchNull, stabilised
from fingerprint.frozen import dataclass
from fingerprint.record import Family, Manifest, Reference, lineage_part

MADE = "made"  # origin of references that the tool trained
MADE_AUTHOR = "made by create"
MOST_AUTHORS = 40  # more that are looked for; beyond, the references match too much
Way = Literal["fitted", "conformal", "controls"]


@dataclass(frozen=True)
class Reach:
    """level: the smallest error that a verdict can state, None where nothing calibrates; by: how it is reached.

    sentence: the same in words, with what would reach `asked` if that is not reached.
    """

    level: float | None
    by: Way | None
    asked: float
    sentence: str

    @property
    def reached(self) -> bool:
        """Whether the level asked for can be reached."""
        return self.level is not None and self.level <= self.asked


def from_files(references: Sequence[Reference]) -> tuple[Reference, ...]:
    """References that the tool did not train itself."""
    return tuple(r for r in references if r.origin != MADE)


def without_made(manifest: Manifest) -> Manifest:
    """The manifest with references of other people only.

    A rank is exact only for suspects that are exchangeable with the references, and nobody's product is exchangeable
    with small nets of one recipe: `auto` ranks among models of others only.
    """
    return manifest.model_copy(update={"references": from_files(manifest.references)})


def authors_of(references: Sequence[Reference]) -> int:
    """Independent authors, those without a stated one taken as an author each."""
    return len({r.author if r.author is not None else i for i, r in enumerate(references)})


def fitted_level(manifest: Manifest, references: Sequence[Reference]) -> float | None:
    """The error at which a full match stands out by the fitted tail, labels only; None for too few references."""
    if len(references) < MINIMUM_FITTED:
        return None
    levels = []
    for family in manifest.families:
        counts = [r.families[family.name].matches for r in references]
        levels.append(_level(counts, [r.author for r in references], family))
    return min(levels)


def conformal_level(manifest: Manifest, references: Sequence[Reference]) -> float | None:
    """The same by rank among the references."""
    if not references:
        return None
    whole = [
        (1 + sum(r.families[f.name].matches >= f.count for r in references)) / (len(references) + 1) / f.weight
        for f in manifest.families
    ]
    return min(1.0, *whole)


def reach(manifest: Manifest, alpha: float, *, ranked_only: bool = False) -> Reach:
    """The smallest error that the record's references and control sets allow, in words for a person.

    ranked_only: by rank among the references alone, made ones too, as `--calibration conformal` asks.
    """
    if ranked_only:
        return _by_rank(lineage_part(manifest), alpha)
    manifest, found = lineage_part(manifest), list[tuple[float, Way]]()
    others = from_files(manifest.references)
    fitted, ranked = fitted_level(manifest, manifest.references), conformal_level(manifest, others)
    if fitted is not None and fitted < 1.0:
        found.append((fitted, "fitted"))
    if ranked is not None and ranked <= alpha / 2:  # where `auto` takes it
        found.append((ranked, "conformal"))
    if manifest.controls:
        found.append((1.0 / (len(manifest.controls) + 1), "controls"))
    level, by = min(found, default=(None, None))
    if manifest.controls and manifest.references and level is not None:
        level, by = max(found)  # the larger p decides
    text = _held(manifest, level, by)
    if level is None or level > alpha:
        text += f" {_needed(manifest, alpha)}"
    return Reach(level, by, alpha, text)


def _by_rank(manifest: Manifest, alpha: float) -> Reach:
    level = conformal_level(manifest, manifest.references)
    text = _held(manifest, level, "conformal")
    missing = math.ceil(1.0 / (alpha * min(f.weight for f in manifest.families)) - 1e-9) - 1 - len(manifest.references)
    if missing > 0:
        text += f" An error of {alpha:g} would take {_count(missing, 'more reference')} by rank alone."
    return Reach(level, None if level is None else "conformal", alpha, text)


def _held(manifest: Manifest, level: float | None, by: Way | None) -> str:
    references, made = manifest.references, len(manifest.references) - len(from_files(manifest.references))
    parts = []
    if references:
        parts.append(f"{_count(len(references), 'reference')} by {_count(authors_of(references), 'author')}")
    if manifest.controls:
        parts.append(_count(len(manifest.controls), "control set"))
    have = " and ".join(parts) or "No references"
    alone = made and made == len(references) and not manifest.controls
    if alone:
        have += " (all made here, so one author)"
    if level is None:
        conformal = conformal_level(manifest, references) if made else None
        asks = (
            f"; --calibration conformal takes made nets as they are, and reaches {conformal:.2g}" if conformal else ""
        )
        return f"{have}: no error level can be stated{asks}."
    return f"{have} reach an error of {_rounded(level)} ({by})."


def _needed(manifest: Manifest, alpha: float) -> str:
    """What would reach alpha."""
    ways = []
    missing = MINIMUM_FITTED - len(manifest.references)
    more = more_authors(manifest, alpha)
    if missing > 0:
        ways.append(f"at least {missing} more references, by two or more authors in all")
    elif more is not None:
        ways.append(f"about {_count(more, 'more author')} with one model each, if like these")
    ranked = math.ceil(2.0 / (alpha * min(f.weight for f in manifest.families)) - 1e-9) - 1
    ranked -= len(from_files(manifest.references))
    if ranked > 0:
        ways.append(f"{ranked} more references of other people by rank alone")
    if manifest.controls or not manifest.references:
        ways.append(_count(max(1, math.ceil(1.0 / alpha - 1e-9) - 1 - len(manifest.controls)), "more control set"))
    return f"An error of {alpha:g} would take " + ", or ".join(ways) + "."


def more_authors(manifest: Manifest, alpha: float) -> int | None:
    """Authors, with one more model each and like those at hand, after whom alpha is reached; None if too many."""
    references = manifest.references
    if len(references) < MINIMUM_FITTED:
        return None
    for more in range(1, MOST_AUTHORS + 1):
        for family in manifest.families:
            counts = [r.families[family.name].matches for r in references]
            authors = [r.author for r in references]
            added = _like(counts, authors, family.count, more)
            if _level([*counts, *added], [*authors, *(f"another {i}" for i in range(more))], family) <= alpha:
                return more
    return None


def _level(counts: Sequence[int], authors: Sequence[str | None], family: Family) -> float:
    return min(1.0, MatchNull(counts, family.count, authors).tail(family.count) / family.weight)


def _like(counts: Sequence[int], authors: Sequence[str | None], probes: int, more: int) -> list[int]:
    """Counts of `more` authors at evenly spaced quantiles of a normal law of the authors' means."""
    values = stabilised(np.asarray(counts, np.float64), probes)
    groups: dict[object, list[float]] = {}
    for i, (value, author) in enumerate(zip(values.tolist(), authors, strict=True)):
        groups.setdefault(author if author is not None else i, []).append(value)
    means = np.array([np.mean(g) for g in groups.values()])
    spread = float(means.std(ddof=1)) if len(means) > 1 else float(values.std(ddof=1))
    law = NormalDist(float(means.mean()), max(spread, math.sqrt(0.25 / probes)))
    found = np.array([law.inv_cdf((i + 0.5) / more) for i in range(more)])
    rates = np.sin(np.clip(found, 0.0, math.pi / 2)) ** 2
    return [int(c) for c in np.rint(rates * probes)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _rounded(level: float) -> str:
    return f"{level:.2g}" if level >= 1e-6 else "less than 1e-06"
