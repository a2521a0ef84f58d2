"""Help, version, completion, and what the command says to arguments that make no sense."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from cli_tool import COMMAND, Tool  # type: ignore[import-not-found]

from cli.group import VERBS, flags_of, load_verb
from fingerprint import __version__

STORE = ("list", "show", "check", "export", "import", "merge", "rebuild", "backup", "checkpoint", "lock", "browse")
STORE += ("log", "clean")
ATTEST = ("verify", "show", "sign", "timestamp", "revoke", "rotate")
GROUPS = (("store",), ("probes",), ("attest",))
ALL = [(verb,) for verb in VERBS] + [("store", verb) for verb in STORE] + [("probes", "export"), ("probes", "reveal")]
ALL += [("attest", verb) for verb in ATTEST]
HEAVY = ("torch", "numpy", "rich", "pydantic", "cryptography", "sqlite_utils", "onnxruntime")


def imported(tool: Tool, *arguments: str) -> set[str]:
    """Top-level packages that a run imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(COMMAND), *arguments],
        env=tool.environment(),
        cwd=tool.cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_of_every_verb_has_an_example(tool: Tool, words: tuple[str, ...]) -> None:
    done = tool(*words, "--help")
    assert done.code == 0 and not done.err
    assert f"  fingerprint {' '.join(words)}" in done.out and "Examples:" in done.out
    assert "--db" in done.out or words in GROUPS


def test_help_lists_all_verbs(tool: Tool) -> None:
    done = tool("--help")
    assert done.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in done.out
    assert "..." not in done.out.split("Commands:")[1], "a help line is too long"


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_flags_that_all_verbs_share(words: tuple[str, ...]) -> None:
    found = flags_of(load_verb(words[0]))
    for word in words[1:]:
        found = found[word]
    if words not in GROUPS:
        assert {"db", "format", "output", "quiet", "debug"} <= set(found)


def test_the_flags_of_the_contract() -> None:
    """DESIGN section 9: these stay."""
    contract = {
        "keygen": "out no-passphrase",
        "create": "name spec reference data budget families seed declare-bound screen key factory replace",
        "calibrate": "reference",
        "verify": "against spec data alpha budget calibration expect fail-on factory allow-code responses",
        "audit": "against data alpha calibration allow-code workers fail-on",
        "derive": "how out spec data",
    }
    for verb, flags in contract.items():
        assert set(flags.split()) <= set(flags_of(load_verb(verb))), verb


def test_version(tool: Tool) -> None:
    done = tool("--version")
    assert (done.code, done.out, done.err) == (0, f"fingerprint {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_version_import_nothing_heavy(tool: Tool, arguments: tuple[str, ...]) -> None:
    assert not imported(tool, *arguments) & set(HEAVY)


def test_verb_help_imports_little(tool: Tool) -> None:
    assert not imported(tool, "create", "--help") & {"torch", "numpy", "rich", "cryptography", "sqlite_utils"}


def test_completion(tool: Tool) -> None:
    env = {"_FINGERPRINT_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "fingerprint ver"}
    assert tool(env=env).out.split() == ["verify"]
    env |= {"COMP_CWORD": "2", "COMP_WORDS": "fingerprint verify --fail"}
    assert tool(env=env).out.split() == ["--fail-on"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verfy",), "Did you mean 'verify'"),
        (("verify",), ""),
        (("verify", "x", "--alpha", "much"), "--alpha"),
        (("verify", "x", "--fail-on", "theft"), "--fail-on"),
        (("verify", "x", "--expect", "luck"), "--expect"),
        (("verify", "x", "--calibration", "guess"), "--calibration"),
        (("verify", "x", "--nonsense"), "--nonsense"),
        (("audit", "x", "--workers", "0"), "--workers"),
        (("store", "lst"), "list"),
        (("verify", "--label-only"), "no SUSPECT"),
        (("verify", "https://host/"), "Known: http(s)://HOST/v2/models/NAME"),
        (("verify", "x", "--responses", "y"), "--responses is the suspect"),
        (("probes", "export", "x", "--out", "y"), "no database"),
        (("verify", "x", "-f", "pdf"), "no report format 'pdf'"),
        (("verify", "x", "-o", "json"), "not FORMAT=PATH"),
        (("verify", "x", "-o", "json=/no/such/folder/x.json"), "/no/such/folder"),
        (("verify", "x"), "no such file: x"),
        (("verify", "."), "fingerprint audit ."),
        (("audit", "no-such-folder"), "no such file or folder: no-such-folder"),
        (("create", "no-such.onnx", "--name", "n"), "no such model file: no-such.onnx"),
        (("derive", "no-such.onnx", "--how", "x", "--out", "y.onnx"), "no such model file"),
        (("store", "show", "x"), "no fingerprint 'x'"),
        (("store", "check"), "no database"),
        (("store", "list", "--db", "no.db"), "no database no.db"),
        (("store", "import", "no.fingerprint"), "no.fingerprint"),
        (("keygen",), "--no-passphrase"),
    ],
)
def test_senseless_arguments(tool: Tool, arguments: tuple[str, ...], said: str) -> None:
    done = tool(*arguments)
    assert done.code == 2, done
    assert said in done.err + done.out
    assert not any(tool.home.glob("**/*.db")), "a failed run made a database"


def test_doctor_and_plugins(tool: Tool) -> None:
    done = tool("doctor", "-f", "json")
    assert done.code == 0
    names = {(line["what"], line["name"]): line["ok"] for line in done.json["lines"]}
    assert names[("runtime", "onnx")] is True and names[("tool", "fingerprint")] is True
    assert "runtime" in tool("doctor").out
    details = {(line["what"], line["name"]): line["detail"] for line in done.json["lines"]}
    assert names[("runtime", "coreml")] is None, "no file of it is run"
    assert details[("runtime", "coreml")].startswith("no package:")
    assert details[("runtime", "onnx")].startswith(version("onnxruntime"))
    found = tool("plugins", "-f", "json").json["plugins"]
    assert {"runtimes", "probes", "transforms", "sources", "reports"} == {p["group"] for p in found}
    assert "fingerprint.runtimes.onnx:OnnxRuntime" in tool("plugins").out
    assert not tool.home.exists(), "looking made something"


def test_doctor_finds_what_is_broken(keyed: Tool) -> None:
    (keyed.home / "keys" / "fingerprint.key").chmod(0o644)
    (keyed.home / "trusted" / "odd.pub").write_text("no key")
    (keyed.home / "fingerprint.db").write_bytes(b"no database" * 100)
    done = keyed("doctor", "-f", "json")
    assert done.code == 2 and done.json["ok"] is False
    assert {line["what"] for line in done.json["lines"] if line["ok"] is False} == {
        "signing key",
        "trusted key",
        "database",
    }
