"""store, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_tool import Tool  # type: ignore[import-not-found]


def test_list_and_show(owner: Tool) -> None:
    (row,) = owner("store", "list", "-f", "json").json["fingerprints"]
    assert (row["name"], row["version"], row["probes"], row["evidential"]) == ("owner", 1, 30, True)
    assert row["id"][:16] in owner("store", "list").out
    for name in ("owner", row["id"], row["id"][:8]):
        found = owner("store", "show", name, "-f", "json").json["fingerprint"]
        assert found["id"] == row["id"] and found["manifest"]["owner"]["sha256"] == row["owner_sha256"]
    near = owner("store", "show", "ownr")
    assert near.code == 2 and "Did you mean 'owner'" in near.err


def test_an_empty_store(tool: Tool) -> None:
    assert tool("store", "list", "-f", "json").json["fingerprints"] == []
    assert "fingerprint create" in tool("store", "list").out
    assert not tool.home.exists()


def test_check(owner: Tool) -> None:
    done = owner("store", "check", "-f", "json")
    assert done.code == 0 and done.json["ok"] is True
    assert "holds" in owner("store", "check").out


@pytest.mark.parametrize("what", ["tensors", "database", "row"])
def test_check_finds_a_changed_byte(copied: Tool, what: str) -> None:
    if what == "tensors":
        (path,) = (copied.home / "fingerprint.db.tensors").iterdir()
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    elif what == "row":
        import sqlite3

        with sqlite3.connect(copied.home / "fingerprint.db") as connection:
            connection.execute("UPDATE fingerprints SET owner_sha256 = replace(owner_sha256, 'a', 'b')")
        connection.close()
    else:
        for path in copied.home.glob("fingerprint.db*"):
            if path.is_file() and path.suffix != ".tensors":
                path.write_bytes(b"x" * 8192)
    done = copied("store", "check", "-f", "json")
    assert done.code == 4
    if what != "database":
        assert done.json["ok"] is False and done.json["problems"]
        assert copied("verify", "derived.onnx").code == 4


def test_export_and_import(owner: Tool, tmp_path: Path) -> None:
    file = tmp_path / "owner.fingerprint"
    done = owner("store", "export", "owner", "--out", file, "-f", "json")
    assert done.code == 0 and done.json["exported"]["includes_secrets"] is False and "data key" in done.err
    assert owner("store", "export", "owner", "--out", file).code == 2, "files are not replaced"
    assert owner("store", "export", "owner", "--out", file, "--overwrite").code == 0
    assert owner("store", "export", "owner", "--out", tmp_path / "no" / "x").code == 2
    second = tmp_path / "second.db"
    done = owner("store", "import", file, "--db", second, "-f", "json")
    assert done.code == 0 and done.json["fingerprint"]["name"] == "owner"
    assert owner("store", "import", file, "--db", second).code == 0, "the same record again is no conflict"
    assert owner("store", "list", "--db", second, "-f", "json").json["fingerprints"][0]["id"] in done.out


def test_import_of_damaged_files(owner: Tool, tmp_path: Path) -> None:
    file = tmp_path / "owner.fingerprint"
    assert owner("store", "export", "owner", "--include-secrets", "--out", file).code == 0
    data = file.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"{}\n", data.replace(b"a", b"b", 1)):
        file.write_bytes(damaged)
        done = owner("store", "import", file, "--db", tmp_path / "second.db")
        assert done.code == 4, done
    file.write_bytes(b"")
    assert owner("store", "import", file, "--db", tmp_path / "second.db").code in (2, 4)
    assert not (tmp_path / "second.db").exists()


def test_a_database_of_the_first_release_is_upgraded_by_looking(tool: Tool) -> None:
    import sqlite3

    import sqlite_utils

    from store.migrations import MIGRATIONS
    from store.schema import APPLICATION_ID

    tool.home.mkdir(0o700)
    path = tool.home / "fingerprint.db"
    connection = sqlite3.connect(path, isolation_level=None)
    first = sqlite_utils.Database(connection, execute_plugins=False, strict=True)
    MIGRATIONS.apply(first, stop_before="m002_exposures_and_exports")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    path.chmod(0o400)
    tool.home.chmod(0o500)
    refused = tool("store", "list", bound_by_modes=True)
    assert refused.code == 2 and "older release" in refused.err
    path.chmod(0o600)
    tool.home.chmod(0o700)
    done = tool("store", "list")
    assert done.code == 0 and "no fingerprint yet" in done.out, done.err
