"""Which files an owner may come in."""

from pathlib import Path

import pytest

from fingerprint.api.owner import Owner
from fingerprint.errors import UnsupportedModel


def test_formats_whose_weights_cannot_be_edited_are_refused_where_copies_are_needed(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "m.xml").write_text("<?xml version='1.0'?>\n<net name='m' version='11'/>")
    (tmp_path / "m.bin").write_bytes(b"weights")
    for name in ("m.xml", "m.bin"):
        with pytest.raises(UnsupportedModel, match="weights can't be edited") as caught:
            Owner(tmp_path / name, None)
        assert ".onnx" in caught.value.remedy


def test_other_formats_keep_their_own_words(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(UnsupportedModel, match="no runtime of this release executes"):
        Owner(tmp_path / "m.gguf", None)
