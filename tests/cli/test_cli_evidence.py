"""attest, reveal, lock, checkpoint, merge, rebuild, backup and bundle, as a person uses them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from cli_tool import COMMAND, Tool  # type: ignore[import-not-found]


@pytest.fixture
def verified(copied: Tool) -> tuple[Tool, str]:
    """A home with a signed run; the run's id."""
    done = copied("verify", "derived.onnx", "--against", "owner")
    assert done.code in (0, 1, 3), done.err
    entries = copied("store", "log", "-f", "json").json["entries"]
    return copied, str(entries[-1]["subject"])


def test_runs_are_signed_and_can_be_shown(verified: tuple[Tool, str]) -> None:
    tool, run = verified
    done = tool("attest", "verify", run)
    assert done.code == 0, done.err
    assert "urn:dnn-fingerprint:verification:v1" in done.out
    assert "trusted, holds" in done.out
    told = tool("attest", "verify", run, "-f", "json").json["attestations"][0]
    assert told["verified"] is True
    assert [s["counts"] for s in told["signers"]] == [True]
    assert told["predicate"]["run"]["id"] == run
    assert tool("attest", "verify", run, "--threshold", "2").code == 4
    shown = tool("attest", "show", run)
    assert shown.code == 0
    assert "NOT CHECKED" in shown.out
    intake = [e for e in tool("store", "log", "-f", "json").json["entries"] if e["kind"] == "results"][-1]
    assert intake["body"]["intake"][0]["size"] == (tool.cwd / "derived.onnx").stat().st_size


def test_files(owner: Tool, tool: Tool, tmp_path: Path) -> None:
    file = tmp_path / "owner.fingerprint"
    assert owner("store", "export", "owner", "--out", file).code == 0
    assert owner("attest", "verify", file).code == 0
    assert tool("attest", "verify", file).code == 4
    public = owner.home / "keys" / "fingerprint.pub"
    assert tool("attest", "verify", file, "--key", public).code == 0
    assert tool("keygen", "--no-passphrase", "--type", "ecdsa-p256").code == 0
    both = tmp_path / "both.fingerprint"
    assert tool("attest", "sign", file, "--out", both).code == 0
    assert tool("attest", "verify", both, "--key", public, "--threshold", "2").code == 0
    assert tool("store", "import", both, "--key", public).code == 0
    data = file.read_bytes()
    for changed in (data[:-2], data.replace(b"payload", b"payl0ad"), b"{}", b"", b"\x00" * 100):
        file.write_bytes(changed)
        done = owner("attest", "verify", file)
        assert done.code == 4, (done, changed[:20])
    assert owner("attest", "verify", tmp_path / "absent").code == 2


def test_a_key_that_was_stolen(verified: tuple[Tool, str], tmp_path: Path) -> None:
    tool, run = verified
    rotated = tool("attest", "rotate", "--out", tmp_path / "new", "--type", "ecdsa-p256", "--no-passphrase")
    assert rotated.code == 0, rotated.err
    assert tool("attest", "verify", tmp_path / "new" / "rotation.json", "--threshold", "2").code == 0
    assert tool("attest", "verify", run).code == 0
    old, new = tool.home / "keys" / "fingerprint.pub", tmp_path / "new" / "fingerprint.key"
    revoked = tool("attest", "revoke", old, "--reason", "stolen", "--since", "2020-01-01", "--key", new)
    assert revoked.code == 0, revoked.err
    done = tool("attest", "verify", run)
    assert done.code == 4
    assert "revoked" in done.err and "stolen" in done.err
    assert tool("verify", "derived.onnx", "--against", "owner").code == 4
    assert tool("store", "check").code == 4
    assert tool("store", "checkpoint").code == 2  # by the home's key, which was revoked
    vouched = tool("store", "checkpoint", "--key", new)
    assert vouched.code == 0, vouched.err
    assert tool("attest", "sign", "owner", "--key", new).code == 0
    checked = tool("store", "check")
    assert (checked.code, checked.out.count("error:")) == (0, 0), checked.out
    assert "of a revoked key count no longer" in checked.out
    assert tool("verify", "derived.onnx", "--against", "owner", "--no-cache").code in (0, 1, 3)
    assert tool("store", "check").code == 0  # and that run was not signed by it either
    kinds = [e["body"].get("action") for e in tool("store", "log", "-f", "json").json["entries"] if e["kind"] == "key"]
    assert kinds[-2:] == ["rotate", "revoke"]  # the log shows the newest entries


def test_checkpoints(verified: tuple[Tool, str], tmp_path: Path) -> None:
    tool, _ = verified
    assert tool("store", "backup", tmp_path / "old.db").code == 0
    assert tool("verify", "derived.onnx", "--against", "owner", "--no-cache").code in (0, 1, 3)
    kept = tmp_path / "kept.json"
    assert tool("store", "checkpoint", "--out", kept).code == 0
    assert tool("store", "check", "--checkpoint", kept).code == 0
    done = tool("store", "check", "--checkpoint", kept, "--db", tmp_path / "old.db")
    assert done.code == 4
    assert "rolled back" in done.out
    assert tool("attest", "verify", kept).code == 0
    merged = tool("store", "merge", tool.home / "fingerprint.db", "--db", tmp_path / "old.db")
    assert merged.code == 0, merged.err
    assert tool("store", "check", "--checkpoint", kept, "--db", tmp_path / "old.db").code == 0


def test_rebuild(verified: tuple[Tool, str]) -> None:
    tool, run = verified
    before = tool("report", run, "-f", "json").json
    with closing(sqlite3.connect(tool.home / "fingerprint.db")) as connection:
        connection.execute("DROP TRIGGER results_never_update")
        connection.execute("UPDATE results SET row = replace(row, 'derived', 'unrelated')")
        connection.execute("DELETE FROM fingerprints")
        connection.commit()
    done = tool("store", "check")
    assert done.code == 4
    assert f"result 0 of run {run}" in done.out
    assert tool("report", run, "-f", "json").code == 4
    rebuilt = tool("store", "rebuild")
    assert rebuilt.code == 0, rebuilt.out + rebuilt.err
    assert tool("store", "check").code == 0
    assert tool("report", run, "-f", "json").json == before


def test_reveal_and_bundle(verified: tuple[Tool, str], tmp_path: Path) -> None:
    tool, run = verified
    done = tool("probes", "reveal", "owner", "--count", "3", "--to", "a court", "--out", tmp_path / "shown")
    assert done.code == 0, done.err
    assert "3 of 30 probes are burnt" in done.err
    told = tool("attest", "verify", tmp_path / "shown")
    assert told.code == 0
    assert "of 30 are in the signed fingerprint" in told.out
    assert "shown to    a court" in told.out
    again = tool("verify", "derived.onnx", "--against", "owner", "--no-cache", "-f", "json").json
    assert again["results"][0]["verdict"]["queries"] == 27
    pack = tmp_path / "evidence.zip"
    assert tool("report", run, "--bundle", pack, "-f", "json").code == 0
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(pack) as archive:
        archive.extractall(folder)
        assert sum(name.startswith("probes/") for name in archive.namelist()) == 3
    program = [sys.executable, "-I", str(folder / "check_evidence.py")]
    checked = subprocess.run(program, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert "3 probes of 'owner' are in the signed fingerprint" in checked.stdout
    assert "recomputed" in checked.stdout
    (folder / "run.json").write_bytes((folder / "run.json").read_bytes().replace(b"derived", b"unrelat", 1))
    assert subprocess.run(program, capture_output=True, check=False).returncode == 4
    first, second, _ = sorted((tmp_path / "shown").glob("*.png"))
    first.write_bytes(second.read_bytes())
    assert tool("attest", "verify", tmp_path / "shown").code == 4


def test_lock(copied: Tool, tmp_path: Path) -> None:
    tool = copied
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    assert tool("store", "lock", "--new-passphrase-file", secret).code == 0
    asked = ("verify", "derived.onnx", "--against", "owner", "--no-cache")
    for env, message in (({}, "none was given"), ({"FINGERPRINT_STORE_PASSPHRASE": "wrong"}, "wrong passphrase")):
        done = tool(*asked, env=env)
        assert done.code == 2
        assert message in done.err
        assert done.err.count("error:") == 1
        assert "sesame" not in done.err
    assert tool("store", "list").code == tool("store", "show", "owner").code == 0
    assert tool(*asked, env={"FINGERPRINT_STORE_PASSPHRASE_FILE": str(secret)}).code in (0, 1, 3)
    assert tool("store", "check", env={"FINGERPRINT_STORE_PASSPHRASE": "open sesame"}).code == 0
    unopened = tool("store", "check")
    assert unopened.code == 0
    assert unopened.out.count("not opened") == 1
    mistaken = tool("store", "check", env={"FINGERPRINT_STORE_PASSPHRASE": "wrong"})
    assert (mistaken.code, mistaken.out) == (2, "")  # no word on the evidence
    assert "wrong passphrase" in mistaken.err
    assert tool("store", "lock", "--remove").code == 2
    assert tool("store", "lock", "--remove", env={"FINGERPRINT_STORE_PASSPHRASE": "open sesame"}).code == 0
    assert tool(*asked).code in (0, 1, 3)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_timestamps_without_a_network(verified: tuple[Tool, str], tmp_path: Path) -> None:
    pytest.importorskip("rfc3161_client")
    sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
    from test_store_timestamps import Authority  # type: ignore[import-not-found]

    tool, run = verified
    (tmp_path / "tsa").mkdir()
    authority = Authority(tmp_path / "tsa")
    request, response = tmp_path / "q.tsq", tmp_path / "r.tsr"
    assert tool("attest", "timestamp", run, "--request", request).code == 0
    response.write_bytes(authority.answer(request.read_bytes()))
    done = tool("attest", "timestamp", run, "--response", response)
    assert done.code == 4
    assert "no timestamp authority is trusted" in done.err
    ca = authority.folder / "ca.pem"
    done = tool("attest", "timestamp", run, "--response", response, "--ca", ca, "--trust-ca")
    assert done.code == 0, done.err
    assert "existed at" in tool("attest", "verify", run).out
    assert tool("store", "check").code == 0
    other = tool("attest", "timestamp", "owner", "--response", response, "--ca", ca)
    assert other.code == 4  # of other bytes
    assert tool("attest", "timestamp", run).code == 2


def test_browse(verified: tuple[Tool, str]) -> None:
    pytest.importorskip("datasette")
    tool, run = verified
    port = 8900 + int(time.time()) % 90
    server = subprocess.Popen(
        [str(COMMAND), "store", "browse", "--port", str(port)],
        env=tool.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        base = f"http://127.0.0.1:{port}/fingerprint"
        page = fetched(f"{base}/verdicts.json?_shape=array&run_id={run}")
        assert run in [row["run_id"] for row in json.loads(page)]
        for secret in ("exports", "exposures", "envelopes", "results"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{base}/{secret}.json")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{base}.json?sql=select+1")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)


def fetched(url: str) -> str:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url}")
