"""What a benchmark consists of: owners, strangers, transformations, and who calibrates while who is judged."""

from __future__ import annotations

from pathlib import Path

from fingerprint.bench.scratch import Recipe
from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec


@dataclass(frozen=True)
class Base:
    """An owner or a stranger as released: a file of somebody's, or a net that the benchmark trains.

    other: the architecture that a student of another kind gets (a name of `distil`). twins: nets that its owner trains
    by the same recipe from other seeds, which screen its probes and are nobody's suspects. twin_recipe: how they are
    trained where the owner itself is a file.
    """

    name: str
    author: str
    path: Path | None = None
    recipe: Recipe | None = None
    other: str = "cnn"
    twins: int = 0
    twin_recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.recipe is None):
            raise UsageError(f"{self.name} needs a file or a recipe, not both")
        if self.twins and self.recipe is None and self.twin_recipe is None:
            raise UsageError(f"{self.name} has no recipe to train twins by")


@dataclass(frozen=True)
class Row:
    """One transformation of the tables.

    group: rows of one group are summarised together. how: the chain for `derive`; `{other}` stands for the
    architecture that a student of another kind gets. x: sparsity or bit width, for the plots.
    """

    name: str
    group: str
    how: str
    suffix: str = ".pt2"
    x: float | None = None

    def chain(self, base: Base) -> str:
        """The chain for one base."""
        return self.how.replace("{other}", base.other)


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    spec: of the nets trained here. matched: strangers to which every row is applied as well. halves: authors in two
    halves; one calibrates while the other is judged, then the other way round. An owner's author may be in a half too:
    his other models are strangers.
    """

    name: str
    spec: InputSpec
    classes: int
    owners: tuple[Base, ...]
    strangers: tuple[Base, ...]
    matched: tuple[str, ...]
    rows: tuple[Row, ...]
    halves: tuple[frozenset[str], frozenset[str]]
    seed: int

    def __post_init__(self) -> None:
        names = [base.name for base in (*self.owners, *self.strangers)]
        if len(set(names)) < len(names):
            raise UsageError("two models of the benchmark have one name")
        if missing := set(self.matched) - {base.name for base in self.strangers}:
            raise UsageError(f"no stranger is called {', '.join(sorted(missing))}")
        if self.halves[0] & self.halves[1]:
            raise UsageError("an author is in both halves", remedy="Strangers are cross-fitted by author.")
        authors = {base.author for base in (*self.owners, *self.strangers)}
        if lost := authors - self.halves[0] - self.halves[1]:
            raise UsageError(f"no half holds the author {', '.join(sorted(lost))}")

    def half(self, author: str) -> int:
        """Which half an author is in: 0 or 1."""
        return 0 if author in self.halves[0] else 1

    def derived_from(self) -> tuple[Base, ...]:
        """Everyone to whom the rows are applied: owners first, then the matched strangers."""
        return (*self.owners, *(base for base in self.strangers if base.name in self.matched))


def in_halves(authors: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Authors dealt out in turn, in the order given (put those with many models first)."""
    distinct = list(dict.fromkeys(authors))
    return frozenset(distinct[0::2]), frozenset(distinct[1::2])
