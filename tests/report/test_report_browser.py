"""The page in headless Chromium: looks, keyboard, speed, accessibility (axe-core), and no script of strangers.

Screenshots go to `$FINGERPRINT_TEST_ARTEFACTS`, else to the test's temporary folder.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import report_pages  # type: ignore[import-not-found]
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.report.html import HtmlReport
from fingerprint.report.html.report import FIRST, SECTIONS
from fingerprint.report.interface import Summary

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api")
LOOKS = [("one", w, s) for w in (360, 1440) for s in ("light", "dark")]
LOOKS += [("audit", 360, "light"), ("audit", 1440, "light"), ("few", 360, "dark"), ("probes", 1440, "light")]
ROWS = 10_000
pytestmark = pytest.mark.e2e


def chromium() -> str | None:
    """A Chromium of the system, or None for playwright's own."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium can be started here: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "one": report_pages.one_suspect(),
        "probes": report_pages.one_suspect(secrets=True),
        "few": report_pages.audit(20, partial=True),
        "audit": report_pages.audit(ROWS),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("FINGERPRINT_TEST_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1440, scheme: str = "light", **options: bool) -> Iterator[Page]:
    """The page in a context of its own; whatever it complains of, or asks of the network, fails."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
    page.goto(path.as_uri())
    try:
        yield page
        assert not complaints
    finally:
        context.close()


@pytest.mark.parametrize(("name", "width", "scheme"), LOOKS)
def test_looks(browser: Browser, pages: dict[str, Path], artefacts: Path, name: str, width: int, scheme: str) -> None:
    with opened(browser, pages[name], width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shot = artefacts / f"report-{name}-{width}-{scheme}.png"
        page.screenshot(path=str(shot), full_page=name != "audit")
        assert shot.stat().st_size > 10_000
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(light.split("(")[1].split(",")[0]) > 128) is (scheme == "light")


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("one", 360, "light"), ("probes", 1440, "light"), ("few", 1440, "dark")]
)
def test_axe_finds_nothing(browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(browser, pages[name], width, scheme, bypass_csp=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        found = axe.run(page, options={"resultTypes": ["violations"]})
        assert not found.response["violations"], found.generate_report()


def test_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["audit"]) as page:
        press, focused = page.keyboard.press, "document.activeElement"
        press("Tab")
        assert page.evaluate(f"{focused}.className") == "skip"
        press("Tab")
        assert page.evaluate(f"{focused}.id") == "find"
        page.keyboard.type("model-00038")
        playwright.expect(page.locator("#results tbody tr")).to_have_count(1)
        assert page.inner_text("#shown") == f"1 of {ROWS:,} results."
        press("Tab")
        assert page.evaluate(f"{focused}.id") == "only"
        for _ in range(2):  # the table's region, then the first heading
            press("Tab")
        press("Enter")
        assert page.get_attribute("#results th:first-child", "aria-sort") == "ascending"
        for _ in range(7):
            press("Tab")
        assert page.evaluate(f"{focused}.textContent").startswith("registry/")
        outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline == "solid"
        press("Enter")
        page.wait_for_url("**#r*")
        assert page.evaluate("document.querySelector(location.hash).getBoundingClientRect().top") < 900


def test_details_open_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["one"], 360) as page:
        page.focus("summary >> nth=2")
        page.keyboard.press("Enter")
        assert page.locator("details").nth(2).get_attribute("open") is not None
        assert page.locator(".recheck pre").first.is_visible()


def test_ten_thousand_rows_stay_fluent(browser: Browser, pages: dict[str, Path]) -> None:
    started = time.monotonic()
    with opened(browser, pages["audit"]) as page:
        assert time.monotonic() - started < 10
        assert page.locator("#results tbody tr").count() == 100
        timed = """(work) => {
            const start = performance.now(); work(); document.body.offsetHeight; return performance.now() - start; }"""
        click = f"({timed})(() => document.querySelectorAll('#results th button')[%d].click())"
        times = [page.evaluate(click % column) for column in (2, 2, 0, 5)]
        times.append(
            page.evaluate(f"({timed})(() => {{ only.value = 'unrelated'; only.dispatchEvent(new Event('change')); }})")
        )
        assert max(times) < 1000, times  # milliseconds, on a machine that others use too
        assert page.inner_text("#shown") == f"{ROWS * 17 // 20:,} of {ROWS:,} results."
        ps = [float(t) for t in page.locator("#results tbody tr td:nth-child(6)").all_inner_texts()]
        assert ps == sorted(ps) and len(ps) == 100
        page.click("#next")
        assert page.inner_text("#page") == "101 to 200"
        page.click("#results tbody tr >> nth=0 >> a")
        page.wait_for_selector("#detail article")
        assert page.evaluate("document.activeElement.id") == "detail"
        assert "unrelated to my-model" in page.inner_text("#detail")
        page.click("#detail a")
        page.wait_for_selector("#detail article", state="detached")


def test_sorting_puts_what_is_missing_last(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["few"]) as page:
        for down in (False, True):
            page.click("#results th >> nth=2 >> button")
            rates = page.locator("#results tbody tr td:nth-child(3)").all_inner_texts()
            assert rates[-1] == "" and "" not in rates[:-1]
            numbers = [float(r.split()[0]) for r in rates[:-1]]
            assert numbers == sorted(numbers, reverse=down)


def test_without_scripts(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["audit"], java_script_enabled=False) as page:
        assert page.locator("#results tbody tr").count() == FIRST
        assert page.locator("noscript p").is_visible()
        assert not page.locator("#controls").is_visible()
        assert page.locator("#results a").count() == SECTIONS
        page.click("#results a >> nth=3")
        assert page.url.endswith("#r3") and page.locator("#r3").is_visible()


def test_print(browser: Browser, pages: dict[str, Path], artefacts: Path) -> None:
    with opened(browser, pages["few"], scheme="dark") as page:
        page.emulate_media(media="print")
        assert not page.locator("#controls").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        made = page.pdf(path=str(artefacts / "report-few.pdf"))
        assert made.startswith(b"%PDF")


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    names = [
        "</script><script>window.pwned=1</script>",
        "<img src=x onerror='window.pwned=1'>",
        '"><svg onload="pwned=1">',
    ]
    rows = [row("unrelated", path=n, reason=n, verdict=verdict("unrelated", decided_by=n)) for n in names]
    path = tmp_path / "hostile.html"
    path.write_text(HtmlReport().finish([row()] * SECTIONS + rows, Summary("audit")))
    with opened(browser, path) as page:
        for offset, name in enumerate(names):
            page.evaluate(f"location.hash = 'r{SECTIONS + offset}'")
            playwright.expect(page.locator("#detail .path")).to_have_text(name)
        page.fill("#find", "<img")
        playwright.expect(page.locator("#results tbody tr")).to_have_count(1)
        assert page.evaluate("window.pwned === undefined")


def test_the_policy_stops_what_slips_in(browser: Browser, pages: dict[str, Path]) -> None:
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(browser, pages["one"]) as page:
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.pwned = 1'}))"
        )
        assert page.evaluate("window.pwned === undefined")
