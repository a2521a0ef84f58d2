"""Where things lie, and what a network file system is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fingerprint.errors import StoreError
from store import mounts
from store.database import Database
from store.home import Home


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINGERPRINT_HOME", str(tmp_path))
    home = Home.default()
    assert home == Home(tmp_path)
    assert home.database == tmp_path / "fingerprint.db"
    assert (home.trusted, home.keys, home.secrets) == (tmp_path / "trusted", tmp_path / "keys", tmp_path / "secrets")
    monkeypatch.setenv("FINGERPRINT_HOME", "~/elsewhere")
    assert Home.default().path == Path.home() / "elsewhere"


@pytest.mark.parametrize("value", [None, ""])
def test_default_is_the_platforms_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("FINGERPRINT_HOME", raising=False)
    else:
        monkeypatch.setenv("FINGERPRINT_HOME", value)
    assert Home.default().path == tmp_path / "dnn-fingerprint"


def test_nothing_is_created_before_it_is_needed(home: Home) -> None:
    assert not home.path.exists()
    home.ensure(home.trusted)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (home.path, home.trusted)] == [0o700, 0o700]
    assert not home.secrets.exists()


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a:/b
23 22 0:21 / /proc rw - proc proc rw
24 22 0:30 / {root}/net rw,relatime shared:5 master:2 - nfs4 server:/export rw,vers=4.2
25 22 0:31 / {root}/with\\040space rw - cifs //server/share rw
26 22 0:32 / {root}/ssh rw,nosuid - fuse.sshfs me@host:/ rw,user_id=0
27 22 0:33 / {root}/twice rw - nfs server:/x rw
28 22 0:34 / {root}/twice rw - ext4 /dev/sdb rw
29 24 0:35 / {root}/net/local rw - xfs /dev/sdc rw
30 22 0:36 / {root}/vm rw - virtiofs share rw
31 22 0:37 / {root}/fuse rw - fuse.fuse-overlayfs x rw
broken line
"""


@pytest.mark.parametrize(
    ("place", "kind", "network"),
    [
        ("net/a/b.db", "nfs4", True),
        ("net", "nfs4", True),
        ("network/b.db", "overlay", False),
        ("with space/b.db", "cifs", True),
        ("ssh/b.db", "fuse.sshfs", True),
        ("twice/b.db", "ext4", False),
        ("net/local/b.db", "xfs", False),
        ("vm/b.db", "virtiofs", False),
        ("fuse/b.db", "fuse.fuse-overlayfs", False),
        ("b.db", "overlay", False),
    ],
)
def test_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, kind: str, network: bool) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.format(root=tmp_path))
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    path = tmp_path / place
    assert mounts.filesystem_of(path) == kind
    if network:
        for readonly in (False, True):
            with pytest.raises(StoreError, match="network file system") as caught:
                Database.open(path, Home(tmp_path), readonly=readonly)
            assert caught.value.remedy
        assert [p.name for p in tmp_path.iterdir()] == ["mountinfo"]
    else:
        mounts.refuse_network(path)


def test_a_link_to_a_network_folder_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.format(root=tmp_path))
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    with pytest.raises(StoreError, match="nfs4"):
        mounts.refuse_network(tmp_path / "link" / "b.db")


def test_without_a_mount_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "absent")
    assert mounts.filesystem_of(tmp_path) is None
    mounts.refuse_network(tmp_path)


def test_this_machine(tmp_path: Path) -> None:
    mounts.refuse_network(tmp_path)
    assert mounts.filesystem_of(Path("/proc/self")) == "proc"
