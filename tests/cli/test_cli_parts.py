"""Parts of the command line that need no process of their own."""

from __future__ import annotations

import io
import os
import pty
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_tool import COMMAND, Tool  # type: ignore[import-not-found]

from cli import early, storing
from cli.access import PASSPHRASE, read_passphrase
from cli.audits import metrics
from cli.group import explain
from cli.options import compute_on
from cli.output import Reports, Sink, Target, emit, targets
from cli.terminal import Terminal
from cli.verbs.doctor import in_a_line
from fingerprint.errors import DatabaseBusy, KeyFileError, StoreError, Tampered, UsageError
from fingerprint.report.interface import Summary
from fingerprint.runtimes import devices


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_chosen_device_reaches_all_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device` wins over the variable, and children inherit it; what can't be is said before anything is asked."""
    monkeypatch.setattr(devices, "gpus", lambda: ("cuda",))
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    compute_on(None)
    assert devices.wanted() == "cpu"
    compute_on("cuda:1")
    assert devices.wanted() == os.environ[devices.VARIABLE] == "cuda:1"
    with pytest.raises(UsageError, match="mps was asked for"):
        compute_on("mps")
    early.start(["verify", "model.onnx", "--device=cuda"])
    assert not early._started, "workers that were started early would compute elsewhere"


def test_terminal_without_a_terminal_prints_notes_only() -> None:
    stream = io.StringIO()
    with Terminal(stream=stream) as terminal:
        terminal.step("models", 1, 9)
        terminal.note("a\x1b[31m remark")
    assert stream.getvalue() == "note: a\\x1b[31m remark\n"


def test_terminal_draws_bars_where_people_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = _Tty()
    with Terminal(stream=stream) as terminal:
        terminal.step("a single step", 1, 1)
        assert not stream.getvalue()
        for done in (1, 2, 3):
            terminal.step("[bold]models[/bold]", done, 3)
        terminal.note("between")
    text = stream.getvalue()
    assert "[bold]models[/bold]" in text and "note: between" in text and "a single step" not in text


def test_quiet_is_quiet_but_errors_are_said() -> None:
    stream = _Tty()
    with Terminal(quiet=True, stream=stream) as terminal:
        terminal.step("models", 1, 9)
        terminal.note("a remark")
        terminal.say("interrupted")
    assert stream.getvalue() == "interrupted\n"


def test_finished_work_waits_for_a_busy_database(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []

    def add(sealed: object, *, replace: bool) -> str:
        tries.append(replace)
        if len(tries) < 3:
            raise DatabaseBusy("another process is writing to x.db")
        return f"row of {sealed}"

    monkeypatch.setattr("store.sealing.seal", lambda made, signer: f"sealed {made}")
    database: Any = SimpleNamespace(add=add)
    stream = io.StringIO()
    made: Any = "record"
    row = storing.seal_and_add(database, made, made, Terminal(stream=stream), replace=True)
    assert row == "row of sealed record" and tries == [True] * 3
    assert stream.getvalue().count("waiting for it") == 2
    monkeypatch.setattr(storing, "WAIT_S", -1.0)
    tries.clear()
    with pytest.raises(DatabaseBusy):
        storing.seal_and_add(database, made, made, Terminal(stream=stream), replace=False)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("before")
    sink = Sink(path)
    sink.write("half")
    sink.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"] and path.read_text() == "before"
    sink.write("whole")
    sink.commit()
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"] and path.read_text() == "whole"


def test_targets(tmp_path: Path) -> None:
    found = targets("json", [f"table={tmp_path / 'a=b'}"])
    assert [(t.format, t.path) for t in found] == [("json", None), ("table", tmp_path / "a=b")]
    for wrong in ("json", "json=", f"json={tmp_path}", f"pdf={tmp_path / 'x'}", "json=/no/such/x"):
        with pytest.raises(UsageError):
            targets("json", [wrong])


def test_emit_writes_each_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = targets("jsonl", [f"json={tmp_path / 'x'}", f"table={tmp_path / 'y'}"])
    emit(wanted, {"a": 1}, lambda page: f"width {page.width}\n")
    assert capsys.readouterr().out == '{"schema_version": 1, "a": 1}\n'
    assert (tmp_path / "x").read_text() == '{\n  "schema_version": 1,\n  "a": 1\n}\n'
    assert (tmp_path / "y").read_text() == "width 100\n"


def test_passphrase_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p"
    file.write_bytes(b"from the file \r\n")
    monkeypatch.setenv(PASSPHRASE, "from the environment")
    assert read_passphrase(file, "") == b"from the file "
    assert read_passphrase(None, "") == b"from the environment"
    monkeypatch.delenv(PASSPHRASE)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert read_passphrase(None, "") is None
    for broken in (tmp_path / "none", tmp_path):
        with pytest.raises(KeyFileError, match="passphrase file"):
            read_passphrase(broken, "")


def test_explain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINGERPRINT_DEBUG", raising=False)
    monkeypatch.setattr("sys.argv", ["fingerprint"])
    assert explain(Tampered("changed", remedy="Restore it.")) == 4
    assert explain(UsageError("wrong")) == 2
    assert explain(KeyboardInterrupt()) == 130
    assert explain(ZeroDivisionError("division\nby zero")) == 2
    said = capsys.readouterr().err
    assert "error: changed\nRestore it.\n" in said and "unexpected ZeroDivisionError: division. Run it" in said
    assert "Traceback" not in said
    monkeypatch.setattr("sys.argv", ["fingerprint", "--debug"])
    assert explain(ZeroDivisionError()) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "started"),
    [
        (["verify", "{model}"], True),
        (["verify", "{model}", "--threads", "1"], True),
        (["verify", "{model}", "--threads", "many"], False),
        (["verify", "{model}", "--help"], False),
        (["verify", "none.onnx"], False),
        (["audit", "{model}"], False),
        ([], False),
    ],
)
def test_early_start_guesses_and_never_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], started: bool
) -> None:
    import gc

    from cli.eager import EagerPool

    model = tmp_path / "m.tflite"
    model.write_bytes(b"\x1c\0\0\0TFL3" + bytes(32))
    names: list[str] = []
    monkeypatch.setattr(EagerPool, "prestart", lambda self, name: names.append(name))
    monkeypatch.setattr(EagerPool, "open_ahead", lambda self, path, allow_code: names.append(path.name))
    try:
        early.start([a.format(model=model) for a in arguments])
        assert names == (["litert", "m.tflite"] if started else [])
        pool = early.take(1)
        assert pool.threads == 1
        pool.close()
    finally:
        early.drop()
        early.collect_again()
        gc.unfreeze()


def test_a_suspect_opened_ahead_is_handed_out_once(models: Path) -> None:
    from cli.eager import EagerPool
    from fingerprint.engine.sealed import SealedFile

    with EagerPool(1) as pool:
        pool.open_ahead(models / "owner.onnx", allow_code=False)
        with SealedFile.of(models / "owner.onnx") as sealed, pool.open(sealed) as first, pool.open(sealed) as second:
            assert first.pid != second.pid and first.signature == second.signature


def test_another_suspect_than_the_one_opened_ahead(models: Path) -> None:
    from cli.eager import EagerPool
    from fingerprint.engine.sealed import SealedFile
    from fingerprint.errors import UnreadableModel

    with EagerPool(1) as pool:
        pool.open_ahead(models / "owner.onnx", allow_code=False)
        with SealedFile.of(models / "references" / "net-0.onnx") as sealed, pool.open(sealed) as session:
            assert session.signature.classes == 10
    with EagerPool(1) as pool:
        pool.open_ahead(models / "odd" / "cut.onnx", allow_code=False)
        with SealedFile.of(models / "odd" / "cut.onnx") as sealed, pytest.raises(UnreadableModel):
            pool.open(sealed)
    with EagerPool(1) as pool:
        pool.open_ahead(models / "owner.onnx", allow_code=False)


def test_records_raise_what_a_write_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that can't be written costs the record; stored evidence that does not hold is an error."""
    from cli.records import Records
    from store.database import Database
    from store.home import Home

    def refuse(error: Exception) -> None:
        def start_run(*arguments: object) -> str:
            raise error

        monkeypatch.setattr(Database, "start_run", start_run)

    stream = io.StringIO()
    home = Home(tmp_path / "home")
    refuse(DatabaseBusy("another process is writing"))
    with Records(home, None, Terminal(stream=stream), create=True) as records:
        records.begin("verify", {}, now=False)
        assert records.known("ab" * 32, "cd" * 32, "ef" * 32) is None
        records.finish()
        assert records.run is None
    assert stream.getvalue() == "note: The results are not recorded: another process is writing\n"
    refuse(Tampered("a row was changed"))
    records = Records(home, None, Terminal(stream=stream), create=True)
    records.begin("verify", {}, now=True)
    records.finish()
    with pytest.raises(Tampered):
        records.close()
    records.close()


def test_a_run_is_recorded(tmp_path: Path) -> None:
    from cli.records import Records
    from fingerprint.api.results import FingerprintRef, Result, Suspect
    from store.home import Home

    with Records(Home(tmp_path), None, Terminal(stream=io.StringIO()), create=True) as records:
        records.begin("audit", {"places": ["x"]}, now=True)
        for name in ("a", "b"):
            records.add(Result(Suspect(name), FingerprintRef(None, "n"), "unreadable", "empty"))
        records.finish()
        run = records.run
    assert run is not None
    from store.database import Database

    with Database.open(tmp_path / "fingerprint.db", Home(tmp_path), readonly=True) as database:
        assert [row["suspect"]["path"] for row in database.results(run)] == ["a", "b"]
        (row,) = database.runs()
        assert (row.id, row.kind, row.results) == (run, "audit", 2) and row.finished


def test_a_passphrase_is_asked_for_on_a_terminal(tool: Tool) -> None:
    """Twice, without an echo."""
    main, child = pty.openpty()
    command = [str(COMMAND), "keygen", "-f", "json"]
    process = subprocess.Popen(
        command,
        env=tool.environment(),
        cwd=tool.cwd,
        stdin=child,
        stderr=child,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(child)
    seen = b""
    while seen.count(b": ") < 2 and process.poll() is None:
        before = seen.count(b": ")
        seen += os.read(main, 1000)
        if seen.count(b": ") > before:
            os.write(main, b"open sesame\n")
    out, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0 and b'"encrypted": true' in out
    assert b"Passphrase for the new key" in seen and b"sesame" not in seen


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_keeps_no_other_report_from_being_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    plain = tempfile.NamedTemporaryFile

    def full(**options: Any) -> Any:  # noqa: ANN401
        made = plain(**options)
        os.dup2(os.open("/dev/full", os.O_WRONLY), made.fileno())
        return made

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    wanted = targets("jsonl", [f"csv={tmp_path / 'rows.csv'}"], reports=True)
    with pytest.raises(StoreError, match=r"rows\.csv: No space left on device") as caught, Reports(wanted) as reports:
        reports.finish([], Summary("audit", run="r1"))
    assert "fingerprint report r1" in caught.value.remedy
    assert '"summary"' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_remedy_of_several_lines_is_told_in_one() -> None:
    said = "it is missing\nInstall it:\n  python -m venv x\n  pip install y\nor leave it."
    assert in_a_line(said) == "it is missing. Install it: python -m venv x. pip install y. or leave it."


def test_a_pipe_or_device_is_written_to_and_a_link_stays_one(tmp_path: Path) -> None:
    """`-o json=/dev/null` as root must not put a file in the place of the device."""
    pipe, link = tmp_path / "pipe", tmp_path / "link.json"
    os.mkfifo(pipe)
    link.symlink_to("real.json")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that nobody waits
    for path in (pipe, link):
        assert targets("table", [f"json={path}"]) == [Target("table"), Target("json", path)]
        sink = Sink(path)
        sink.write("{}")
        sink.commit()
        dropped = Sink(path)
        dropped.write("dropped")
        dropped.discard()
    metrics.write(pipe, Counter(), suspects=0, suppressed=0, seconds=0.0, partial=False, code=0)
    assert os.read(reader, 9) == b"{}dropped"  # what is gone is gone
    assert b"fingerprint_audit_suspects 0" in os.read(reader, 5000)
    os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert link.read_text() == (tmp_path / "real.json").read_text() == "{}"
    metrics.write(link, Counter(), suspects=0, suppressed=0, seconds=0.0, partial=False, code=0)
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "pipe", "real.json"]
