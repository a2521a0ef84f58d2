"""What stands in the documentation: fenced blocks, commands, pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ("commands.md", "python.md", "errors.md", "rows.md")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+#\s*exit (\d)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and text."""

    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line after `$`: its words, and the exit code that the page promises."""

    line: str
    code: int = 0

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def commands(block: Block) -> Iterator[Command]:
    for line in block.text.splitlines():
        if line.startswith("$ "):
            promised = EXIT.search(line)
            yield Command(line[2:], int(promised.group(1)) if promised else 0)


def handwritten() -> list[Path]:
    return [p for p in PAGES if p.name not in GENERATED and "adr" not in p.parts]
