"""Where suspects come from: a file, or a folder read recursively."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fingerprint.errors import UsageError
from fingerprint.sources.claims import MODEL_SUFFIXES
from fingerprint.sources.directory import DirectorySource, is_model
from fingerprint.sources.interface import Finding

TFLITE = b"\x1c\x00\x00\x00TFL3" + bytes(40)
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def place(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def found(location: Path) -> list[str]:
    return [str(a.path.relative_to(location)) for a in DirectorySource(str(location)).artifacts()]


def test_models_by_content_and_by_suffix_in_sorted_order(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "JPEG")
    place(
        tmp_path,
        {
            "b/z.bin": TFLITE,  # by content
            "b/a.onnx": b"not a model at all",  # by suffix: reported, so that somebody looks
            "b/A.TFLITE": b"",
            "a/weights": SAFETENSORS,
            "a/readme.md": b"# a model card",
            "a/data.json": b'{"layout": "NCHW"}',
            "a/model.onnx.spec.json": b'{"layout": "NCHW", "shape": [3, 4, 4]}',
            "a/picture.jpg": picture.getvalue(),
            "a/empty.txt": b"",
            "top.pt2": zipped("archive/archive_format", "archive/data/weights/0"),
            "c/deep/er/still.ts": zipped("x/constants.pkl", "x/code/y.py"),
        },
    )
    assert found(tmp_path) == [
        "top.pt2", "a/weights", "b/A.TFLITE", "b/a.onnx", "b/z.bin", "c/deep/er/still.ts",
    ]  # fmt: skip


def test_names_are_where_it_was_found(tmp_path: Path) -> None:
    place(tmp_path, {"x.onnx": b"x"})
    (artifact,) = DirectorySource(str(tmp_path)).artifacts()
    assert artifact.path == tmp_path / "x.onnx"
    assert artifact.name == str(tmp_path / "x.onnx")


def test_a_single_file_is_always_a_suspect(tmp_path: Path) -> None:
    """Whoever names a file wants an answer about it, whatever it is."""
    path = tmp_path / "anything.txt"
    path.write_bytes(b"hello")
    assert [a.path for a in DirectorySource(str(path)).artifacts()] == [path]


def test_links(tmp_path: Path) -> None:
    """Links to files count; links to folders are not followed, so that a loop ends."""
    place(tmp_path / "real", {"x.onnx": b"x"})
    place(tmp_path / "root", {"y.onnx": b"y"})
    root = tmp_path / "root"
    (root / "linked.onnx").symlink_to(tmp_path / "real" / "x.onnx")
    (root / "folder").symlink_to(tmp_path / "real")
    (root / "loop").symlink_to(root)
    (root / "broken.onnx").symlink_to(tmp_path / "nowhere")
    (root / "broken.txt").symlink_to(tmp_path / "nowhere")
    assert found(root) == ["broken.onnx", "linked.onnx", "y.onnx"]
    broken, *_ = DirectorySource(str(root)).artifacts()
    assert broken.finding == Finding("unreadable", "It is a link that leads to no file.")


def test_odd_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")  # opening it would wait for ever
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.onnx").mkdir()
    (pipe,) = DirectorySource(str(tmp_path)).artifacts()
    assert (pipe.path.name, pipe.finding) == ("pipe.onnx", Finding("unreadable", "It is no regular file."))


def test_a_folder_that_can_not_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold models: an audit that passes over it in silence would be taken for complete."""
    place(tmp_path, {"a/x.onnx": b"x", "b/closed/y.onnx": b"y", "c/z.onnx": b"z"})
    plain = os.scandir

    def refusing(folder: str) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", folder)
        return plain(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    told = {a.path.relative_to(tmp_path).as_posix(): a.finding for a in DirectorySource(str(tmp_path)).artifacts()}
    assert told.keys() == {"a/x.onnx", "b/closed", "c/z.onnx"}
    finding = told["b/closed"]
    assert finding is not None and finding.status == "unreadable" and "Permission denied" in finding.reason


def test_what_can_not_be_read(tmp_path: Path) -> None:
    assert not is_model(tmp_path / "absent.bin")
    assert DirectorySource.accepts(str(tmp_path))
    assert not DirectorySource.accepts(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="absent"):
        DirectorySource(str(tmp_path / "absent"))


@pytest.mark.parametrize("suffix", sorted(MODEL_SUFFIXES))
def test_every_model_suffix_counts_in_any_case(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix.upper()}"
    path.write_bytes(b"?")
    assert is_model(path)


@pytest.mark.shared_data
def test_real_models(shared_data: Path) -> None:
    names = found(shared_data / "cifar10")
    assert "akamaster_resnet20.onnx" in names
    assert "akamaster_resnet20.pt2" in names
    assert not any(name.endswith(".json") for name in names)


def test_a_model_in_several_files_is_one_artifact(tmp_path: Path) -> None:
    xml, param = b"<?xml version='1.0'?>\n<net name='m' version='11'/>", b"7767517\n1 1\nInput x 0 1 x\n"
    data = "app/m.mlpackage/Data/com.apple.CoreML"
    place(
        tmp_path,
        {
            "a.xml": xml,
            "a.bin": b"weights",
            "b.v2.param": param,
            "b.v2.bin": b"weights",
            "c.param": param,  # alone: reported, so that somebody looks for its weights
            "d.bin": TFLITE,  # no weights of anything
            "d.xml": xml,
            "page.xml": b"<html><body/></html>",
            "libother.so": b"\x7fELF\2\1\1" + bytes(50),
            "libmodel.so": b"\x7fELF\2\1\1" + bytes(50) + b"__tvm_ffi__library_bin",
            "app/m.mlpackage/Manifest.json": b"{}",
            f"{data}/model.mlmodel": b"\x08\x07\x12\x03abc\xa2\x1f\x02ab",
            f"{data}/weights/weight.bin": b"weights",
            "empty.mlpackage/readme": b"no manifest",
        },
    )
    assert found(tmp_path) == ["a.xml", "b.v2.param", "c.param", "d.bin", "d.xml", "libmodel.so", "app/m.mlpackage"]
    assert found(tmp_path / "app" / "m.mlpackage") == ["."]
