"""Archives: models in them by content, and nothing that an archive says does harm."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import PNG, SAFETENSORS, TFLITE, suspects, tarred, zipped

from fingerprint.limits import DEFAULT, KIB, MIB
from fingerprint.sources.containers import PREFIX, opened, sweep
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.interface import Artifact

INSIDE = {"assets/model.tflite": TFLITE, "assets/icon.png": PNG, "res/raw/song.mp3": TFLITE, "lib/data": SAFETENSORS}
FOUND = [("!/assets/model.tflite", None), ("!/lib/data", None), ("!/res/raw/song.mp3", None)]


@pytest.mark.parametrize("name", ["app.apk", "app.aab", "lib.aar", "app.ipa", "lib.jar", "x.zip", "no-suffix"])
def test_models_in_packages_are_found_by_content(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(zipped(INSIDE))
    assert suspects(tmp_path) == [(f"{name}{place}", status) for place, status in FOUND]


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("x.tar", lambda data: data),
        ("x.tar.gz", gzip.compress),
        ("x.tgz", lambda data: gzip.compress(data[:600]) + gzip.compress(data[600:])),  # two streams in a row
        ("x.tar.bz2", bz2.compress),
        ("x.tar.xz", lzma.compress),
    ],
)
def test_tar_archives(name: str, packed: object, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(packed(tarred(INSIDE)))  # type: ignore[operator]
    assert suspects(tmp_path) == [(f"{name}{place}", status) for place, status in FOUND]


def test_zstandard(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "x.tar.zst").write_bytes(zstandard.compress(tarred(INSIDE)))
    assert suspects(tmp_path) == [(f"x.tar.zst{place}", status) for place, status in FOUND]


def test_one_packed_file(tmp_path: Path) -> None:
    (tmp_path / "model.tflite.gz").write_bytes(gzip.compress(TFLITE))
    assert suspects(tmp_path) == [("model.tflite.gz!/model.tflite", None)]


def test_nested_archives_keep_the_whole_path(tmp_path: Path) -> None:
    inner = zipped({"assets/m": TFLITE})
    (tmp_path / "backup.tar.gz").write_bytes(gzip.compress(tarred({"apps/app.apk": zipped({"base.apk": inner})})))
    assert suspects(tmp_path) == [("backup.tar.gz!/apps/app.apk!/base.apk!/assets/m", None)]


def test_sidecars_and_parts_stay_together(tmp_path: Path) -> None:
    param = b"7767517\n1 1\nInput x 0 1 x\n"
    (tmp_path / "x.zip").write_bytes(
        zipped({"a/net.param": param, "a/net.bin": b"weights", "a/net.param.spec.json": b"{}", "b/net.bin": b"none"})
    )
    (artifact,) = DirectorySource(str(tmp_path)).artifacts()
    with opened(artifact) as inner:
        found = next(inner)
        assert (found.path.parent / "net.bin").read_bytes() == b"weights"
        assert found.path.with_name("net.param.spec.json").exists()
        assert next(inner, None) is None
    assert not found.path.exists(), "what was unpacked is gone"


def test_encrypted_members_are_opaque(tmp_path: Path) -> None:
    data = bytearray(zipped({"model.tflite": TFLITE, "plain.tflite": TFLITE}, zipfile.ZIP_STORED))
    data[6] |= 1  # flags of the first local header
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1  # and of its directory entry
    (tmp_path / "app.apk").write_bytes(data)
    assert suspects(tmp_path) == [("app.apk!/model.tflite", "opaque"), ("app.apk!/plain.tflite", None)]


def test_encrypted_content_is_opaque(tmp_path: Path) -> None:
    secret = os.urandom(20_000)
    (tmp_path / "app.apk").write_bytes(zipped({"a.tflite": secret, "b.tflite.enc": secret, "c.dat": secret}))
    (tmp_path / "d.onnx").write_bytes(secret)
    (tmp_path / "cut.onnx").write_bytes(b"half of a model " * 200)  # unreadable, but nothing is hidden
    assert suspects(tmp_path) == [
        ("app.apk!/a.tflite", "opaque"), ("app.apk!/b.tflite.enc", "opaque"), ("cut.onnx", None), ("d.onnx", "opaque"),
    ]  # fmt: skip


# -- guards ----------------------------------------------------------------------------------------------------------

HOSTILE = ["../../evil.tflite", "/etc/evil.tflite", "a/../../b.tflite", "..\\..\\c.tflite", "x" * 300 + ".tflite"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_lead_outside_are_shown_and_lead_nowhere(pack: object, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "x.bin").write_bytes(pack(dict.fromkeys(HOSTILE, TFLITE)))  # type: ignore[operator]
    (artifact,) = DirectorySource(str(place)).artifacts()
    with opened(artifact) as inner:
        for one in inner:
            assert Path(tempfile.gettempdir()).resolve() in one.path.resolve().parents
            assert any(part.startswith(PREFIX) for part in one.path.resolve().parts)
    assert sorted(name for name, _ in suspects(place)) == sorted(f"x.bin!/{name}" for name in HOSTILE)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["place", "x.bin"]


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (
            ("a", tarfile.SYMTYPE),
            ("b", tarfile.LNKTYPE),
            ("c", tarfile.FIFOTYPE),
            ("d", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(f"{name}.tflite")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("a.tflite/inner.tflite")  # through the link, if it had been made
        info.size = len(TFLITE)
        archive.addfile(info, io.BytesIO(TFLITE))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    assert suspects(tmp_path) == [("x.tar!/a.tflite/inner.tflite", None)]
    link = zipfile.ZipInfo("link.tflite")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as zipped_link:
        zipped_link.writestr(link, "/etc/passwd")
    assert suspects(tmp_path / "y.zip") == [("", "unsupported")]  # named, and nothing in it


def test_two_members_of_one_name_are_both_seen(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("m.tflite", TFLITE)
        archive.writestr("m.tflite", TFLITE + b"!")
    assert suspects(tmp_path) == [("x.zip!/m.tflite", None)] * 2


def test_bombs_end_at_the_limits(tmp_path: Path) -> None:
    small = replace(DEFAULT, model_bytes=MIB, archive_bytes=2 * MIB, archive_members=50)
    (tmp_path / "one.zip").write_bytes(zipped({"a.tflite": TFLITE, "big.tflite": bytes(2 * MIB - 5 * KIB)}))
    assert suspects(tmp_path / "one.zip", small) == [("!/big.tflite", "unreadable"), ("!/a.tflite", None)]
    (tmp_path / "sum.tar.gz").write_bytes(
        gzip.compress(tarred({f"{i}.tflite": TFLITE + bytes(900 * KIB) for i in range(5)}))
    )
    found = suspects(tmp_path / "sum.tar.gz", small)
    assert found[0] == ("", "unreadable") and len(found) == 3
    (tmp_path / "many.tar").write_bytes(tarred({f"{i}.txt": b"x" for i in range(60)}))
    assert suspects(tmp_path / "many.tar", small)[0] == ("", "unreadable")
    (tmp_path / "ratio.tar.bz2").write_bytes(bz2.compress(tarred({"zeros.tflite": bytes(70 * MIB)}), 1))
    assert suspects(tmp_path / "ratio.tar.bz2") == [("", "unreadable")]


def test_what_lies_is_counted_as_it_is(tmp_path: Path) -> None:
    """A directory entry that says 10 bytes does not make a megabyte pass as 10."""
    data = bytearray(zipped({"m.tflite": TFLITE + bytes(MIB)}))
    at = data.find(b"PK\x01\x02")
    struct.pack_into("<L", data, at + 24, 10)
    (tmp_path / "x.zip").write_bytes(data)
    assert suspects(tmp_path) in ([("x.zip!/m.tflite", "unreadable")], [("x.zip!/m.tflite", None)])


def test_nesting_ends(tmp_path: Path) -> None:
    data = TFLITE
    for _ in range(DEFAULT.archive_depth + 3):
        data = zipped({"x.zip": data})
    (tmp_path / "deep.zip").write_bytes(data)
    ((name, status),) = suspects(tmp_path)
    assert (name.count("!/"), status) == (DEFAULT.archive_depth + 1, "unreadable")


def test_headers_that_would_fill_the_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2 * MIB
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(3 * MIB))
    assert suspects(tmp_path) == [("x.tar", "unreadable")]


@pytest.mark.parametrize("cut", [30, 200, 0.5, 0.9])
@pytest.mark.parametrize("pack", ["tar.gz", "tar.xz", "tar"])
def test_cut_archives_say_so(cut: float, pack: str, tmp_path: Path) -> None:
    data = {"tar.gz": gzip.compress, "tar.xz": lzma.compress, "tar": bytes}[pack](
        tarred({"m.tflite": os.urandom(20_000)})
    )  # type: ignore[operator]
    (tmp_path / f"x.{pack}").write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
    assert {status for _, status in suspects(tmp_path)} <= {"unreadable", "opaque"}


@settings(max_examples=60)
@given(st.binary(max_size=64), st.integers(0, 400))
def test_no_damage_raises(noise: bytes, at: int) -> None:
    for data in (zipped(INSIDE), gzip.compress(tarred({"m.tflite": TFLITE}))):
        damaged = bytearray(data)
        place = at * len(data) // 400
        damaged[place : place + len(noise)] = noise
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "x.zip").write_bytes(damaged)
            assert all(isinstance(name, str) for name, _ in suspects(Path(folder)))


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, ours = tmp_path / f"{PREFIX}4194300-x", tmp_path / f"{PREFIX}{os.getpid()}-x"
    dead.mkdir()
    ours.mkdir()
    (dead / "m").write_bytes(b"x")
    sweep()
    assert not dead.exists() and ours.exists()


@pytest.mark.shared_data
def test_a_real_app(shared_data: Path) -> None:
    app = shared_data / "mobile" / "flower_app.apk"
    assert suspects(app) == [("!/assets/model (1).tflite", None), ("!/assets/model.tflite", None)]
    (artifact,) = DirectorySource(str(app)).artifacts()
    assert isinstance(artifact, Artifact) and artifact.kind == "archive"
