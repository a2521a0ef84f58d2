"""verify, from the command line: verdicts, exit codes, formats, what is refused, and what is never loaded."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_tool import COMMAND, Tool  # type: ignore[import-not-found]

SCHEMA = json.loads(files("fingerprint.report").joinpath("schema/results.v1.json").read_text())


def rows(document: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """The results of a JSON document, after checking it against the published schema."""
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    found: list[dict[str, Any]] = document["results"]
    return found


def test_derived(owner: Tool) -> None:
    done = owner("verify", "derived.onnx", "-f", "json")
    (row,) = rows(done.json)
    assert (row["status"], row["verdict"]["lineage"], row["verdict"]["integrity"]) == ("decided", "derived", "unknown")
    assert row["verdict"]["error"] <= 0.01 and row["verdict"]["calibration"]["n"] == 10
    assert row["adaptation"]["origin"] == "sidecar"
    assert done.code == 1


def test_the_device_that_is_asked_for(owner: Tool) -> None:
    done = owner("verify", "derived.onnx", "--device", "cpu", "-f", "json")
    assert rows(done.json)[0]["verdict"]["lineage"] == "derived"
    done = owner("verify", "derived.onnx", "--device", "gpu")
    assert done.code == 2 and "no device is named 'gpu'" in done.err and "cuda:N" in done.err


def test_unrelated(owner: Tool) -> None:
    done = owner("verify", "strangers/net-0.onnx", "--against", "owner", "-f", "json")
    assert rows(done.json)[0]["verdict"]["lineage"] == "unrelated"
    assert done.code == 0


def test_inconclusive_without_a_spec_or_clean_images(owner: Tool, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    bare.write_bytes((owner.cwd / "derived.onnx").read_bytes())
    done = owner("verify", bare, "-f", "json")
    (row,) = rows(done.json)
    assert row["verdict"]["lineage"] == "inconclusive" and "spec" in row["verdict"]["reason"]
    assert done.code == 3
    assert owner("verify", bare, "--fail-on", "inconclusive", "--quiet").code == 1
    spec = owner.cwd / "owner.onnx.spec.json"
    assert rows(owner("verify", bare, "--spec", spec, "-f", "json").json)[0]["verdict"]["lineage"] == "derived"
    settled = owner("verify", bare, "--data", owner.cwd / "data.npz", "-f", "json")
    assert rows(settled.json)[0]["adaptation"]["origin"] == "settled on clean images"


def test_images_without_labels_are_told(owner: Tool, tmp_path: Path) -> None:
    """They settle nothing: nobody must think that they did."""
    import numpy as np

    bare, plain = tmp_path / "bare.onnx", tmp_path / "plain.npz"
    bare.write_bytes((owner.cwd / "derived.onnx").read_bytes())
    np.savez(plain, images=np.load(owner.cwd / "data.npz")["images"][:50])
    for verb in ("verify", "audit"):
        done = owner(verb, bare, "--data", plain, "--against", "owner", "-f", "json")
        assert "no labels for 10 classes (owner)" in done.err and "one folder per class" in done.err
        (row,) = rows(done.json)
        assert row["verdict"]["lineage"] == "inconclusive" and "--data have no labels" in row["verdict"]["reason"]
        assert "no labels" not in owner(verb, bare, "--data", owner.cwd / "data.npz", "--against", "owner").err
    plain.write_bytes(b"no archive")
    done = owner("verify", bare, "--data", plain, "--against", "owner")
    assert done.code == 2 and "can't be read" in done.err


def test_the_owners_file_is_recognised_by_its_digest(owner: Tool) -> None:
    done = owner("verify", "owner.onnx", "--expect", "intact", "-f", "json")
    (row,) = rows(done.json)
    assert (row["verdict"]["decided_by"], row["verdict"]["integrity"], row["verdict"]["queries"]) == (
        "digest",
        "intact",
        0,
    )
    assert done.code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't contain code")
def test_formats_that_carry_code_need_no_leave_where_they_are_contained(owner: Tool) -> None:
    done = owner("verify", "owner.pt2", "-f", "json")
    assert (rows(done.json)[0]["verdict"]["lineage"], done.code) == ("derived", 1)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("cut.onnx", "unreadable"),
        ("empty.onnx", "unreadable"),
        ("text.onnx", "unreadable"),
        ("nan.onnx", "degenerate"),
        ("zero.onnx", "degenerate"),
        ("wide.onnx", "unsupported"),
        ("bomb.pth", "unsupported"),
        ("bomb-zip.pth", "unsupported"),
    ],
)
def test_hopeless_files_are_results(owner: Tool, name: str, status: str) -> None:
    done = owner("verify", f"odd/{name}", "-f", "json")
    (row,) = rows(done.json)
    assert (row["status"], row["verdict"], done.code) == (status, None, 3)
    assert row["reason"]


def test_a_pickle_never_runs(owner: Tool) -> None:
    """Not even with --allow-code and a factory: weights are loaded as weights only."""
    for name in ("bomb.pth", "bomb-zip.pth"):
        done = owner("verify", f"odd/{name}", "--allow-code", "--factory", "collections:OrderedDict", "-f", "json")
        assert done.code == 3, done
    assert not (owner.cwd / "odd" / "MARKER").exists()


@pytest.mark.parametrize(
    ("suspects", "flags", "code"),
    [
        (("derived.onnx",), ("--expect", "match"), 0),
        (("derived.onnx",), ("--expect", "no-match"), 1),
        (("derived.onnx",), ("--expect", "intact"), 3),
        (("strangers/net-0.onnx",), ("--expect", "match"), 1),
        (("strangers/net-0.onnx", "strangers/net-1.onnx"), ("--expect", "no-match"), 0),
        (("strangers/net-0.onnx", "odd/cut.onnx"), ("--expect", "no-match"), 3),
        (("derived.onnx", "strangers/net-0.onnx"), ("--expect", "match"), 1),
        (("derived.onnx", "odd/cut.onnx"), (), 1),
        (("strangers/net-0.onnx", "odd/cut.onnx"), (), 3),
        (("strangers/net-0.onnx", "odd/cut.onnx"), ("--fail-on", "inconclusive"), 3),
        (("derived.onnx",), ("--fail-on", "altered"), 1),
    ],
)
def test_exit_codes(owner: Tool, suspects: tuple[str, ...], flags: tuple[str, ...], code: int) -> None:
    assert owner("verify", *suspects, *flags, "-q").code == code


def test_what_is_known_comes_back(owner: Tool, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere.onnx"
    again.write_bytes((owner.cwd / "derived.onnx").read_bytes())
    flags = ("--spec", owner.cwd / "owner.onnx.spec.json", "--alpha", "0.02", "-f", "json")
    first, second = owner("verify", "derived.onnx", *flags), owner("verify", again, *flags)
    assert [rows(d.json)[0]["cached"] for d in (first, second)] == [False, True]
    assert rows(first.json)[0]["verdict"] == rows(second.json)[0]["verdict"]
    assert rows(second.json)[0]["suspect"]["path"] == str(again)
    assert first.code == second.code == 1
    assert rows(owner("verify", again, *flags, "--no-cache").json)[0]["cached"] is False
    assert rows(owner("verify", again, *flags, "--alpha", "0.03").json)[0]["cached"] is False
    assert "stored verdict" in owner("verify", again, *flags[:-2]).out


def test_stdout_is_data_and_stderr_chatter(owner: Tool, tmp_path: Path) -> None:
    (tmp_path / "fingerprint.toml").write_text("alpha = 0.05\n")
    done = owner(
        "verify", owner.cwd / "derived.onnx", "-f", "json", "--db", owner.home / "fingerprint.db", cwd=tmp_path
    )
    assert rows(done.json) and "fingerprint.toml" in done.err
    quiet = owner("verify", owner.cwd / "derived.onnx", "-f", "json", "--quiet", cwd=tmp_path)
    assert rows(quiet.json) and not quiet.err


def test_table_and_files(owner: Tool, tmp_path: Path) -> None:
    out = {name: tmp_path / f"results.{name}" for name in ("json", "jsonl", "table")}
    flags = [flag for name, path in out.items() for flag in ("-o", f"{name}={path}")]
    done = owner("verify", "derived.onnx", "odd/cut.onnx", *flags, "--alpha", "0.04")
    assert "derived" in done.out and "unreadable" in done.out and "share a lineage" in done.out
    assert max(map(len, done.out.splitlines())) <= 80 and "\x1b" not in done.out
    assert len(rows(json.loads(out["json"].read_text()))) == 2
    lines = [json.loads(line) for line in out["jsonl"].read_text().splitlines()]
    assert [line.get("provisional") for line in lines] == [False, False, None]
    assert "derived" in out["table"].read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in out.values()), "left-overs"
    assert oct(out["json"].stat().st_mode & 0o777) == "0o644"


def test_a_file_is_not_replaced_by_a_failed_run(owner: Tool, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text("before")
    assert owner("verify", "no-such.onnx", "-o", f"json={out}").code == 2
    assert out.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_verify_onnx_imports_no_torch(owner: Tool) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(COMMAND), "verify", "derived.onnx", "-f", "json", "--no-cache"],
        env=owner.environment(),
        cwd=owner.cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    found = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    assert {"numpy", "pydantic"} <= found, "the check sees imports"
    assert not found & {"torch", "rich", "onnxruntime", "sqlite_utils", "PIL"}
    assert done.returncode == 1


def test_an_export_serves_as_fingerprint(owner: Tool, tmp_path: Path) -> None:
    file = tmp_path / "owner.fingerprint"
    assert owner("store", "export", "owner", "--include-secrets", "--out", file).code == 0
    done = owner("verify", "derived.onnx", "--against", file, "--db", tmp_path / "new.db", "-f", "json")
    assert (rows(done.json)[0]["fingerprint"]["name"], done.code) == ("owner", 1)
    by_id = rows(done.json)[0]["fingerprint"]["id"]
    assert owner("verify", "derived.onnx", "--against", by_id[:12], "-q").code == 1
    assert owner("verify", "derived.onnx", "--against", "ownr").code == 2


def test_a_flipped_byte_is_exit_4(owner: Tool, tmp_path: Path) -> None:
    file = tmp_path / "owner.fingerprint"
    assert owner("store", "export", "owner", "--include-secrets", "--out", file).code == 0
    data = bytearray(file.read_bytes())
    for place in (20, len(data) // 2, len(data) - 40):
        data[place] ^= 1
        (tmp_path / "bad.fingerprint").write_bytes(data)
        done = owner("verify", "derived.onnx", "--against", tmp_path / "bad.fingerprint", "-f", "json")
        assert done.code == 4 and not done.out and done.err.startswith("error: ")
        data[place] ^= 1


def test_an_untrusted_signer_is_exit_4(copied: Tool) -> None:
    for path in (copied.home / "trusted").iterdir():
        path.unlink()
    done = copied("verify", "derived.onnx")
    assert done.code == 4 and "--key" in done.err and not done.out
    public = copied.home / "keys" / "fingerprint.pub"
    assert copied("verify", "derived.onnx", "--key", public, "-q").code == 1
    assert copied("verify", "derived.onnx", "-q", env={"FINGERPRINT_TRUSTED_KEYS": str(public)}).code == 1


def test_a_missing_data_key_is_a_skipped_row(copied: Tool) -> None:
    """In a home with another fingerprint: the others are compared, this one is reported, the exit says so."""
    flags = ("--families", "natural", "--data", "data.npz", "--screen", "0", "--budget", "7", "-q")
    assert copied("create", "owner.onnx", "--name", "other", *flags).code == 0
    listed = copied("store", "list", "-f", "json").json["fingerprints"]
    sha = {row["name"]: row["tensors_sha256"] for row in listed}
    (copied.home / "secrets" / f"{sha['other']}.key").unlink()
    done = copied("verify", "strangers/net-0.onnx", "-f", "json")
    assert {r["fingerprint"]["name"]: r["status"] for r in rows(done.json)} == {"owner": "decided", "other": "skipped"}
    assert done.code == 3
    (copied.home / "secrets" / f"{sha['owner']}.key").unlink()
    none = copied("verify", "strangers/net-0.onnx")
    assert none.code == 2 and "--include-secrets" in none.err


def test_a_read_only_database_still_serves(copied: Tool) -> None:
    for path in copied.home.glob("fingerprint.db-*"):
        path.unlink()
    (copied.home / "fingerprint.db").chmod(0o400)
    copied.home.chmod(0o500)
    try:
        done = copied("verify", "strangers/net-1.onnx", "--no-cache", "-f", "json", bound_by_modes=True)
        created = copied("create", "owner.onnx", "--name", "n", bound_by_modes=True)
    finally:
        copied.home.chmod(0o700)
    assert (rows(done.json)[0]["status"], done.code) == ("decided", 0)
    assert "not recorded" in done.err
    assert created.code == 2 and "can't be written" in created.err


@pytest.mark.slow  # ten busy timeouts are waited for
def test_a_locked_database_costs_the_record_not_the_verdict(copied: Tool) -> None:
    blocker = sqlite3.connect(copied.home / "fingerprint.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        done = copied("verify", "strangers/net-1.onnx", "--no-cache", "-f", "json")
    finally:
        blocker.close()
    assert (rows(done.json)[0]["verdict"]["lineage"], done.code) == ("unrelated", 0)
    assert "not recorded" in done.err and "another process" in done.err


def test_a_database_that_is_none_is_exit_4(copied: Tool) -> None:
    (copied.home / "fingerprint.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    done = copied("verify", "derived.onnx")
    assert done.code == 4 and not done.out


def test_bad_spec_files(owner: Tool, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text('{"layout": "NCHW", "shape": [1, 8]}')
    done = owner("verify", "derived.onnx", "--spec", spec)
    assert done.code == 2 and "shape" in done.err
    assert owner("verify", "derived.onnx", "--spec", tmp_path / "none.json").code == 2
    suspect = tmp_path / "suspect.onnx"
    suspect.write_bytes((owner.cwd / "derived.onnx").read_bytes())
    (tmp_path / "suspect.onnx.spec.json").write_text("{")
    beside = owner("verify", suspect, "-f", "json")
    assert (rows(beside.json)[0]["status"], beside.code) == ("unsupported", 3)


def test_precedence(owner: Tool, tmp_path: Path) -> None:
    """Flag over variable over fingerprint.toml over default."""
    suspect = owner.cwd / "strangers" / "net-1.onnx"

    def level(*flags: str, **env: str) -> float:
        done = owner("verify", suspect, "-f", "json", *flags, env=env, cwd=tmp_path)
        spent: float = rows(done.json)[0]["verdict"]["error"]
        return spent

    default = level()
    (tmp_path / "pyproject.toml").write_text("[tool.fingerprint]\nalpha = 0.02\n")
    assert level() == pytest.approx(2 * default)
    (tmp_path / "fingerprint.toml").write_text("[verify]\nalpha = 0.03\n")
    assert level() == pytest.approx(3 * default)
    assert level(FINGERPRINT_ALPHA="0.04") == pytest.approx(4 * default)
    assert level("--alpha", "0.05", FINGERPRINT_ALPHA="0.04") == pytest.approx(5 * default)
    (tmp_path / "fingerprint.toml").write_text("allow-code = true\nalhpa = 1\n")
    done = owner("verify", suspect, cwd=tmp_path)
    assert done.code == 2 and "'alhpa'" in done.err and "'allow-code'" in done.err


def test_hostile_names_do_not_reach_the_terminal(owner: Tool, tmp_path: Path) -> None:
    name = tmp_path / "\x1b]0;owned\x07\udcff.onnx"
    name.write_bytes(b"")
    for flags in ((), ("-f", "json"), ("-f", "jsonl")):
        done = owner("verify", name, *flags)
        assert done.code == 3 and "\x1b" not in done.out + done.err
    assert owner("verify", f"{name}.missing").code == 2


def test_a_reader_that_leaves_is_no_error(owner: Tool) -> None:
    process = subprocess.Popen(
        [str(COMMAND), "verify", *["strangers/net-0.onnx", "derived.onnx"] * 20, "-f", "jsonl"],
        env=owner.environment(),
        cwd=owner.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) != 0


def test_a_full_disk_is_said(owner: Tool) -> None:
    for flags in (("verify", "derived.onnx"), ("store", "list"), ("--help",)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [str(COMMAND), *flags], env=owner.environment(), cwd=owner.cwd, stdout=full, stderr=subprocess.PIPE,
                text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr
        assert "report it" not in done.stderr and "Check the disk" in done.stderr  # it is no fault of the tool


def test_unexpected_errors_are_one_sentence(owner: Tool) -> None:
    code = "import store.home; store.home.Home.default = None\nfrom cli.main import main; main()"
    command = [sys.executable, "-c", code, "verify", "derived.onnx"]
    plain = subprocess.run(command, env=owner.environment(), cwd=owner.cwd, capture_output=True, text=True, check=False)
    assert plain.returncode == 2 and plain.stderr.startswith("error: an unexpected TypeError")
    assert plain.stderr.count("\n") == 1 and "--debug" in plain.stderr
    env = owner.environment(FINGERPRINT_DEBUG="1")
    debug = subprocess.run(command, env=env, cwd=owner.cwd, capture_output=True, text=True, check=False)
    assert debug.returncode == 2 and "Traceback" in debug.stderr


def test_ctrl_c(owner: Tool, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = owner.interrupted("verify", "slow.onnx", "-f", "json", "-o", f"json={out}", after_s=4)
    assert (done.code, done.out) == (130, "")
    assert done.err.strip().count("\n") == 0 and "nterrupted" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["fingerprint.engine.environment", "cli.early", "cli.app", "typer"])
def test_ctrl_c_while_it_starts(owner: Tool, module: str) -> None:
    """Whatever is being imported then."""
    hook = f"class Hook:\n  def find_spec(self, name, *rest):\n    if name == {module!r}: raise KeyboardInterrupt"
    code = f"import sys\n{hook}\nsys.meta_path.insert(0, Hook())\nfrom cli.main import main\nmain()"
    command = [sys.executable, "-c", code, "verify", "derived.onnx"]
    done = subprocess.run(command, env=owner.environment(), cwd=owner.cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "Interrupted: nothing half-done was kept.\n"


def test_two_at_once(owner: Tool) -> None:
    """Several processes record in one database."""
    codes: list[int] = []

    def run() -> None:
        codes.append(owner("verify", "strangers/net-0.onnx", "--no-cache", "-q").code)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0]
    assert owner("store", "check").code == 0
