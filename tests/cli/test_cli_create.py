"""keygen, create, calibrate, derive, from the command line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from cli_tool import Done, Tool  # type: ignore[import-not-found]

NATURAL = ("--families", "natural", "--data", "data.npz", "--screen", "0", "--budget", "12")  # fast: no gradients


def shown(done: Done) -> dict[str, Any]:
    """The fingerprint that create, calibrate or show printed."""
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json["fingerprint"]
    return found


def test_keygen(tool: Tool, tmp_path: Path) -> None:
    done = tool("keygen", "--no-passphrase", "-f", "json")
    key = done.json["key"]
    assert Path(key["private"]).stat().st_mode & 0o777 == 0o600 and key["encrypted"] is False
    assert Path(key["trusted"]).parent == tool.home / "trusted" and key["id"] in tool("doctor").out
    assert tool("keygen", "--no-passphrase").code == 2, "an existing key is never replaced"
    other = tool("keygen", "--out", tmp_path / "other", env={"FINGERPRINT_PASSPHRASE": "secret"})
    assert other.code == 0 and b"ENCRYPTED" in (tmp_path / "other" / "fingerprint.key").read_bytes()
    assert len(list((tool.home / "trusted").iterdir())) == 2


def test_keygen_without_a_passphrase_or_a_terminal(tool: Tool) -> None:
    done = tool("keygen")
    assert done.code == 2 and "--no-passphrase" in done.err
    assert not (tool.home / "keys" / "fingerprint.key").exists()


def test_what_create_says(created: tuple[Tool, Done]) -> None:
    tool, done = created
    made = shown(done)
    assert made["name"] == "owner" and len(made["id"]) == 64 and done.json["schema_version"] == 1
    expected = {"alpha": 0.01, "kind": "fitted", "n": 10, "authors": 10, "declared_bound": None, "reason": None}
    expected |= {"made": 0, "controls": 0, "kin": 0, "ancestors": []}
    assert {key: made["calibration"][key] for key in expected} == expected
    (family,) = made["families"]
    assert (family["name"], family["count"]) == ("characteristic", 30) and family["passes"] > 0
    assert made["uniqueness"]["robustness"] > 0.9
    keys = list((tool.home / "secrets").iterdir())
    assert str(keys[0]) in done.err and keys[0].stat().st_mode & 0o777 == 0o600
    text = tool("store", "show", "owner").out
    for word in ("owner model", "Uniqueness Score", "robustness", "fitted at alpha 0.01: n = 10"):
        assert word in text


def test_create_needs_a_key(models: Path, tool: Tool) -> None:
    done = tool("create", models / "owner.onnx", "--name", "n")
    assert done.code == 2 and "fingerprint keygen" in done.err


def test_passphrases(models: Path, tool: Tool, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    assert tool("keygen", "--passphrase-file", secret).code == 0
    flags = (*NATURAL[:2], "--data", models / "data.npz", *NATURAL[4:], "-q")
    for env, code in (
        ({}, 2),
        ({"FINGERPRINT_PASSPHRASE": "wrong"}, 2),
        ({"FINGERPRINT_PASSPHRASE": "open sesame"}, 0),
    ):
        done = tool("create", models / "owner.onnx", "--name", "n", *flags, env=env)
        assert done.code == code, done.err
        assert "sesame" not in done.out + done.err
    assert "passphrase" in tool("create", models / "owner.onnx", "--name", "m", env={}).err


def test_what_is_wrong_is_said_before_the_long_work(keyed: Tool, owner: Tool, tmp_path: Path) -> None:
    """Each of these takes less time than making a single probe."""
    shutil.copytree(owner.home, tmp_path / "full")
    full = Tool(tmp_path / "full", owner.cwd, owner.bytecode)
    spec = tmp_path / "spec.json"
    spec.write_text('{"layout": "NCHW", "shape": [1, 8, 8], "std": [0]}')
    secret_key = keyed.home / "keys" / "fingerprint.key"
    cases: list[tuple[Tool, tuple[str | Path, ...], str]] = [
        (full, ("--name", "owner"), "--replace"),
        (keyed, ("--name", "n", "--key", tmp_path / "none.key"), "none.key"),
        (keyed, ("--name", "n", "--key", keyed.home / "keys" / "fingerprint.pub"), "fingerprint.pub"),
        (keyed, ("--name", "n", "--spec", spec), "std"),
        (keyed, ("--name", "n", "--spec", tmp_path / "none.json"), "none.json"),
        (keyed, ("--name", "n", "--budget", "0"), "budget"),
        (keyed, ("--name", "n", "--declare-bound", "1.5"), "bound"),
        (keyed, ("--name", ""), "name"),
        (keyed, ("--name", "n", "-o", f"json={tmp_path}/none/x"), "-o"),
        (keyed, ("--name", "n", "--db", tmp_path), "folder"),
    ]
    for used, flags, said in cases:
        started = time.monotonic()
        done = used("create", "owner.onnx", *flags)
        assert done.code == 2 and said in done.err, done
        assert time.monotonic() - started < 30
    secret_key.chmod(0o644)
    assert "chmod 600" in keyed("create", "owner.onnx", "--name", "n").err


@pytest.mark.parametrize("model", ["odd/empty.onnx", "odd/text.onnx", "odd/cut.onnx", "odd/bomb.pth"])
def test_files_that_are_no_model(keyed: Tool, model: str) -> None:
    done = keyed("create", model, "--name", "n", "--spec", "owner.onnx.spec.json")
    assert done.code == 2 and done.err.startswith("error: ")
    assert keyed("store", "list", "-f", "json").json["fingerprints"] == []
    assert not (keyed.cwd / "odd" / "MARKER").exists()


def test_references_that_are_the_owners(keyed: Tool) -> None:
    done = keyed("create", "owner.onnx", "--name", "n", *NATURAL, "--reference", "owner.onnx")
    assert done.code == 2 and "owner.onnx" in done.err and "unrelated" in done.err


def test_seed_replace_calibrate_and_import(keyed: Tool, models: Path, bytecode: Path, tmp_path: Path) -> None:
    """One journey: the same seed gives the same probes, versions follow each other, a copy goes to another home."""
    first = shown(keyed("create", "owner.onnx", "--name", "n", *NATURAL, "--seed", "7", "-f", "json"))
    assert keyed("create", "owner.onnx", "--name", "n", *NATURAL).code == 2
    again = keyed("create", "owner.onnx", "--name", "n", *NATURAL, "--seed", "7", "--replace", "-f", "json")
    second = shown(again)
    assert "no evidence" in again.err and second["evidential"] is False
    assert first["merkle_root"] == second["merkle_root"] and first["id"] != second["id"] and second["version"] == 2
    manifests = [shown(keyed("store", "show", i, "-f", "json"))["manifest"] for i in (first["id"], "n")]
    assert manifests[1]["previous"] == first["id"]
    same = [{k: v for k, v in m.items() if k not in ("created", "previous", "tensors")} for m in manifests]
    assert same[0] == same[1]
    assert second["calibration"]["kind"] is None and "7 reference models" in second["calibration"]["reason"]
    _calibrated(keyed, second["id"])
    _imported(keyed, models, bytecode, tmp_path)


def _calibrated(keyed: Tool, second: str) -> None:
    done = keyed("calibrate", "n", "--reference", "references", "-f", "json")
    third = shown(done)
    assert (third["version"], third["calibration"]["kind"], third["calibration"]["n"]) == (3, "fitted", 10)
    assert shown(keyed("store", "show", "n", "-f", "json"))["manifest"]["previous"] == second
    assert keyed("calibrate", "n", "--reference", "references").code == 2, "nothing new"
    assert "later one" in keyed("calibrate", second, "--reference", "strangers").err
    assert keyed("verify", "derived.onnx", "--against", "n", "-q").code == 1
    assert keyed("store", "check").code == 0


def _imported(keyed: Tool, models: Path, bytecode: Path, tmp_path: Path) -> None:
    file, public = tmp_path / "n.fingerprint", keyed.home / "keys" / "fingerprint.pub"
    assert keyed("store", "export", "n", "--include-secrets", "--out", file).code == 0
    other = Tool(tmp_path / "other-home", models, bytecode)
    assert other("store", "import", file).code == 4, "the signer is nobody here"
    done = other("store", "import", file, "--key", public)
    assert done.code == 0 and "not trusted here" in done.err
    assert other("verify", "derived.onnx").code == 4
    assert other("verify", "derived.onnx", "--key", public, "-q").code == 1


def test_ctrl_c_stores_nothing(keyed: Tool) -> None:
    done = keyed.interrupted("create", "owner.onnx", "--name", "n", "--budget", "5000", after_s=5)
    assert (done.code, done.out) == (130, "")
    assert "nterrupted" in done.err
    assert keyed("store", "list", "-f", "json").json["fingerprints"] == []
    assert keyed("store", "check").code == 0
    assert not list(keyed.home.glob("**/.tmp-*")) and not list((keyed.home / "fingerprint.db.tensors").glob("*"))


def test_derive(owner: Tool, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = owner("derive", "owner.onnx", "--how", "quantize:int8", "--out", out, "-f", "json")
    assert done.code == 0 and done.json["derived"]["how"] == "quantize:int8" and out.exists()
    assert json.loads((tmp_path / "small.onnx.spec.json").read_text())["classes"] == 10
    assert owner("derive", "owner.onnx", "--how", "quantize:int8", "--out", out).code == 2
    assert owner("derive", "owner.onnx", "--how", "prune:layer:0.2", "--out", out, "--overwrite").code == 0
    for how in ("prune:magnitude:2", "shrink", ""):
        bad = owner("derive", "owner.onnx", "--how", how, "--out", tmp_path / "bad.onnx")
        assert bad.code == 2 and not (tmp_path / "bad.onnx").exists()
    assert owner("verify", out, "-q").code == 1
