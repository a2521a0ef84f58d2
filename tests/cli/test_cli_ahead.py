"""Asking ahead: what raw arguments leave no doubt about is asked early, and never decides anything by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tool import Tool  # type: ignore[import-not-found]

from cli import ahead, early
from cli.ahead import Opened, Question, plain
from cli.eager import EagerPool
from cli.group import _plain
from cli.options import Calibration


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("a.onnx", Question(("a.onnx",))),
        ("a.onnx b.tflite --against x --against y", Question(("a.onnx", "b.tflite"), ("x", "y"))),
        ("a.onnx --against=x -f json -q --no-cache --alpha 0.05", Question(("a.onnx",), ("x",))),
        ("--db d.db a.onnx --key k.pub", Question(("a.onnx",), (), (Path("k.pub"),), Path("d.db"))),
        ("a.onnx --calibration declared --fail-on=altered --label-only", Question(("a.onnx",))),
        ("", None),
        ("--against x", None),
        ("a.onnx --budget 5", None),
        ("a.onnx --spec s.json", None),
        ("a.onnx --data d", None),
        ("a.onnx --factory m:f", None),
        ("a.onnx --sequential", None),
        ("a.onnx --cover 0.5", None),
        ("a.onnx --responses r.csv", None),
        ("a.onnx -fjson", None),
        ("a.onnx -qf json", None),
        ("a.onnx --agai x", None),
        ("a.onnx --against", None),
        ("a.onnx --against --quiet", None),
        ("a.onnx --db a --db b", None),
        ("-- a.onnx", None),
    ],
)
def test_what_raw_arguments_say(monkeypatch: pytest.MonkeyPatch, text: str, question: Question | None) -> None:
    for name in ahead._variables():
        monkeypatch.delenv("FINGERPRINT_" + name)
    assert plain(text.split()) == question


@pytest.mark.parametrize(
    ("name", "harmless"),
    [("HOME", True), ("ALPHA", True), ("NO_CACHE", True), ("DB", False), ("AGAINST", False), ("BUDGET", False),
     ("SPEC", False), ("TRUSTED_KEYS", False), ("SEQUENTIAL", False)],
)  # fmt: skip
def test_a_variable_can_set_a_flag(monkeypatch: pytest.MonkeyPatch, name: str, harmless: bool) -> None:
    for other in list(ahead._variables()):
        monkeypatch.delenv("FINGERPRINT_" + other)
    monkeypatch.setenv("FINGERPRINT_" + name, "x")
    assert (plain(["a.onnx"]) is not None) == harmless


@pytest.fixture
def question(owner: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Question:
    monkeypatch.setenv("FINGERPRINT_HOME", str(owner.home))
    monkeypatch.chdir(tmp_path)
    return Question((str(owner.cwd / "derived.onnx"),), ("owner",))


def _asked(question: Question, monkeypatch: pytest.MonkeyPatch) -> tuple[Opened | None, list[tuple[Any, Any]]]:
    asked: list[tuple[Any, Any]] = []
    monkeypatch.setattr(EagerPool, "ask_ahead", lambda self, path, images, spec: asked.append((images, spec)))
    with EagerPool(1) as pool:
        return ahead.ask(pool, question), asked


def test_what_is_asked_early_is_what_the_record_holds(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, asked = _asked(question, monkeypatch)
    assert opened is not None and opened.question == question
    opened.records.close()
    (early_images, early_spec), (images, spec) = asked  # before and after record and sidecar were checked
    (record,) = opened.selection.fingerprints
    assert (early_images == record.payload.probes).all() and images is record.payload.probes
    assert early_spec == spec


@pytest.mark.timeout(60)
def test_a_pipe_for_a_sidecar_does_not_hold_anybody_up(
    question: Question, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(Path(question.suspects[0]).read_bytes())
    os.mkfifo(tmp_path / "m.onnx.spec.json")
    opened, asked = _asked(Question((str(tmp_path / "m.onnx"),), ("owner",)), monkeypatch)
    assert opened is not None and asked == []
    opened.records.close()


def test_several_fingerprints_are_asked_together(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, asked = _asked(Question(question.suspects), monkeypatch)
    assert opened is not None and len(asked) == 1
    opened.records.close()
    assert (asked[0][0] == np.concatenate([f.payload.probes for f in opened.selection.fingerprints])).all()


def test_nothing_is_asked_where_it_could_be_wrong(
    question: Question, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINGERPRINT_HOME", str(tmp_path / "none"))
    assert _asked(question, monkeypatch) == (None, []) and not (tmp_path / "none").exists()
    monkeypatch.undo()
    (tmp_path / "fingerprint.toml").write_text("alpha = 0.05\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINGERPRINT_HOME", str(question.suspects[0]))  # not reached
    assert _asked(question, monkeypatch)[0] is None


def test_a_locked_store_is_not_asked_about_early(
    copied: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, question: Question
) -> None:
    """Nobody is asked for a passphrase before the command line was read."""
    from cli import access
    from fingerprint.errors import FingerprintError

    file = tmp_path / "words"
    file.write_text("open sesame\n")
    assert copied("store", "lock", "--new-passphrase-file", file).code == 0
    monkeypatch.setenv("FINGERPRINT_HOME", str(copied.home))
    monkeypatch.setattr(access, "_prompt", lambda *a, **k: pytest.fail("asked a person"))
    with pytest.raises(FingerprintError):
        _asked(question, monkeypatch)
    monkeypatch.setenv("FINGERPRINT_STORE_PASSPHRASE", "open sesame")
    opened, asked = _asked(question, monkeypatch)
    assert opened is not None and len(asked) == 2
    opened.records.close()


def test_records_are_taken_over_for_the_same_question_only(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted, taken in ((question, True), (Question(question.suspects, ("other",)), False)):
        opened, _ = _asked(question, monkeypatch)
        assert opened is not None
        early._opened.append(opened)
        assert (early.take_opened(wanted) is opened) == taken
        assert opened.records._thread.is_alive() == taken
        opened.records.close()


def test_answers_are_used_where_the_same_is_asked(owner: Tool) -> None:
    from fingerprint.engine.sealed import SealedFile
    from fingerprint.spec import load_spec

    path = owner.cwd / "owner.onnx"
    spec = load_spec(path.with_name("owner.onnx.spec.json"))
    images = np.random.default_rng(0).integers(0, 256, (9, *spec.image_shape), dtype=np.uint8)
    with EagerPool(1) as pool, SealedFile.of(path) as sealed:
        pool.open_ahead(path, allow_code=False)
        pool.ask_ahead(path, images, spec)
        pool.ask_ahead(path, images[:1], spec)  # once per pool
        with pool.open(sealed) as session:
            asked: list[int] = []
            real = session._predict
            session._predict = lambda i, s: asked.append(len(i)) or real(i, s)  # type: ignore[method-assign,func-returns-value]
            early_answers, again = session.predict(images.copy(), spec), session.predict(images, spec)
            assert asked == [9]
            assert np.allclose(early_answers, again, atol=1e-5)


@pytest.mark.parametrize("flags", [(), ("--budget", "1000")])
def test_the_verdict_is_the_same_asked_ahead_or_not(owner: Tool, flags: tuple[str, ...]) -> None:
    done = owner("verify", "derived.onnx", "--against", "owner", "--no-cache", "-f", "json", *flags)
    (row,) = done.json["results"]
    assert row["verdict"]["match_rate"] >= 0.9
    assert row["verdict"]["queries"] == 30


@pytest.mark.parametrize(
    ("annotation", "value", "found"),
    [
        (str, "x", "x"),
        (list[str], ("x", "y"), ["x", "y"]),
        (Calibration, "fitted", Calibration.fitted),
        (Calibration, "fit", None),
        (int, "3", None),
        (Path, "x", None),
        (list[Path], ("x",), None),
    ],
)
def test_text_and_names_of_choices_need_no_validator(annotation: object, value: object, found: object) -> None:
    assert _plain(annotation, value) == found
