"""Settings files: what they may say, and what wins over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.config import REFUSED, default_map, read_settings
from cli.group import VERBS, flags_of, load_verb
from fingerprint.errors import UsageError


@pytest.fixture(scope="module")
def flags() -> dict[str, Any]:
    return {verb: flags_of(load_verb(verb)) for verb in VERBS}


def made(tmp_path: Path, flags: dict[str, Any], text: str, name: str = "fingerprint.toml") -> dict[str, Any]:
    (tmp_path / name).write_text(text)
    found = read_settings(tmp_path)
    assert found is not None
    return default_map(*found, flags)


def test_top_level_keys_reach_every_verb_that_has_the_flag(tmp_path: Path, flags: dict[str, Any]) -> None:
    found = made(tmp_path, flags, 'alpha = 0.05\nfail-on = "altered"\ndb = "x.db"\n')
    assert found["verify"] == {"alpha": 0.05, "fail_on": "altered", "db": "x.db"} == found["audit"]
    assert found["keygen"] == {"db": "x.db"} and found["store"]["list"] == {"db": "x.db"}


def test_a_table_is_for_one_verb(tmp_path: Path, flags: dict[str, Any]) -> None:
    found = made(tmp_path, flags, 'fail_on = "altered"\n[verify]\nfail-on = "derived"\n[store.list]\nformat = "json"\n')
    assert (found["verify"]["fail_on"], found["audit"]["fail_on"]) == ("derived", "altered")
    assert found["store"]["list"] == {"format": "json"} and found["store"]["show"] == {}


def test_pyproject_when_there_is_no_fingerprint_toml(tmp_path: Path, flags: dict[str, Any]) -> None:
    text = "[tool.other]\nx = 1\n[tool.fingerprint.audit]\nworkers = 2\n"
    assert made(tmp_path, flags, text, "pyproject.toml")["audit"] == {"workers": 2}
    (tmp_path / "fingerprint.toml").write_text("alpha = 0.5\n")
    path, values = read_settings(tmp_path) or (None, None)
    assert path == tmp_path / "fingerprint.toml" and values == {"alpha": 0.5}


def test_nothing_to_read(tmp_path: Path) -> None:
    assert read_settings(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    assert read_settings(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("alhpa = 0.1\n", "'alhpa'"),
        ("[verify]\nworkers = 2\n", "'workers' in [verify]"),
        ("[verfy]\nalpha = 0.1\n", "'verfy'"),
        ("[store.lst]\nformat = 'json'\n", "'lst' in [store]"),
        ("x = 1\ny = 2\n", "'x'; unknown key 'y'"),
    ],
)
def test_unknown_keys_are_named(tmp_path: Path, flags: dict[str, Any], text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(tmp_path, flags, text)
    assert named in caught.value.message


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_file_decides_nothing_dangerous(tmp_path: Path, flags: dict[str, Any], key: str) -> None:
    """A settings file may come with the models that are looked at."""
    with pytest.raises(UsageError, match="can't be set in a file"):
        made(tmp_path, flags, f"{key} = true\n")
    for verb, known in flags.items():
        if key in known:
            with pytest.raises(UsageError, match="can't be set in a file"):
                made(tmp_path, flags, f"[{verb}]\n{key} = true\n")


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.toml").write_bytes(b"alpha = \xff")
    with pytest.raises(UsageError, match="can't be read"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[tool.fingerprint]\nalpha = 0.5\n",
        "[ tool . fingerprint ]\nalpha = 0.5\n",
        '["tool"."fingerprint"]\nalpha = 0.5\n',
        "[tool]\nfingerprint.alpha = 0.5\n",
        "tool.fingerprint.alpha = 0.5\n",
        "tool = {fingerprint = {alpha = 0.5}}\n",
        '["t\\u006fol".fingerprint]\nalpha = 0.5\n',
    ],
)
def test_every_spelling_of_the_table_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n" if text.startswith("[") else "")
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write(text)
    found = read_settings(tmp_path)
    assert found is not None and found[1] == {"alpha": 0.5}


def test_a_file_without_the_table_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.ruff]\nx = 1\n[project.scripts]\nfingerprint = "cli.main:main"\n= =\n'
    )
    assert read_settings(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool]\nfingerprint = 3\n")
    with pytest.raises(UsageError, match="no table"):
        read_settings(tmp_path)
