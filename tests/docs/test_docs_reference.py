"""The reference is what the code says; every command is documented by hand too; every command in the docs parses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, blocks, commands, handwritten  # type: ignore[import-not-found]

from cli.group import VERBS, flags_of, load_verb

SCRIPT = ROOT / "docs" / "reference" / "generate.py"


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stale_reference_is_found(tmp_path: Path) -> None:
    for page in [SCRIPT, *SCRIPT.parent.glob("*.md")]:
        (tmp_path / page.name).write_text(page.read_text())
    changed = tmp_path / "commands.md"
    changed.write_text(changed.read_text().replace("--alpha", "--beta"))
    script = [sys.executable, str(tmp_path / "generate.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and "commands.md" in done.stderr and "rows.md" not in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_explained_by_hand(verb: str) -> None:
    places = [p.name for p in handwritten() if re.search(rf"fingerprint {verb}\b|`{verb}", p.read_text())]
    assert places, f"no page but the generated reference says what `fingerprint {verb}` is for"


@pytest.mark.parametrize("path", [p for p in PAGES if "adr" not in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_docs_parse(path: Path) -> None:
    """The verb exists and knows the flags."""
    for block in blocks(path):
        for command in commands(block):
            if command.words[0] == "fingerprint":
                check(command.words[1:], command.line)


def check(words: list[str], line: str) -> None:
    assert words and words[0] in VERBS, line
    known, rest = flags_of(load_verb(words[0])), words[1:]
    while rest and isinstance(known.get(rest[0]), dict):
        known, rest = known[rest[0]], rest[1:]
    for word in rest:
        if word.startswith("--"):
            assert word[2:].split("=")[0] in known, f"{line}: {word}"
        elif word.startswith("-") and len(word) > 1:
            assert word in ("-f", "-o", "-q", "-v", "-h"), f"{line}: {word}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in handwritten():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
