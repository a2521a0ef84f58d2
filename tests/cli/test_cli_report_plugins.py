"""plugins lists every kind, and a report format of another package works like a built-in one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_tool import Tool  # type: ignore[import-not-found]

PLUGIN = """
from fingerprint.report.interface import Report


class Shout(Report):
    name = "shout"

    def finish(self, rows, summary):
        return f"{len(rows)} ROWS OF {summary.kind.upper()}!\\n"
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a run that sees a package with three plug-ins, one of them broken."""
    (tmp_path / "shouting.py").write_text(PLUGIN)
    info = tmp_path / "shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fingerprint.reports]\nshout = shouting:Shout\nbroken = shouting:Missing\n"
        "[fingerprint.novelties]\nx = shouting:Shout\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


def test_every_kind_is_listed(tool: Tool, installed: dict[str, str]) -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    declared = set(re.findall(r'entry-points\."fingerprint\.(\w+)"', text))
    found = tool("plugins", "-f", "json", env=installed).json["plugins"]
    assert {p["group"] for p in found} == declared | {"novelties"}
    assert {
        "group": "reports",
        "name": "shout",
        "target": "shouting:Shout",
        "distribution": "shouting 1.0",
        "error": None,
    } in found
    assert [p["group"] for p in found][-1] == "novelties"


def test_check_names_what_is_broken(tool: Tool, installed: dict[str, str]) -> None:
    done = tool("plugins", "--check", "-f", "json", env=installed)
    broken = {p["name"]: p["error"] for p in done.json["plugins"] if p["error"]}
    assert done.code == 2 and "Missing" in broken.pop("broken") and not broken
    assert tool("plugins", "--check").code == 0


def test_a_format_of_another_package(owner: Tool, models: Path, installed: dict[str, str]) -> None:
    done = owner("verify", models / "derived.onnx", "-f", "shout", env=installed)
    assert (done.code, done.out) == (1, "1 ROWS OF VERIFY!\n")
