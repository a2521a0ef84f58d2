"""The site builds without a warning, every page is in its navigation, and it loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import ROOT  # type: ignore[import-not-found]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("nav:")[1]
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md") if "adr" not in p.parts}
    assert pages <= set(re.findall(r"[\w/-]+\.md", navigation)), "a page can't be found by a reader"
    for page in pages:
        assert (site / page).with_suffix(".html").exists()


def test_the_python_reference_is_filled_in(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text()
    assert "fingerprint.api.verify.verify" in text and "Raises" in text
    assert "multiple testing" in text or "between-model" in text, "the docstrings are missing"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?:[^\"\s>]*)", page.read_text())
        loaded += re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|preconnect)\"?[^>]*href=\"?(https?:[^\"\s>]*)", page.read_text()
        )
        assert not loaded, (page, loaded)
