"""coreml: described without any package, refused with a way on, whatever the bytes are."""

import random
import zipfile
from pathlib import Path

import pytest

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import ModelError, UnreadableModel, UnsupportedModel
from fingerprint.runtimes.coreml import CoreMlRuntime, describe
from fingerprint.runtimes.formats import sniff
from fingerprint.runtimes.interface import LoadOptions


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def inner(field: int, *content: bytes) -> bytes:
    joined = b"".join(content)
    return varint(field << 3 | 2) + varint(len(joined)) + joined


def feature(field: int, name: str, kind: bytes) -> bytes:
    return inner(field, inner(1, name.encode()), inner(3, kind))


IMAGE = inner(4, number(1, 224), number(2, 160), number(3, 20))
ARRAY = inner(5, inner(1, varint(1), varint(1000)), number(2, 65568))
MODEL = (
    number(1, 5)
    + inner(2, feature(1, "photo", IMAGE), feature(10, "scores", ARRAY), feature(10, "label", inner(3)))
    + inner(403, b"\x0a\x03abc")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "m.mlmodel").write_bytes(MODEL)
    return tmp_path / "m.mlmodel"


def test_described(path: Path) -> None:
    assert sniff(path) == "coreml"
    assert describe(path) == (
        "a Core ML neural network classifier (inputs: photo: RGB image 224x160; "
        "outputs: scores: float32 (1, 1000), label: text)"
    )


def test_refused_with_a_way_on(path: Path) -> None:
    runtime = CoreMlRuntime()
    runtime.check()
    assert not runtime.executes
    with pytest.raises(UnsupportedModel, match="photo: RGB image") as caught:
        runtime.load(path, "coreml", LoadOptions())
    assert "probes export" in caught.value.remedy and "--responses" in caught.value.remedy


def test_refused_by_the_worker_that_reads_it(path: Path) -> None:
    with (
        WorkerPool(threads=1) as pool,
        SealedFile.of(path) as sealed,
        pytest.raises(UnsupportedModel, match="scores: float32"),
    ):
        pool.open(sealed)


def test_a_zipped_package(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("m.mlpackage/Data/com.apple.CoreML/model.mlmodel", MODEL)
    assert sniff(tmp_path / "m.zip") == "coreml"
    assert "zipped" in describe(tmp_path / "m.zip")


def test_damaged_ones_are_unreadable_or_described(path: Path) -> None:
    with pytest.raises(UnreadableModel, match="cut or damaged"):
        path.write_bytes(MODEL[:30])
        describe(path)
    chance = random.Random(3)
    for _ in range(300):
        data = bytearray(MODEL)
        for _ in range(2):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            assert describe(path).isprintable()
        except ModelError as error:
            assert error.message.isprintable()
