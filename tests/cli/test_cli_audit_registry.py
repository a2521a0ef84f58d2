"""Audits of whole registries: killed and resumed, ignored, told to machines; from the command line."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_tool import COMMAND, Tool  # type: ignore[import-not-found]

COPIES = 20


@pytest.fixture(scope="module")
def registry(models: Path, owner: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty models of different content, a damaged one, an encrypted one, and an app."""
    folder = tmp_path_factory.mktemp("long")
    for i in range(COPIES):
        source = models / ("derived.onnx" if i % 2 else "strangers/net-0.onnx")
        target = folder / f"m{chr(97 + i)}.onnx"
        target.write_bytes(source.read_bytes() + b"\x12\x01" + bytes([65 + i]))  # another producer's name
        shutil.copy(f"{source}.spec.json", f"{target}.spec.json")
    shutil.copy(models / "odd" / "cut.onnx", folder / "cut.onnx")
    (folder / "secret.onnx").write_bytes(os.urandom(30_000))
    with zipfile.ZipFile(folder / "app.apk", "w") as archive:
        archive.write(models / "owner.onnx", "assets/a.mp3")
        archive.write(models / "derived.onnx", "assets/b")
        archive.write(models / "derived.onnx.spec.json", "assets/b.spec.json")
    return folder


def outcome(rows: list[Any]) -> list[tuple[str, str, str | None]]:
    return [(r["suspect"]["path"], r["status"], (r["verdict"] or {}).get("lineage")) for r in rows]


def rounded(value: Any) -> Any:  # noqa: ANN401
    """The same with floats of five digits: a batch of another size, chosen by its time, may change the last ones."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def test_sources_in_one_command(owner: Tool, registry: Path, models: Path) -> None:
    done = owner("audit", registry, "-f", "json", "--workers", "2")
    found = {
        path.removeprefix(f"{registry}/"): (status, lineage) for path, status, lineage in outcome(done.json["results"])
    }
    assert found.pop("app.apk!/assets/a.mp3") == ("decided", "derived")
    assert found.pop("app.apk!/assets/b") == ("decided", "derived")
    assert found.pop("cut.onnx") == ("unreadable", None) and found.pop("secret.onnx") == ("opaque", None)
    assert found == {f"m{chr(97 + i)}.onnx": ("decided", ("unrelated", "derived")[i % 2]) for i in range(COPIES)}
    assert done.code == 1


def test_a_killed_audit_goes_on_where_it_was(copied: Tool, registry: Path) -> None:
    """Three times kill -9; the rows are those of an undisturbed run, and so is what the database says."""
    undisturbed = copied("audit", registry, "-f", "json", "--no-cache").json["results"]
    shutil.rmtree(copied.home)
    shutil.copytree(copied.home.parent / "pristine", copied.home)
    arguments = [str(COMMAND), "audit", str(registry), "-f", "jsonl"]
    for wanted in (6, 10, 14):
        process = subprocess.Popen(
            arguments, env=copied.environment(), cwd=copied.cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # it can't run far ahead of what is read
        for _ in range(wanted):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = copied("audit", registry, "-f", "json")
    assert "goes on with it" in done.err
    # Tests before this one may have left verdicts on the same files in the home: those are told as cached.
    rows = [{**row, "cached": False} for row in done.json["results"]]
    assert rounded(rows) == rounded(undisturbed)
    assert copied("store", "check").code == 0
    again = copied("audit", registry, "-f", "json")
    assert "goes on" not in again.err
    assert {r["cached"] for r in again.json["results"] if r["status"] != "opaque"} == {True}
    assert list(copied.home.glob("*.lock")) == []


@pytest.fixture(autouse=True)
def pristine(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A second copy of the home, for tests that start anew."""
    if "copied" in request.fixturenames:
        owner: Tool = request.getfixturevalue("owner")
        shutil.copytree(owner.home, tmp_path / "pristine")


def test_an_unchanged_registry_is_taken_over_and_not_copied(copied: Tool, registry: Path, tmp_path: Path) -> None:
    """Nothing of it is stored again, every report says the same, and all of it is still checked by a third party."""
    places = [registry / f"m{letter}.onnx" for letter in "abcd"]
    copied("audit", *places[:3])
    first = copied("audit", *places, "-f", "json").json  # one of its own, three taken over
    size = rows_stored(copied)
    again = copied("audit", *places, "-f", "json").json
    assert rows_stored(copied) == size and {row["cached"] for row in again["results"]} == {True}
    assert [{**row, "cached": False} for row in again["results"]] == [
        {**row, "cached": False} for row in first["results"]
    ]
    assert copied("report", again["run"], "-f", "json").json["results"] == again["results"]
    nothing = copied("audit", *places, "-f", "json", "--since", "last").json
    assert nothing["results"] == []
    assert copied("store", "check").code == 0
    copied("report", again["run"], "--bundle", tmp_path / "e.zip")
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        archive.extractall(tmp_path / "pack")
    command = [sys.executable, "-I", str(tmp_path / "pack" / "check_evidence.py"), str(tmp_path / "pack")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "4 are rows of earlier runs" in done.stdout, done.stdout + done.stderr


def rows_stored(tool: Tool) -> int:
    with closing(sqlite3.connect(tool.home / "fingerprint.db")) as database:
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


def test_since_leaves_out_what_has_not_changed(copied: Tool, registry: Path, models: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("ma.onnx", "mb.onnx"):
        shutil.copy(registry / name, place / name)
        shutil.copy(registry / f"{name}.spec.json", place / f"{name}.spec.json")
    first = copied("audit", place, "-f", "json").json
    assert len(first["results"]) == 2
    nothing = copied("audit", place, "-f", "json", "--since", "last")
    assert (nothing.json["results"], nothing.code) == ([], 0) and "2 results are as in the run" in nothing.err
    shutil.copy(registry / "md.onnx", place / "mb.onnx")
    changed = copied("audit", place, "-f", "json", "--since", first["run"])
    assert [Path(r["suspect"]["path"]).name for r in changed.json["results"]] == ["mb.onnx"]
    assert copied("audit", place, "--since", "none").code == 2


def test_changed_files_are_read_again_and_rehash_reads_all(copied: Tool, registry: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = place / "m.onnx"
    shutil.copy(registry / "ma.onnx", path)
    shutil.copy(registry / "ma.onnx.spec.json", place / "m.onnx.spec.json")
    (first,) = copied("audit", place, "-f", "json").json["results"]
    before = path.stat()
    shutil.copy(registry / "mb.onnx", path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as somebody who wants to hide it would
    (second,) = copied("audit", place, "-f", "json").json["results"]
    assert (first["verdict"]["lineage"], second["verdict"]["lineage"], second["cached"]) == (
        "unrelated",
        "derived",
        False,
    )
    (third,) = copied("audit", place, "-f", "json", "--rehash").json["results"]
    assert third["cached"] is True and third["suspect"]["sha256"] == second["suspect"]["sha256"]


IGNORE = """
[[ignore]]
path = "*/m[bdfhjlnprt].onnx"
fingerprint = "owner"
reason = "Our own, made for the tests."
expires = {expires}
"""


def test_ignored_findings_are_shown_and_counted_and_do_not_fail(owner: Tool, registry: Path, tmp_path: Path) -> None:
    places = [registry / f"m{letter}.onnx" for letter in "abcd"]
    (tmp_path / "ignore.toml").write_text(IGNORE.format(expires="2999-01-01"))
    done = owner("audit", *places, "-f", "json", "--ignore", tmp_path / "ignore.toml")
    assert done.code == 0 and "2 results are suppressed" in done.err
    rows = done.json["results"]
    assert [r.get("suppressed", {}).get("reason") for r in rows] == [
        None,
        "Our own, made for the tests.",
        None,
        "Our own, made for the tests.",
    ]
    assert done.json["correction"]["tests"] == 4
    (tmp_path / "ignore.toml").write_text(IGNORE.format(expires="2001-01-01"))
    expired = owner("audit", *places, "--ignore", tmp_path / "ignore.toml")
    assert expired.code == 1 and "expired on 2001-01-01" in expired.err


NEVER = "expires = 2999-01-01"
INCOMPLETE = [
    f'path = "x"\n{NEVER}',
    'path = "x"\nreason = "y"',
    "x = 1",
    f'reason = "y"\n{NEVER}',
    f'sha256 = "abc"\nreason = "y"\n{NEVER}',
    f'path = "x"\nreason = " "\n{NEVER}',
]


@pytest.mark.parametrize("text", [*(f"[[ignore]]\n{entry}" for entry in INCOMPLETE), "ignore = 3", "not toml"])
def test_incomplete_ignore_files_are_refused(text: str, tmp_path: Path) -> None:
    import datetime

    from cli.audits.ignoring import load
    from fingerprint.errors import UsageError

    (tmp_path / "ignore.toml").write_text(text)
    with pytest.raises(UsageError):
        load(tmp_path / "ignore.toml", datetime.date(2026, 1, 1), print)


def test_logs_and_metrics_for_machines(owner: Tool, registry: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "audit.prom"
    done = owner(
        "audit", registry / "ma.onnx", registry / "mb.onnx", tmp_path, "--log-format", "json", "--metrics", metrics
    )
    events = [json.loads(line) for line in done.err.splitlines()]
    assert all({"time", "level", "event"} <= set(event) for event in events)
    steps = [(event["done"], event["total"]) for event in events if event["event"] == "step"]
    assert steps[-1] == (2, 2)
    lines = metrics.read_text().splitlines()
    assert 'fingerprint_audit_results{outcome="derived"} 1' in lines
    assert 'fingerprint_audit_results{outcome="unrelated"} 1' in lines
    assert "fingerprint_audit_exit_code 1" in lines and "fingerprint_audit_suspects 2" in lines
    assert all(line.startswith("# ") or len(line.split(" ")) == 2 for line in lines)
    assert owner("audit", registry / "ma.onnx", "-q", "--log-format", "json").err == ""


def test_shares_together_are_the_whole(owner: Tool, registry: Path) -> None:
    whole = outcome(owner("audit", registry, "-f", "json").json["results"])
    parts = [outcome(owner("audit", registry, "-f", "json", "--shard", f"{i}/2").json["results"]) for i in (1, 2)]
    assert sorted(map(str, parts[0] + parts[1])) == sorted(map(str, whole)) and all(parts)
    assert owner("audit", registry, "--shard", "3/2").code == 2


def test_a_list_on_standard_input(owner: Tool, registry: Path) -> None:
    done = subprocess.run(
        [str(COMMAND), "audit", "-", "-f", "json"], env=owner.environment(), cwd=owner.cwd, check=False,
        input=f"{registry}/ma.onnx\n{registry}/none.onnx\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert [status for _, status, _ in outcome(json.loads(done.stdout)["results"])] == ["decided", "unreadable"]


def test_settings_in_a_file_name_no_place_that_probes_are_sent_to(owner: Tool, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "fingerprint.toml").write_text('[audit]\nray-address = "10.0.0.1:6379"\n')
    done = owner("audit", registry / "ma.onnx", cwd=tmp_path)
    assert done.code == 2 and "can't be set in a file" in done.err


@pytest.mark.slow
def test_ray_from_the_command_line(copied: Tool, registry: Path) -> None:
    pytest.importorskip("ray")
    local = copied("audit", registry, "-f", "json", "--no-cache").json["results"]
    done = copied("audit", registry, "-f", "json", "--no-cache", "--executor", "ray", "--workers", "2")
    assert rounded(done.json["results"]) == rounded(local) and done.code == 1


@pytest.mark.shared_data
def test_a_real_app(owner: Tool, shared_data: Path) -> None:
    done = owner("audit", shared_data / "mobile" / "flower_app.apk", "-f", "json")
    names = [Path(r["suspect"]["path"]).name for r in done.json["results"]]
    assert names == ["model (1).tflite", "model.tflite"] and "flower_app.apk!/assets/" in done.out
    assert all(r["suspect"]["format"] == "tflite" for r in done.json["results"])
