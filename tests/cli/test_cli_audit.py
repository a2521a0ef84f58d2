"""audit, from the command line."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from cli_tool import Tool  # type: ignore[import-not-found]

SCHEMA = json.loads(files("fingerprint.report").joinpath("schema/results.v1.json").read_text())
LINE = {"$ref": "#/$defs/line", "$defs": SCHEMA["$defs"]}


@pytest.fixture(scope="module")
def registry(models: Path, owner: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A derivative, strangers, a damaged file, and files that are no models."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "deep").mkdir()
    for source, target in (
        ("derived.onnx", "deep/a.onnx"),
        ("strangers/net-0.onnx", "b.onnx"),
        ("strangers/net-1.onnx", "c.bin"),
        ("odd/cut.onnx", "d.onnx"),
    ):
        shutil.copy(models / source, folder / target)
        sidecar = models / f"{source}.spec.json"
        if sidecar.exists():
            shutil.copy(sidecar, folder / f"{target}.spec.json")
    (folder / "readme.txt").write_text("no model")
    return folder


def test_json(owner: Tool, registry: Path) -> None:
    done = owner("audit", registry, "-f", "json", "--workers", "2")
    document = done.json
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    found = {
        Path(r["suspect"]["path"]).name: (r["status"], (r["verdict"] or {}).get("lineage")) for r in document["results"]
    }
    assert found == {
        "a.onnx": ("decided", "derived"),
        "b.onnx": ("decided", "unrelated"),
        "c.bin": ("decided", "unrelated"),
        "d.onnx": ("unreadable", None),
    }
    assert document["correction"]["tests"] == 3 and document["correction"]["discoveries"] == 1
    assert document["partial"] is False and document["run"]
    assert done.code == 1


def test_an_unchanged_registry_is_not_asked_again(owner: Tool, registry: Path) -> None:
    owner("audit", registry, "-q")
    again = owner("audit", registry, "-f", "json")
    assert {r["cached"] for r in again.json["results"] if r["status"] == "decided"} == {True}
    assert again.code == 1
    fresh = owner("audit", registry, "-f", "json", "--no-cache")
    assert {r["cached"] for r in fresh.json["results"]} == {False}


def test_jsonl_streams_and_ends_with_the_final_rows(owner: Tool, registry: Path) -> None:
    done = owner("audit", registry, "-f", "jsonl")
    for line in done.lines:
        jsonschema.Draft202012Validator(LINE).validate(line)
    assert [line.get("provisional") for line in done.lines] == [True] * 4 + [False] * 4 + [None]
    summary = done.lines[-1]
    assert summary["summary"] == {"results": 4, "derived": 1, "unrelated": 2, "inconclusive": 0, "undecided": 1}
    assert summary["run"] and summary["correction"]["method"] == "benjamini-hochberg"


def test_table_and_exit_codes(owner: Tool, registry: Path, tmp_path: Path) -> None:
    done = owner("audit", registry, "-o", f"json={tmp_path / 'audit.json'}")
    assert "4 results: 1 derived, 2 unrelated, 1 undecided" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert len(json.loads((tmp_path / "audit.json").read_text())["results"]) == 4
    assert owner("audit", registry / "b.onnx", registry / "c.bin", "-q").code == 0
    assert owner("audit", registry / "b.onnx", registry / "d.onnx", "-q").code == 3


def test_an_empty_place(owner: Tool, tmp_path: Path) -> None:
    done = owner("audit", tmp_path, "-f", "json")
    assert (done.code, done.json["results"]) == (0, [])
    assert "no model" in done.err
    assert owner("audit", tmp_path / "none").code == 2


def test_a_broken_sidecar_stops_no_audit(owner: Tool, models: Path, tmp_path: Path) -> None:
    for name in ("1.onnx", "2.onnx"):
        shutil.copy(models / "strangers" / "net-0.onnx", tmp_path / name)
    (tmp_path / "1.onnx.spec.json").write_text('{"layout": ')
    shutil.copy(models / "strangers" / "net-0.onnx.spec.json", tmp_path / "2.onnx.spec.json")
    done = owner("audit", tmp_path, "-f", "json")
    assert [row["status"] for row in done.json["results"]] == ["unsupported", "decided"]
    assert "1.onnx.spec.json" in done.json["results"][0]["reason"] and done.code == 3


def test_ctrl_c_reports_what_is_known(owner: Tool, models: Path, registry: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for source, target in ((registry / "b.onnx", "1.onnx"), (models / "slow.onnx", "2.onnx")):
        shutil.copy(source, place / target)
        shutil.copy(f"{source}.spec.json", place / f"{target}.spec.json")
    out = tmp_path / "audit.json"
    done = owner.interrupted("audit", place, "-f", "jsonl", "-o", f"json={out}")
    assert done.code == 3, done
    document = json.loads(out.read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["partial"] is True and len(document["results"]) == 1
    assert [line.get("provisional") for line in done.lines] == [True, False, None] and done.lines[-1]["partial"] is True
    assert "nterrupted" in done.err
    assert owner("store", "check").code == 0
