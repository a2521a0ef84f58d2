"""`verify --suspect-timestamp`: who came first, from two verified timestamps, as a person uses it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_tool import Done, Tool  # type: ignore[import-not-found]

from cli.dating import Dating
from fingerprint.errors import UsageError
from store.database import Database
from store.home import Home

pytest.importorskip("rfc3161_client")
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from made_tokens import NOW, Maker

EARLY, MIDDLE, LATE = "20261127120000Z", "20261128120000Z", "20261129120000Z"
ASKED = ("verify", "derived.onnx", "--against", "owner")
MAKER = Maker()


@pytest.fixture(scope="module")
def dated(owner: Tool, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """A home whose fingerprint has two timestamps, the earlier one of MIDDLE, by an authority that is trusted."""
    folder = tmp_path_factory.mktemp("dated") / "home"
    shutil.copytree(owner.home, folder)
    home = Home(folder)
    (home.ensure(home.authorities) / "root.pem").write_bytes(MAKER.root_pem())
    with Database.open(home.database, home) as database:
        row = database.find("owner")
        for time in ("20261128130000Z", MIDDLE):
            database.add_timestamp(row.id, MAKER.at(time).answer(database.envelope(row)))
        (folder / "envelope").write_bytes(database.envelope(row))
    return Tool(folder, owner.cwd, owner.bytecode)


def token(tool: Tool, made: Maker, path: Path, file: str = "derived.onnx") -> Path:
    """A token over a file."""
    path.write_bytes(made.answer((tool.cwd / file).read_bytes()))
    return path


def verdict(done: Done) -> dict[str, Any]:
    """Of the only row."""
    assert done.code in (0, 1), done.err
    (row,) = done.json["results"]
    assert row["verdict"]["lineage"] == "derived"
    return dict(row["verdict"])


def test_a_later_suspect(dated: Tool, tmp_path: Path) -> None:
    given = token(dated, MAKER.at(LATE), tmp_path / "s.tsr")
    page = tmp_path / "r.html"
    found = verdict(dated(*ASKED, "--suspect-timestamp", given, "-f", "json", "-o", f"html={page}"))
    assert found["direction"] == "suspect-later"
    assert found["direction_evidence"]["fingerprint"]["time"] == "2026-11-28T12:00:00Z"  # the earliest one
    for told in (found["explanation"], page.read_text()):
        assert "timestamp is the later one: its file existed by 2026-11-29T12:00:00Z (serial 99)" in told
        assert "not when it was made or by whom" in told
    assert "not when it was made or by whom" in found["does_not_say"]
    assert dated("store", "check").code == 0
    pack = tmp_path / "e.zip"
    assert dated("report", "last", "--bundle", pack, "-f", "json").code in (0, 1)
    words = [sys.executable, "-m", "store.check_evidence", str(pack)]
    checked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert "ok      derived.onnx: suspect-later, by timestamps of 2026-11-29T12:00:00Z and 2026-11-28" in checked.stdout
    without = verdict(dated(*ASKED, "-f", "json"))  # a later run without the token does not take it over
    assert (without["direction"], without["direction_evidence"]) == ("unknown", None)


def test_an_earlier_suspect_and_its_file_of_facts(dated: Tool, tmp_path: Path) -> None:
    """Also of a verdict that is known already."""
    given, bom = token(dated, MAKER.at(EARLY), tmp_path / "s.tsr"), tmp_path / "bom.json"
    assert verdict(dated(*ASKED, "-f", "json"))["direction"] == "unknown"
    also = ["-o", f"cyclonedx={bom}"] if find_spec("cyclonedx") else []
    done = dated(*ASKED, "--suspect-timestamp", given, "-f", "json", *also)
    assert verdict(done)["direction"] == "suspect-earlier"
    assert done.json["results"][0]["cached"] is True
    if also:
        (component,) = json.loads(bom.read_text())["components"]
        assert "ancestors" not in component["pedigree"]
        assert [owner["name"] for owner in component["pedigree"]["descendants"]] == ["owner"]


def test_times_within_their_accuracy_are_unknown(dated: Tool, tmp_path: Path) -> None:
    given = token(dated, MAKER.at("20261128120010Z", accuracy=60), tmp_path / "s.tsr")
    found = verdict(dated(*ASKED, "--suspect-timestamp", given, "-f", "json"))
    assert found["direction"] == "unknown"
    assert found["direction_evidence"]["suspect"]["accuracy_s"] == 60
    assert "10 s apart, which is within their accuracy (61 s)" in found["explanation"]


def test_one_timestamp_says_nothing(copied: Tool, tmp_path: Path) -> None:
    home = Home(copied.home)
    (home.ensure(home.authorities) / "root.pem").write_bytes(MAKER.root_pem())
    given = token(copied, MAKER, tmp_path / "s.tsr")
    found = verdict(copied(*ASKED, "--suspect-timestamp", given, "-f", "json"))
    assert found["direction"] == "unknown"
    assert "came first is unknown. The signed fingerprint has no timestamp" in found["explanation"]


def test_a_timestamp_beside_an_exported_fingerprint(dated: Tool, tmp_path: Path) -> None:
    exported = tmp_path / "owner.fingerprint"
    assert dated("store", "export", "owner", "--out", exported, "--include-secrets").code == 0
    Path(f"{exported}.tsr").write_bytes(MAKER.at(EARLY).answer((dated.home / "envelope").read_bytes()))
    given = token(dated, MAKER.at("20261128000000Z"), tmp_path / "s.tsr")  # between the two
    done = dated("verify", "derived.onnx", "--suspect-timestamp", given, "-f", "json", "--against", exported)
    assert verdict(done)["direction"] == "suspect-later"


BAD: dict[str, Callable[[Tool, Path], object]] = {
    "another file": lambda tool, path: token(tool, MAKER, path, "owner.onnx"),
    "another root": lambda tool, path: token(tool, Maker(), path),
    "expired": lambda tool, path: token(tool, Maker(until=NOW - timedelta(days=1), root_key=MAKER.root_key), path),
    "not granted": lambda tool, path: token(tool, Maker(status=2, root_key=MAKER.root_key), path),
    "changed": lambda tool, path: path.write_bytes(token(tool, MAKER, path).read_bytes()[:-1] + b"x"),
    "no token": lambda _, path: path.write_bytes(b"hello"),
    "absent": lambda _, path: None,
}


@pytest.mark.parametrize("name", BAD)
def test_tokens_that_do_not_count(dated: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("FINGERPRINT_HOME", str(dated.home))
    suspect, path = dated.cwd / "derived.onnx", tmp_path / "s.tsr"
    assert Dating.of([suspect], token(dated, MAKER, path)).suspect.time == "2026-11-28T12:00:00Z"
    path.unlink()
    BAD[name](dated, path)
    with pytest.raises(UsageError, match="can't read the timestamp" if name == "absent" else "that counts here"):
        Dating.of([suspect], path)
    for places in ([suspect, suspect], ["http://127.0.0.1:9/v2/models/m"], []):
        with pytest.raises(UsageError, match="over one SUSPECT in files"):
            Dating.of(places, path)


def test_they_are_errors_before_anything_is_recorded(dated: Tool, tmp_path: Path) -> None:
    before = len(dated("store", "log", "-f", "json").json["entries"])
    for made, message in ((Maker(), "certificate"), (MAKER, "Mismatch between messages")):
        given = token(dated, made, tmp_path / "s.tsr", "owner.onnx")
        done = dated(*ASKED, "--suspect-timestamp", given)
        assert (done.code, done.out) == (2, ""), done
        assert "is no timestamp over derived.onnx that counts here" in done.err and message in done.err
    assert len(dated("store", "log", "-f", "json").json["entries"]) == before


def test_a_timestamp_over_a_model_in_parts(dated: Tool, tmp_path: Path) -> None:
    """What is stamped is the digest that results name it by, and `attest timestamp --model` asks for just that."""
    network, query, answer = tmp_path / "model.xml", tmp_path / "q.tsq", tmp_path / "r.tsr"
    network.write_text('<?xml version="1.0"?><net name="n" version="11"></net>')
    (tmp_path / "model.bin").write_bytes(b"weights")
    parts = [tmp_path / "model.bin", network]
    lines = "".join(f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts)
    made = dated("attest", "timestamp", network, "--model", "--request", query, "-f", "json")
    assert made.json["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert bytes.fromhex(made.json["sha256"]) in query.read_bytes()
    answer.write_bytes(MAKER.answer(lines.encode()))
    assert dated("attest", "timestamp", network, "--model", "--response", answer).code == 0
    assert (tmp_path / "model.xml.tsr").read_bytes() == answer.read_bytes()
    done = dated("verify", network, "--suspect-timestamp", answer, "-f", "json")
    (row,) = done.json["results"]
    assert row["suspect"]["sha256"] == made.json["sha256"]
    assert row["status"] != "decided"  # the token held; the network is none
    answer.write_bytes(MAKER.answer(b"something else"))
    assert dated("attest", "timestamp", network, "--model", "--response", answer).code == 4
