"""report, and the report formats of verify and audit, from the command line."""

from __future__ import annotations

import csv
import json
import re
import stat
import subprocess
import sys
import zipfile
from importlib.resources import files
from io import BytesIO, StringIO
from pathlib import Path

import jsonschema
import pytest
from cli_tool import Tool  # type: ignore[import-not-found]
from pyarrow import parquet

SCHEMA = json.loads(files("fingerprint.report").joinpath("schema/results.v1.json").read_text())
SARIF = json.loads((Path(__file__).parents[1] / "fixtures/schemas/sarif-2.1.0.json").read_text())
EVERY = ("table", "json", "jsonl", "sarif", "markdown", "html", "csv")


@pytest.fixture(scope="module")
def registry(models: Path, tmp_path_factory: pytest.TempPathFactory, owner: Tool) -> Path:
    """A derivative and two strangers."""
    folder = tmp_path_factory.mktemp("reported")
    for source, target in (("derived.onnx", "a.onnx"), ("strangers/net-0.onnx", "b.onnx"), ("odd/cut.onnx", "c.onnx")):
        (folder / target).write_bytes((models / source).read_bytes())
        sidecar = models / f"{source}.spec.json"
        if sidecar.exists():
            (folder / f"{target}.spec.json").write_bytes(sidecar.read_bytes())
    return folder


@pytest.fixture(scope="module")
def audited(owner: Tool, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one audit wrote, in every format."""
    out = tmp_path_factory.mktemp("out")
    wanted = [f"{name}={out / name}" for name in (*EVERY, "parquet")]
    done = owner("audit", registry, "-q", "--no-cache", *(word for text in wanted for word in ("-o", text)))
    assert done.code == 1, done.err
    return out


def run_of(out: Path) -> str:
    return str(json.loads((out / "json").read_text())["run"])


def test_every_format_of_an_audit_agrees(audited: Path) -> None:
    document = json.loads((audited / "json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    expected = [(r["verdict"] or {}).get("lineage") for r in document["results"]]
    assert expected == ["derived", "unrelated", None]
    sarif = json.loads((audited / "sarif").read_text())
    jsonschema.Draft4Validator(SARIF).validate(sarif)
    assert [r["ruleId"] for r in sarif["runs"][0]["results"]] == ["derived", "unrelated", "undecided"]
    rows = list(csv.DictReader(StringIO((audited / "csv").read_text(), newline="")))
    assert [r["lineage"] or None for r in rows] == expected
    table = parquet.read_table(BytesIO((audited / "parquet").read_bytes()))
    assert table["lineage"].to_pylist() == expected
    for name in ("table", "markdown", "html"):
        text = (audited / name).read_text()
        assert "a.onnx" in text and "consistent with derivation" in text and "stolen" not in text, name
    page = (audited / "html").read_text()
    assert run_of(audited) in page and "unrelated reference models" in page and "data:image" not in page
    assert "checked against the trusted keys" in page


def test_a_stored_run_renders_like_a_fresh_one(owner: Tool, audited: Path, tmp_path: Path) -> None:
    wanted = [f"{name}={tmp_path / name}" for name in (*EVERY, "parquet")]
    done = owner("report", run_of(audited), "-f", "json", *(word for text in wanted for word in ("-o", text)))
    assert done.code == 0, done.err
    for name in ("table", "markdown", "html", "csv", "parquet"):
        assert (tmp_path / name).read_bytes() == (audited / name).read_bytes(), name
    for name in ("json", "sarif"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((audited / name).read_text()), name
    again, fresh = (
        [json.loads(line) for line in (folder / "jsonl").read_text().splitlines()] for folder in (tmp_path, audited)
    )
    assert again == [line for line in fresh if not line.get("provisional")]
    assert done.json == json.loads((audited / "json").read_text())


def test_verify_renders_and_is_found_again(owner: Tool, registry: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.html"
    done = owner("verify", registry / "a.onnx", "-f", "json", "-o", f"html={out}")
    listed = owner("report", "--list", "-f", "json").json["runs"]
    assert listed[-1]["kind"] == "verify" and listed[-1]["results"] == 1
    assert listed[-1]["id"] in out.read_text()
    assert owner("report", "last", "-f", "json").out == done.out
    assert owner("report", listed[-1]["id"][:20], "-f", "json").out == done.out
    assert listed[-1]["id"] in owner("report", "--list").out


def test_probes_are_shown_only_when_asked_and_count_as_exposed(copied: Tool, registry: Path, tmp_path: Path) -> None:
    secret, plain = tmp_path / "secret.html", tmp_path / "plain.html"
    done = copied("verify", registry / "a.onnx", "--show-probes", "--no-cache", "-o", f"html={secret}")
    assert done.code == 1 and "count as exposed" in done.err
    page = secret.read_text()
    assert page.count("data:image/png;base64,") == 30 and "this report shows probes" in page
    assert len(re.findall(r"<b>(?:match|differs)</b>", page)) == 30
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    exposed = copied("store", "show", "owner", "-f", "json").json["fingerprint"]["exposed"]
    assert sorted(exposed[f"report {secret}"]) == list(range(30))
    assert copied("report", "last", "-q", "-o", f"html={plain}").code == 0
    assert "data:image" not in plain.read_text()
    again = tmp_path / "again.html"
    assert copied("report", "last", "--show-probes", "-o", f"html={again}").code == 0
    assert again.read_text().count("data:image/png;base64,") == 30
    cached = copied("verify", registry / "a.onnx", "--show-probes", "-f", "json", "-o", f"html={again}")
    assert cached.json["results"][0]["cached"] is True and "answers" not in cached.json["results"][0]
    assert len(re.findall(r"<b>(?:match|differs)</b>", again.read_text())) == 30
    assert copied("store", "check").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "no-such-run"), "no run 'no-such-run'"),
        (("report", "last"), "no run 'last'"),
        (("report", "last", "--list"), "give a RUN, or --list"),
        (("report", "last", "--show-probes"), "-o html=report.html"),
        (("verify", "x", "--show-probes", "-f", "json"), "-o html=report.html"),
        (("store", "list", "-f", "sarif"), "this verb can't write sarif"),
        (("keygen", "-o", "html=x.html"), "this verb can't write html"),
    ],
)
def test_senseless_arguments(tool: Tool, arguments: tuple[str, ...], said: str) -> None:
    done = tool(*arguments)
    assert done.code == 2 and said in done.err, done
    assert not any(tool.home.glob("**/*")), "a failed run made something"


def test_a_bundle_checks_itself(copied: Tool, registry: Path, tmp_path: Path) -> None:
    assert copied("verify", registry / "a.onnx", "-q").code == 1
    out, place = tmp_path / "evidence.zip", tmp_path / "unpacked"
    key = copied.home / "keys" / "fingerprint.key"
    done = copied("report", "last", "--bundle", out, "--sign-with", key)
    assert done.code == 0 and "SHA-256" in done.err, done.err
    with zipfile.ZipFile(out) as archive:
        archive.extractall(place)
    page = (place / "report.html").read_text()
    assert "consistent with derivation" in page and "data:image" not in page
    assert "consistent with derivation" in (place / "report.md").read_text()
    checked = subprocess.run(
        [sys.executable, place / "check_evidence.py", place], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    again = copied("report", "last", "--bundle", out)
    assert again.code == 2 and "exists already" in again.err
    assert copied("report", "last", "--sign-with", key).code == 2


def test_no_run_yet(tool: Tool) -> None:
    done = tool("report", "--list")
    assert (done.code, done.out) == (0, "There is no run yet: fingerprint verify and audit record theirs.\n")


def test_a_killed_run_is_partial(copied: Tool, registry: Path) -> None:
    from store.database import Database
    from store.home import Home

    home = Home(copied.home)
    with Database.open(home.database, home) as database:
        database.start_run("audit", {"alpha": 0.01, "places": ["x"]}, "0.1.0")
    done = copied("report", "last", "-f", "json")
    assert done.code == 0 and done.json["partial"] is True and "did not end" in done.err
    assert "did not end" in copied("report", "--list").out


def test_changed_rows_and_records_are_exit_4(copied: Tool, registry: Path) -> None:
    import sqlite3

    assert copied("verify", registry / "b.onnx", "-q").code == 0
    connection = sqlite3.connect(copied.home / "fingerprint.db")
    with connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE results SET row = replace(row, 'unrelated', 'derived')")
    connection.close()
    done = copied("report", "last", "-f", "html")
    assert done.code == 4 and not done.out
