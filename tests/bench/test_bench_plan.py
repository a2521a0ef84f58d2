"""Plans that make no fair benchmark are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fingerprint.bench.digits import plan
from fingerprint.bench.judge import shared
from fingerprint.bench.plan import Base, Row, in_halves
from fingerprint.bench.rows import rows
from fingerprint.errors import UsageError


def test_authors_are_in_one_half_only() -> None:
    made = plan()
    with pytest.raises(UsageError, match="both halves"):
        replace(made, halves=(made.halves[0], made.halves[0] | made.halves[1]))
    with pytest.raises(UsageError, match="no half holds"):
        replace(made, halves=(made.halves[0], frozenset()))


def test_names_are_taken_once_and_matched_strangers_exist() -> None:
    made = plan()
    with pytest.raises(UsageError, match="one name"):
        replace(made, strangers=(*made.strangers, made.strangers[0]))
    with pytest.raises(UsageError, match="no stranger"):
        replace(made, matched=("nobody",))
    with pytest.raises(UsageError, match="a file or a recipe"):
        Base("x", "author")
    with pytest.raises(UsageError, match="no recipe to train twins"):
        Base("x", "author", path=Path("x.pt2"), twins=1)


def test_halves_deal_authors_out() -> None:
    assert in_halves(["a", "b", "a", "c"]) == (frozenset({"a", "c"}), frozenset({"b"}))


@pytest.mark.parametrize("scale", ["small", "full"])
def test_every_row_can_be_read(scale: str) -> None:
    from fingerprint.transforms.derive import parse_how

    found = rows(scale)
    assert len({row.name for row in found}) == len(found)
    base = plan().owners[0]
    for row in found:
        parse_how(row.chain(base))


def test_a_row_names_the_students_architecture() -> None:
    assert Row("x", "g", "distil:soft:{other}").chain(plan().owners[0]) == "distil:soft:cnn"


@pytest.mark.parametrize(
    ("queries", "stored", "shares"),
    [
        (20, (100, 100), [20]), (39, (100, 100), [39]), (40, (100, 100), [20, 20]), (50, (100,) * 3, [20, 30]),
        (100, (100,) * 3, [20, 20, 60]), (10, (100, 100), [10]), (200, (100, 100), [100, 100]),
        (100, (100, 100, 30), [20, 50, 30]), (100, (100,), [100]),
    ],
)  # fmt: skip
def test_few_queries_go_to_the_first_families_and_many_to_the_last(
    queries: int, stored: tuple[int, ...], shares: list[int]
) -> None:
    assert shared(queries, stored) == shares
