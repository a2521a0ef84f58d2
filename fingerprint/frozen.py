"""Frozen dataclasses that are made quickly.

`dataclasses.dataclass(frozen=True)` writes and compiles six functions for each class, which for the classes that a
`verify` imports takes as long as a small model's answers (docs/adr/0034-quick-dataclasses.md). Here one function is
compiled for each, `__init__`; the others are shared. Everything else is the standard library's: fields, defaults,
`replace`, `asdict`, the errors, and what a type checker sees. A class below one of these needs this decorator, too:
the standard one refuses.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False) -> object:
        """As `dataclasses.dataclass`; quick if `frozen`, which is all that it takes besides."""
        if not frozen:
            return dataclasses.dataclass(cls) if cls is not None else dataclasses.dataclass
        return _frozen(cls) if cls is not None else _frozen


__all__ = ["dataclass"]


def _frozen(cls: type) -> type:
    """The class with what the decorator adds, where it does not define it itself."""
    own = set(vars(cls))
    if "__hash__" in own and vars(cls)["__hash__"] is None and "__eq__" in own:
        own.discard("__hash__")  # Python set it because of `__eq__`
    if not cls.__doc__:
        cls.__doc__ = cls.__name__  # the standard decorator would work out a signature
    made: type = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    fields = dataclasses.fields(made)
    added: dict[str, Callable[..., object]] = {
        "__init__": _init(made, fields),
        "__repr__": _repr([f.name for f in fields if f.repr]),
        **_comparing([f.name for f in fields if f.compare]),
        **_refusing(made, {f.name for f in fields}),
    }
    for name, function in added.items():
        if name not in own:
            function.__qualname__ = f"{cls.__qualname__}.{name}"
            setattr(made, name, function)
        elif name in ("__setattr__", "__delattr__"):
            raise TypeError(f"{cls.__name__} is frozen, and has its own {name}")
    return made


def _init(cls: type, fields: tuple[dataclasses.Field[object], ...]) -> Callable[..., None]:
    """The only function that is written for a class: a call with names must be quick."""
    given: dict[str, object] = {"_set": object.__setattr__, "_absent": dataclasses.MISSING}
    arguments, lines = ["self"], []
    for field in fields:
        name, value = field.name, field.name
        if field.default_factory is not dataclasses.MISSING:
            given[f"_new_{name}"], made = field.default_factory, f"_new_{name}()"
            value = f"{made} if {name} is _absent else {name}" if field.init else made
            default = "=_absent"
        elif field.default is not dataclasses.MISSING:
            given[f"_default_{name}"], default = field.default, f"=_default_{name}"
        else:
            default = ""
        if field.kw_only:
            raise TypeError(f"{cls.__name__}.{name}: fields by name only are not supported here")
        if field.init:
            arguments.append(name + default)
        if field.init or "_new_" in value:
            lines.append(f"  _set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("  self.__post_init__()")
    body = "\n".join(lines) or "  pass"
    text = f"def make({', '.join(given)}):\n def __init__({', '.join(arguments)}):\n{body}\n return __init__"
    found: dict[str, Callable[..., Callable[..., None]]] = {}
    exec(text, vars(sys.modules[cls.__module__]), found)  # noqa: S102  (names of fields; as the standard library does)
    init = found["make"](**given)
    init.__annotations__ = {f.name: f.type for f in fields if f.init} | {"return": None}
    return init


def _repr(names: list[str]) -> Callable[..., str]:
    @recursive_repr()
    def __repr__(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _comparing(names: list[str]) -> dict[str, Callable[..., object]]:
    key: Callable[[object], object] = attrgetter(*names) if names else lambda self: ()

    def __eq__(self: object, other: object) -> bool:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:
        return hash(key(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _refusing(cls: type, names: set[str]) -> dict[str, Callable[..., None]]:
    def __setattr__(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)  # type: ignore[arg-type]

    def __delattr__(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)  # type: ignore[arg-type]

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}
