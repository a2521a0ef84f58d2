"""--families with settings, and --certify, from the command line."""

from __future__ import annotations

from pathlib import Path

from cli_tool import Tool  # type: ignore[import-not-found]


def test_settings_of_families(models: Path, tool: Tool) -> None:
    text = "boundary:kappa=0.3,steps=20,start=smooth,signature:code=a nonce,steps=30"
    assert tool("keygen", "--no-passphrase").code == 0
    arguments = ("--families", text, "--budget", "8", "--certify", "-f", "json")
    done = tool("create", models / "owner.onnx", "--name", "n", *arguments)
    assert done.code == 0, done.err
    families = done.json["fingerprint"]["families"]
    assert [f["name"] for f in families] == ["boundary", "signature"]
    assert all(1 <= f["count"] <= 4 for f in families)  # no seed: how many get there differs


def test_wrong_settings_name_the_right_ones(models: Path, tool: Tool) -> None:
    assert tool("keygen", "--no-passphrase").code == 0
    done = tool("create", models / "owner.onnx", "--name", "n", "--families", "boundary:kapa=0.3")
    assert done.code == 2
    assert "no setting" in done.err and "kappa" in done.err
