"""What tests of the checker say of packs: one that holds, and changes that are seen though all is signed anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from made_evidence import Lookup, Made, checked, resigned
from store_helpers import World

Row = dict[str, Any]
Change = Callable[[Row], object]
PRUNED = ("prune:magnitude:0.5",)
UNKEPT = "did not keep"


def copy_of(made: Made) -> Lookup:
    return made.suspect("prune:magnitude:0.3")


def honest(path: Path, capsys: Any, *said: str) -> str:  # noqa: ANN401
    """What the checker says of a pack that holds."""
    code, out = checked(path, capsys)
    assert code == 0, out
    for text in said:
        assert any(text in line for line in out.splitlines() if line.startswith("  ok")), (text, out)
    assert UNKEPT not in out and "as stated" not in out, out
    return out


def refused(world: World, path: Path, capsys: Any, changes: dict[str, tuple[Change, str]]) -> None:  # noqa: ANN401
    """Each change is seen though everything is signed anew, and the checker says what does not follow."""
    for name, (change, said) in changes.items():
        code, out = checked(resigned(world, path, path.with_name("forged.zip"), change), capsys)
        wrong = [line for line in out.splitlines() if line.startswith("  WRONG")]
        assert code == 4 and len(wrong) == 1 and said in wrong[0], (name, out)
    assert checked(resigned(world, path, path.with_name("same.zip"), lambda row: None), capsys)[0] == 0


def verdict(**changes: Any) -> Change:  # noqa: ANN401
    """Change fields of the verdict."""
    return lambda row: row["verdict"].update(changes)
