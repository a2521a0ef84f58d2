"""Every snippet of README and tutorial runs as it stands, in order, and exits as the page promises.

Blocks that only a person should run (installing, `make`) carry a comment in the line above: `<!-- not run: why -->`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import ROOT, Block, blocks, commands  # type: ignore[import-not-found]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # about 70 s of CPU together
BIN = Path(sys.executable).parent
SKIPPED = re.compile(r"<!-- not run: ([^>]+) -->\n(```\w+\n.*?^```)$", re.MULTILINE | re.DOTALL)


class Shell:
    """One reader: a folder, a home of his own, and where `cd` took him."""

    def __init__(self, folder: Path) -> None:
        self.place = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FINGERPRINT_")}
        path = f"{BIN}{os.pathsep}{kept.get('PATH', '')}"
        self.environment = {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "FINGERPRINT_HOME": str(folder / "home")}
        self.environment["FINGERPRINT_PASSPHRASE"] = "for the test"

    def run(self, page: Path) -> int:
        """Run all blocks of a page; how many commands and scripts there were."""
        count = 0
        for block in to_run(page):
            if block.language == "python":
                self._call(["python", "-c", block.text], 0, block.text)
                count += 1
            for command in commands(block):
                count += 1
                if command.words[0] == "cd":
                    self.place = self.place / command.words[1]
                else:
                    self._call(command.words, command.code, command.line)
        return count

    def _call(self, words: list[str], expected: int, shown: str) -> None:
        done = subprocess.run(words, cwd=self.place, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == expected, f"{shown}\n{done.stdout}\n{done.stderr}"


def to_run(page: Path) -> list[Block]:
    """The blocks of a page that a test can run; those that are not run must say why."""
    skipped = {text for _, text in SKIPPED.findall(page.read_text())}
    shown = [b for b in blocks(page) if f"```{b.language}\n{b.text}```" not in skipped]
    return [b for b in shown if b.language in ("console", "python")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder in which a reader went through the tutorial, and how many commands that were."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder, Shell(folder).run(ROOT / "docs" / "tutorial.md")


def test_the_tutorial(finished: tuple[Path, int]) -> None:
    folder, count = finished
    assert count == 11
    page = (folder / "tutorial" / "audit.html").read_text()
    assert "consistent with derivation from digits" in page


def test_the_readme(finished: tuple[Path, int], tmp_path: Path) -> None:
    """The names that README uses, with the tutorial's models behind them. Formats are told by content, not by name."""
    made = finished[0] / "tutorial"
    for source, target in (
        ("release/digits.pt2", "model.pt2"),
        ("references", "unrelated"),
        ("suspects/pruned.onnx", "suspect.tflite"),
        ("suspects", "registry"),
        ("digits.npz", "images.npz"),
    ):
        (shutil.copytree if (made / source).is_dir() else shutil.copy)(made / source, tmp_path / target)
        if (made / f"{source}.spec.json").exists():
            shutil.copy(made / f"{source}.spec.json", tmp_path / f"{target}.spec.json")
    pictures(tmp_path / "images.npz", tmp_path / "images.zip")
    assert Shell(tmp_path).run(ROOT / "README.md") == 4


def pictures(arrays: Path, out: Path) -> None:
    """Three hundred images of an .npz as a zip with a folder per class."""
    import io
    import zipfile

    import numpy as np
    from PIL import Image

    with np.load(arrays) as data, zipfile.ZipFile(out, "w") as archive:
        for i, (image, label) in enumerate(zip(data["images"][:300], data["labels"][:300], strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(image[..., 0]).save(buffer, "PNG")
            archive.writestr(f"{label}/{i:04d}.png", buffer.getvalue())


def test_what_is_not_run_says_why() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "tutorial.md"):
        for why, block in SKIPPED.findall(page.read_text()):
            assert why.strip() in ("it installs packages", "make runs it"), why
            for line in block.splitlines()[1:-1]:
                assert re.match(r"\$ (pip install|make) ", line), line


def test_the_report_plugin_of_the_docs_works() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "report"))
    try:
        from report_rows import row  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    from fingerprint.report.interface import Summary

    (code,) = [b.text for b in blocks(ROOT / "docs" / "plugins.md") if b.language == "python"]
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102  (our own page)
    report = names["NamesReport"]()  # type: ignore[operator]
    made = report.finish([row(path="a\x1b.onnx"), row("unrelated", path="b"), row(None, path="c")], Summary("audit"))
    assert made == "a\\x1b.onnx\n"
