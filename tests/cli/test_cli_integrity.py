"""The integrity axis through the command: create --integrity, verify --allow and --expect intact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_tool import Done, Tool  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def sealed(models: Path, bytecode: Path, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """A home with the fingerprint "sealed", which has integrity probes; and two derivatives of the owner."""
    tool = Tool(tmp_path_factory.mktemp("sealed"), models, bytecode)
    assert tool("keygen", "--no-passphrase").code == 0
    made = tool(
        "create", "owner.pt2", "--name", "sealed", "--reference", "references", "--budget", "30", "--integrity", "40"
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "copies of the owner" in made.err or "integrity" in made.err
    for how, out in (("prune:magnitude:0.37", "i-pruned.onnx"), ("noise:0.4", "i-noisy.onnx")):
        done = tool("derive", "owner.onnx", "--how", how, "--out", out)
        assert done.code == 0, done.err
    return tool


def intact(tool: Tool, name: str, *more: str) -> Done:
    done: Done = tool("verify", name, "--against", "sealed", "--expect", "intact", "-f", "json", *more)
    return done


def test_the_same_model_in_another_format_is_intact(sealed: Tool) -> None:
    done = intact(sealed, "owner.onnx")
    assert done.code == 0, done.err
    verdict = done.json["results"][0]["verdict"]
    assert (verdict["lineage"], verdict["integrity"]) == ("derived", "intact")
    assert verdict["integrity_evidence"]["queries"] == 40
    assert verdict["attribution"]["kind"] in ("re-encoded", "quantized", None)


def test_declared_and_undeclared_compression(sealed: Tool) -> None:
    assert intact(sealed, "i-pruned.onnx", "--allow", "prune:magnitude:0.5").code == 0
    done = intact(sealed, "i-pruned.onnx")
    evidence = done.json["results"][0]["verdict"]["integrity_evidence"]
    assert done.code == (3 if evidence["p_declared"] <= evidence["error"] else 0)


def test_tampering_fails_the_expectation(sealed: Tool) -> None:
    done = intact(sealed, "i-noisy.onnx", "--allow", "prune:magnitude:0.3")
    assert done.code in (1, 3), done.out
    assert done.json["results"][0]["verdict"]["integrity"] in ("altered", "unknown")


def test_what_can_not_be_allowed_is_refused(sealed: Tool) -> None:
    done = intact(sealed, "owner.onnx", "--allow", "shrinking:0.5")
    assert done.code == 2
    assert "shrinking" in done.err


def test_too_few_integrity_probes_are_refused(sealed: Tool) -> None:
    done = sealed("create", "owner.pt2", "--name", "few", "--integrity", "3")
    assert done.code == 2
    assert "integrity is 3" in done.err


def test_a_bundle_recomputes_it(sealed: Tool, tmp_path: Path) -> None:
    """Of real models, at once and step by step: whatever was said, the checker says the same."""
    for number, more in enumerate((("--allow", "prune:magnitude:0.5"), ("--sequential", "--no-cache"))):
        done = sealed("verify", "i-pruned.onnx", "--against", "sealed", "-f", "json", *more)
        verdict = done.json["results"][0]["verdict"]
        pack = tmp_path / f"{number}.zip"
        assert sealed("report", "last", "--bundle", pack).code == 0
        checked = subprocess.run([sys.executable, pack], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout
        assert f"i-pruned.onnx: {verdict['lineage']}; p = " in checked.stdout
        assert "did not keep" not in checked.stdout
        judged = verdict["integrity_evidence"] is not None
        assert (f"i-pruned.onnx: integrity {verdict['integrity']}" in checked.stdout) == judged
        assert ("the evidence after each of" in checked.stdout) == bool(verdict["evidence"])
