"""The quick frozen dataclasses are what the standard library's are."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import pytest

from fingerprint.frozen import dataclass


def _made(decorator: Callable[[type], type]) -> type:
    """One class with everything that the code base uses, by either decorator."""

    class Thing:
        """A thing."""

        KIND: ClassVar[str] = "thing"
        name: str
        size: int = 3
        parts: list[int] = dataclasses.field(default_factory=list)
        secret: str = dataclasses.field(default="s", repr=False)
        note: str = dataclasses.field(default="", compare=False)
        inner: int = dataclasses.field(init=False, default=7)

        @cached_property
        def double(self) -> int:
            return 2 * self.size

    Thing.__qualname__ = "Thing"
    return decorator(Thing)


Quick = _made(dataclass(frozen=True))
Plain = _made(dataclasses.dataclass(frozen=True))


@dataclass(frozen=True)
class Base:
    one: int

    def __post_init__(self) -> None:
        if self.one < 0:
            raise ValueError("negative")


@dataclass(frozen=True)
class Child(Base):
    two: tuple[int, ...] = ()


@dataclass(frozen=True)
class Empty:
    pass


class Loose(Base):
    """No dataclass itself: its own attributes may be set."""


ARGUMENTS = (("a",), ("a", 4), ("a", 4, [1]), ("a", 4, [1], "t", "n"), ("b", 4, [1], "s", "m"), ("b", 4, [1], "s", "o"))


@pytest.mark.parametrize("given", ARGUMENTS)
def test_the_same_objects(given: tuple[object, ...]) -> None:
    quick, plain = Quick(*given), Plain(*given)
    assert repr(quick) == repr(plain)
    assert dataclasses.asdict(quick) == dataclasses.asdict(plain)
    assert dataclasses.astuple(quick) == dataclasses.astuple(plain)
    assert vars(quick) == vars(plain)
    assert dataclasses.replace(quick, size=9) == Quick(given[0], 9, *given[2:])
    assert quick.double == plain.double == 2 * quick.size


def test_equality_and_hash_agree_with_the_standard_ones() -> None:
    for first in ARGUMENTS:
        for second in ARGUMENTS:
            assert (Quick(*first) == Quick(*second)) == (Plain(*first) == Plain(*second))
    assert Quick("a") != Plain("a") and Quick("a") != "a"
    assert Base(1) != Child(1) and Child(1, (2,)) == Child(1, (2,)) and Empty() == Empty()
    assert hash(Child(1, (2,))) == hash(Child(1, (2,))) and len({Base(1), Base(1), Base(2), Empty(), Empty()}) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(Quick("a"))  # of a list, as for the standard one


def test_nothing_can_be_changed() -> None:
    child, loose = Child(1), Loose(1)
    for target, name in ((child, "one"), (child, "two"), (child, "other"), (loose, "one")):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(target, name, 2)
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            delattr(target, name)
    loose.other = 3  # type: ignore[attr-defined]
    del loose.other  # type: ignore[attr-defined]
    assert child == Child(1)


def test_defaults_are_of_the_instance() -> None:
    one, other = Quick("a"), Quick("a")
    one.parts.append(1)
    assert other.parts == [] and one.inner == 7
    with pytest.raises(TypeError, match="name"):
        Quick()
    with pytest.raises(TypeError, match="inner"):
        Quick("a", inner=1)
    with pytest.raises(ValueError, match="negative"):
        Child(-1)


def test_what_tools_ask() -> None:
    assert list(inspect.signature(Quick).parameters) == list(inspect.signature(Plain).parameters)
    assert typing.get_type_hints(Child.__init__) == {"one": int, "two": tuple[int, ...], "return": type(None)}
    assert [f.name for f in dataclasses.fields(Quick)] == [f.name for f in dataclasses.fields(Plain)]
    assert dataclasses.is_dataclass(Quick) and Quick.__match_args__ == Plain.__match_args__
    assert Quick.__doc__ == "A thing." and Empty.__doc__ == "Empty"
    assert pickle.loads(pickle.dumps(Child(1, (2,)))) == Child(1, (2,))
    assert copy.deepcopy(Child(1, (2,))) == Child(1, (2,))
    match Child(1, (2,)):
        case Child(one, two):
            assert (one, two) == (1, (2,))


def test_own_methods_stay() -> None:
    @dataclass(frozen=True)
    class Own:  # noqa: PLW1641  (the decorator makes it)
        value: int

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "own"

    assert Own(1) == Own(2) and repr(Own(1)) == "own"
    assert hash(Own(1)) != hash(Own(2))  # of its fields, as the standard one makes it


def test_abstract_classes_stay_abstract() -> None:
    @dataclass(frozen=True)
    class Shape(ABC):
        side: int

        @abstractmethod
        def area(self) -> int: ...

    @dataclass(frozen=True)
    class Square(Shape):
        def area(self) -> int:
            return self.side**2

    with pytest.raises(TypeError, match="abstract"):
        Shape(1)  # type: ignore[abstract]
    assert Square(3).area() == 9


def test_what_it_can_t_make_is_refused() -> None:
    with pytest.raises(TypeError, match="by name only"):

        @dataclass(frozen=True)
        class _Named:
            value: int = dataclasses.field(kw_only=True)

    with pytest.raises(TypeError, match="__setattr__"):

        @dataclass(frozen=True)
        class _Setting:
            value: int

            def __setattr__(self, name: str, value: object) -> None: ...

    with pytest.raises(SyntaxError):

        @dataclass(frozen=True)
        class _Order:
            first: int = 1
            second: int  # type: ignore[misc]


def test_others_are_the_standard_ones() -> None:
    @dataclass
    class Open:
        value: int

    one = Open(1)
    one.value = 2
    assert one == Open(2) and Open.__hash__ is None


def test_a_long_chain_of_itself_is_shown() -> None:
    @dataclass(frozen=True)
    class Node:
        others: list[object]

    node = Node([])
    node.others.append(node)
    assert repr(node).endswith("Node(others=[...])")
