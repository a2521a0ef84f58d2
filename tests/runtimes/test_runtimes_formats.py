"""Formats are told by content, under limits, and never with an exception for what a file holds."""

import io
import random
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from engine_models import SHARED

from fingerprint.limits import DEFAULT
from fingerprint.runtimes.formats import Format, carries_code, describe, needs_factory, sniff, title


def named(*names: str) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file


@pytest.mark.parametrize("name", ["pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite"])
def test_real_files_are_told_apart_whatever_they_are_called(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    misnamed = tmp_path / "model.jpg"
    misnamed.write_bytes(files[name].read_bytes())
    assert sniff(misnamed) == name


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"\x1c\0\0\0ET12....", "executorch"),
        (b"<?xml version='1.0'?>\n<net name='m' version='11'><layers/>", "openvino"),
        (b"7767517\n3 3\nInput x 0 1 x\n", "ncnn"),
        (b"\xdd\x85\x76\0\3\0\0\0", "ncnn-binary"),
        (b"\x7fELF\2\1\1" + bytes(60), "shared-library"),
        (b"\x7fELF\2\1\1" + bytes(2_000_000) + b"__tvm_ffi__library_bin", "tvm"),
        (b"\x89HDF\r\n\x1a\n....", "keras"),
        (b"GGUF\3\0\0\0", "gguf"),
        (b"\x80\x02}q\0.", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs-pointer"),
        (b"\x1f\x8b\x08\0", "archive"),
        (b"\x08\x07\x12\x03abc\xa2\x1f\x02ab", "coreml"),
        (b"PK\x03\x04 and then nothing", "damaged-zip"),
        (b"", None),
        (b"\0", None),
        (b"hello, world", None),
        (b"\x08\x07\x12\x07pytorch", None),
        (bytes(100), None),
    ],
)
def test_magic(head: bytes, format: str | None) -> None:
    assert sniff(io.BytesIO(head)) == format


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (("m/data/aotinductor/model/w.so", "m/archive_format"), "aotinductor"),
        (("serialized_exported_program.json", "version"), "pt2"),
        (("m/code/x.py", "m/constants.pkl", "m/data.pkl"), "torchscript"),
        (("archive/data.pkl", "archive/data/0"), "state-dict"),
        (("AndroidManifest.xml", "assets/m.tflite"), "apk"),
        (("Payload/App.app/m.tflite",), "ipa"),
        (("config.json", "metadata.json", "model.weights.h5"), "keras"),
        (("m.mlpackage/Data/com.apple.CoreML/model.mlmodel",), "coreml"),
        (("images.npy", "labels.npy"), "npz"),
        (("readme.txt",), "zip"),
        ((), "zip"),
    ],
)
def test_archives_by_their_members(names: tuple[str, ...], format: str) -> None:
    assert sniff(named(*names)) == format


def test_code_and_factories() -> None:
    assert {f for f in Format if carries_code(f)} == {"pt2", "torchscript", "aotinductor", "pickle", "tvm"}
    assert {f for f in Format if needs_factory(f)} == {"state-dict", "pickle", "safetensors"}
    assert all(title(f) for f in Format) and "mystery" in title("mystery")


def test_archive_limits() -> None:
    file = named(*(f"m/{i}" for i in range(50)), "m/data.pkl")
    assert sniff(file) == "state-dict"
    assert sniff(file, replace(DEFAULT, archive_members=50)) == "damaged-zip"
    assert sniff(file, replace(DEFAULT, header_bytes=100)) == "damaged-zip"
    assert sniff(file, replace(DEFAULT, archive_bytes=50)) == "damaged-zip"


def test_a_lying_directory_is_damaged() -> None:
    data = bytearray(named("m/data.pkl").getvalue())
    at = data.rfind(b"PK\5\6")
    for offset, value in ((10, 60000), (12, 2**31), (16, 2**31)):
        changed = data.copy()
        struct.pack_into("<H" if offset == 10 else "<L", changed, at + offset, value)
        assert sniff(io.BytesIO(changed)) == "damaged-zip"


def test_safetensors_header_limit() -> None:
    data = struct.pack("<Q", 40) + b'{"a":1}'.ljust(40) + b"12345678"
    assert sniff(io.BytesIO(data)) == "safetensors"
    assert sniff(io.BytesIO(data), replace(DEFAULT, header_bytes=39)) is None
    assert sniff(io.BytesIO(struct.pack("<Q", 4000) + data[8:])) is None


def test_never_raises(files: dict[str, Path]) -> None:
    chance = random.Random(5)
    for path in files.values():
        whole = path.read_bytes()
        for cut in (1, 3, 4, 7, 30, 100, len(whole) // 2, len(whole) - 1):
            sniff(io.BytesIO(whole[:cut]))
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(4):
                data[chance.choice((chance.randrange(len(data)), chance.randrange(64), -chance.randrange(1, 64)))] ^= (
                    1 << (chance.randrange(8))
                )
            sniff(io.BytesIO(data))


def test_describe_is_printable() -> None:
    assert describe(b"hello, world") == "starts with 68 65 6c 6c 6f 2c 20 77 ('hello, w')"
    assert describe(b"\x1b[31mred").isprintable() and describe(b"\xff\xfe").isprintable()


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_shared_models() -> None:
    kinds = {".onnx": "onnx", ".tflite": "tflite", ".pt2": "pt2", ".safetensors": "safetensors", ".apk": "apk"}
    found = [p for p in SHARED.rglob("*") if p.suffix in kinds]
    assert found and all(sniff(p) == kinds[p.suffix] for p in found)
    assert sniff(SHARED / "cifar10" / "akamaster_resnet20.ts.pt") == "torchscript"
