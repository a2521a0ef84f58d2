"""Models in several files: the main file, its companions, one digest."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from engine_models import SHARED

from fingerprint.engine.sealed import SealedFile
from fingerprint.errors import UnreadableModel
from fingerprint.limits import DEFAULT
from fingerprint.runtimes.parts import companions, is_package, main_file, main_part, model_sha256
from fingerprint.spec import find_spec

XML = b"<?xml version='1.0'?>\n<net name='m' version='11'><layers/></net>"
PARAM = b"7767517\n1 1\nInput x 0 1 x\n"
BINARY = (7767517).to_bytes(4, "little") + bytes(20)
TFLITE = b"\x1c\x00\x00\x00TFL3" + bytes(40)


def placed(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_either_of_two_files_names_the_model(tmp_path: Path) -> None:
    placed(tmp_path, a__xml=XML, a__bin=b"w", b__v1__param=PARAM, b__v1__bin=b"w", c__param__bin=BINARY, c__bin=b"w")
    for main, weights in (("a.xml", "a.bin"), ("b.v1.param", "b.v1.bin"), ("c.param.bin", "c.bin")):
        assert main_file(tmp_path / main) == main_file(tmp_path / weights) == tmp_path / main


def test_weights_are_a_companion_only_of_a_network(tmp_path: Path) -> None:
    placed(
        tmp_path, a__xml=b"<plist/>", a__bin=b"w", b__param=PARAM, b__bin=TFLITE, c__bin=b"w", d__onnx=XML, d__bin=b"w"
    )
    for name in ("a.bin", "b.bin", "c.bin", "d.bin"):  # a model of its own is never hidden behind another
        assert main_file(tmp_path / name) == tmp_path / name


def test_missing_weights_are_named(tmp_path: Path) -> None:
    placed(tmp_path, a__xml=XML)
    with pytest.raises(UnreadableModel, match=r"there is no a\.bin beside a\.xml") as caught:
        companions(tmp_path / "a.xml", "openvino")
    assert "a.bin" in caught.value.remedy
    with pytest.raises(UnreadableModel, match=r"a\.bin"):
        SealedFile.of(tmp_path / "a.xml")
    placed(tmp_path, b__bin=XML)  # a network under the name of its weights
    with pytest.raises(UnreadableModel, match="weights are missing"):
        companions(tmp_path / "b.bin", "openvino")


def test_digest_covers_all_parts_and_no_name(tmp_path: Path) -> None:
    placed(
        tmp_path, a__xml=XML, a__bin=b"weights", other__xml=XML, other__bin=b"weights", c__xml=XML, c__bin=b"Weights"
    )
    parts = (("model.bin", b"weights"), ("model.xml", XML))
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in parts)
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert model_sha256(tmp_path / "a.xml") == model_sha256(tmp_path / "a.bin") == (expected, len(XML) + 7)
    assert model_sha256(tmp_path / "other.xml")[0] == expected != model_sha256(tmp_path / "c.xml")[0]
    for given in ("a.xml", "a.bin"):
        with SealedFile.of(tmp_path / given) as sealed:
            assert (sealed.sha256, sealed.size, sealed.format) == (expected, len(XML) + 7, "openvino")
            assert [part.name for part in sealed.parts] == ["model.xml", "model.bin"]


def test_the_size_limit_holds_for_the_sum(tmp_path: Path) -> None:
    placed(tmp_path, a__xml=XML, a__bin=bytes(50))
    for most, fits in ((len(XML) + 50, True), (len(XML) + 49, False)):
        limits = replace(DEFAULT, model_bytes=most)
        if fits:
            SealedFile.of(tmp_path / "a.xml", limits).close()
        else:
            with pytest.raises(UnreadableModel, match="more than the limit"):
                SealedFile.of(tmp_path / "a.xml", limits)


def test_one_file_keeps_its_plain_digest(tmp_path: Path) -> None:
    placed(tmp_path, a__tflite=TFLITE)
    assert model_sha256(tmp_path / "a.tflite") == (hashlib.sha256(TFLITE).hexdigest(), len(TFLITE))
    assert companions(tmp_path / "a.tflite", "tflite") == {} and main_part("tflite") == main_part(None) == ""


def package(folder: Path, files: int = 1) -> Path:
    data = folder / "m.mlpackage" / "Data" / "com.apple.CoreML"
    (data / "weights").mkdir(parents=True)
    (folder / "m.mlpackage" / "Manifest.json").write_text("{}")
    (data / "model.mlmodel").write_bytes(b"\x08\x07\x12\x03abc\xa2\x1f\x02ab")
    for number in range(files):
        (data / "weights" / f"{number}.bin").write_bytes(b"w")
    return folder / "m.mlpackage"


def test_packages(tmp_path: Path) -> None:
    path = package(tmp_path)
    assert is_package(path) and not is_package(tmp_path)
    with SealedFile.of(path) as sealed:
        names = [part.name for part in sealed.parts]
        assert sealed.format == "coreml" and sealed.sha256 == model_sha256(path)[0]
    root = "Data/com.apple.CoreML"
    assert names == [f"{root}/model.mlmodel", "Manifest.json", f"{root}/weights/0.bin"]
    (path / root / "weights" / "0.bin").write_bytes(b"W")
    assert model_sha256(path)[0] != sealed.sha256


def test_a_package_with_too_many_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="more than 64 files"):
        SealedFile.of(package(tmp_path, 70))


def test_links_in_a_package_are_not_followed(tmp_path: Path) -> None:
    path = package(tmp_path)
    (path / "secret").symlink_to("/etc/passwd")
    assert all("secret" not in name for name in companions(main_file(path), "coreml"))


def test_the_sidecar_of_the_network_serves_for_both(tmp_path: Path) -> None:
    placed(tmp_path, a__xml=XML, a__bin=b"w")
    (tmp_path / "a.xml.spec.json").write_text('{"layout": "NCHW", "shape": [3, 4, 4]}')
    found = [find_spec(tmp_path / name, None) for name in ("a.xml", "a.bin")]
    assert found[0] is not None and found[0] == found[1]


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_a_real_pair() -> None:
    weights = SHARED / "mobile" / "squeezenet_v1.1.bin"
    assert main_file(weights).name == "squeezenet_v1.1.param"
