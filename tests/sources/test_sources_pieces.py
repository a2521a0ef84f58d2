"""Models that were cut into numbered files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import SAFETENSORS, TFLITE, suspects, zipped

from fingerprint.sources.containers import opened
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.pieces import JoinedFile


def cut(folder: Path, data: bytes, size: int, names: list[str]) -> None:
    for i, name in enumerate(names):
        (folder / name).write_bytes(data[i * size : (i + 1) * size])


@pytest.mark.parametrize(
    "names",
    [
        ["m.tflite.000", "m.tflite.001", "m.tflite.002"],
        ["m.part1", "m.part2", "m.part3"],
        ["m_0.bin", "m_1.bin", "m_2.bin"],
        ["xaa", "xab", "xac"],
        ["song1.mp3", "song2.mp3", "song3.mp3"],
    ],
)
def test_pieces_are_one_suspect(names: list[str], tmp_path: Path) -> None:
    cut(tmp_path, TFLITE, 400, names)
    assert suspects(tmp_path) == [(f"{names[0]} (+2 pieces)", None)]
    (artifact,) = DirectorySource(str(tmp_path)).artifacts()
    with opened(artifact) as inner:
        assert next(inner).path.read_bytes() == TFLITE


def test_more_than_nine_pieces_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    cut(tmp_path, TFLITE, 80, [f"m.{i}" for i in range(13)])
    (artifact,) = DirectorySource(str(tmp_path)).artifacts()
    with opened(artifact) as inner:
        assert next(inner).path.read_bytes() == TFLITE[: 13 * 80]


def test_what_is_no_split_model(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.safetensors").write_bytes(SAFETENSORS)  # shards: each a file of its own
    (tmp_path / "m-00002-of-00002.safetensors").write_bytes(SAFETENSORS)
    cut(tmp_path, TFLITE, 400, ["gap.0", "gap.2"])
    cut(tmp_path, bytes(900), 400, ["none.0", "none.1", "none.2"])
    (tmp_path / "sizes.0").write_bytes(TFLITE[:100])
    (tmp_path / "sizes.1").write_bytes(TFLITE[100:])  # the last is longer
    assert suspects(tmp_path) == [
        ("gap.0", None), ("m-00001-of-00002.safetensors", None), ("m-00002-of-00002.safetensors", None),
        ("sizes.0", None),
    ]  # fmt: skip


def test_an_archive_in_pieces_inside_an_archive(tmp_path: Path) -> None:
    inner = zipped({"m": TFLITE * 3}, 0)
    size = len(inner) // 2 + 1
    (tmp_path / "x.zip").write_bytes(zipped({"a.zip.001": inner[:size], "a.zip.002": inner[size:]}))
    assert suspects(tmp_path) == [("x.zip!/a.zip.001 (+1 pieces)!/m", None)]


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.integers(0, 50), st.integers(1, 50))
def test_joined_files_read_like_one(parts: list[bytes], at: int, size: int) -> None:
    import tempfile

    whole = b"".join(parts)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(i) for i in range(len(parts))]
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        with JoinedFile(paths) as joined:
            assert joined.seek(0, 2) == len(whole)
            joined.seek(at)
            got = b""
            while len(got) < size and (block := joined.read(size - len(got))):
                got += block
            assert got == whole[at : at + size]
