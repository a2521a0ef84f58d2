"""attest reproduce and challenge, and calibrate with a run, as a user types them."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli_tool import Done, Tool  # type: ignore[import-not-found]

NONCE = "9f2c41d07a5be86311c0"


def test_a_judge_makes_the_probes_again(owner: Tool) -> None:
    done = owner("attest", "reproduce", "owner", "--model", "owner.onnx", "-f", "json")
    assert done.code == 0, done.err
    assert done.json["reproduction"]["agreement"] == "identical"
    assert done.json["reproduction"]["identical"] == 30
    other = owner("attest", "reproduce", "owner", "--model", "owner.pt2")
    assert other.code == 2
    assert "not the model that this record was made of" in other.err


def test_fresh_probes_decide(owner: Tool, models: Path) -> None:
    stranger = min((models / "strangers").glob("*.onnx"))
    asked = ("attest", "reproduce", "owner", "--model", "owner.onnx", "--nonce", NONCE, "--reference", "references")
    done = owner(*asked, "--suspect", "owner.pt2", "--suspect", stranger, "-f", "json")
    assert done.code == 1, done.err
    assert done.json["results"][0]["verdict"]["lineage"] == "derived"
    assert done.json["results"][1]["verdict"]["lineage"] != "derived"
    assert "drawn after the record was timestamped" in done.err
    short = owner("attest", "reproduce", "owner", "--model", "owner.onnx", "--nonce", "7")
    assert short.code == 2
    alone = owner("attest", "reproduce", "owner", "--model", "owner.onnx", "--suspect", "owner.pt2")
    assert (alone.code, "--nonce" in alone.err) == (2, True)


def test_the_judges_models(owner: Tool, models: Path) -> None:
    done = owner("attest", "challenge", "owner", "--models", "references", "-f", "json")
    assert done.code in (0, 3), done.err
    found = done.json["challenge"]
    assert found["outcome"] in ("passed", "inconclusive")
    assert len(found["models"]) == len(list((models / "references").glob("*.onnx")))
    few = owner("attest", "challenge", "owner", "--models", min((models / "strangers").glob("*.onnx")))
    assert few.code == 3
    assert few.out.startswith("inconclusive: ")
    assert owner("attest", "challenge", "owner", "--models", "owner.onnx").code == 2


def run_id(tool: Tool) -> str:
    """Of the last verify or audit."""
    import sqlite3

    with sqlite3.connect(tool.home / "fingerprint.db") as connection:
        return str(connection.execute("SELECT id FROM runs ORDER BY id DESC LIMIT 1").fetchone()[0])


def test_calibrate_with_what_a_run_saw(copied: Tool, models: Path, tmp_path: Path) -> None:
    related = Path(shutil.copy(models / "owner.pt2", tmp_path / "related.pt2"))
    shutil.copy(models / "owner.pt2.spec.json", tmp_path / "related.pt2.spec.json")
    stranger = min((models / "strangers").glob("*.onnx"))
    copied("verify", related, stranger, "--against", "owner", "--no-cache", "-q")
    run = run_id(copied)
    refused = copied("calibrate", "owner", "--from-run", run)
    assert refused.code == 2
    assert "related.pt2" in refused.err
    before = _references(copied("store", "show", "owner", "-f", "json"))
    done = copied("calibrate", "owner", "--from-run", run, "--related", related, "-f", "json")
    assert done.code == 0, done.err
    assert _references(done) == before + 1
    assert "reference" in done.json["fingerprint"]["calibration"]["reach"]
    assert copied("calibrate", "owner", "--related", related).code == 2
    assert copied("calibrate", "owner").code == 2


def _references(done: Done) -> int:
    assert done.code == 0, done.err
    return int(done.json["fingerprint"]["calibration"]["n"])
