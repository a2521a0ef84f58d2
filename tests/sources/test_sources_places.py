"""Hub caches, OCI layouts, lists, manifests and standard input."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import pytest
from source_files import SAFETENSORS, TFLITE, tarred

from fingerprint.errors import UsageError
from fingerprint.sources.containers import opened
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.hub import HubSource, cache_folder
from fingerprint.sources.lists import ListSource, ManifestSource
from fingerprint.sources.oci import OciSource
from fingerprint.sources.registry import BUILT_IN, open_source, source_named

REVISIONS = ("a" * 40, "b" * 40)
PREPARED = {
    "do_rescale": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2],
    "size": {"height": 32, "width": 48},
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """One repository of two revisions that share a file, as the hub's client writes it."""
    repository = tmp_path / "hub" / "models--acme--net"
    first = {"onnx/model": TFLITE}
    second = {**first, "model.safetensors": SAFETENSORS}
    for revision, files in zip(REVISIONS, (first, second), strict=True):
        snapshot = repository / "snapshots" / revision
        documents = {
            "config.json": {"architectures": ["ViTForImageClassification"], "id2label": {"0": "a", "1": "b"}},
            "preprocessor_config.json": PREPARED,
        }
        contents = {**files, **{name: json.dumps(value).encode() for name, value in documents.items()}}
        for name, content in contents.items():
            blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link = snapshot / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path("../" * len(link.parent.relative_to(repository).parts)) / "blobs" / blob.name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISIONS[1])
    (tmp_path / "hub" / "datasets--acme--images").mkdir()
    return tmp_path / "hub"


def test_a_hub_cache_in_place(hub: Path) -> None:
    found = list(HubSource(str(hub)).artifacts())
    assert [a.name for a in found] == [
        "hf:acme/net@aaaaaaaaaaaa/onnx/model",
        "hf:acme/net@bbbbbbbbbbbb (main)/model.safetensors",
        "hf:acme/net@bbbbbbbbbbbb (main)/onnx/model",
    ]
    assert all(a.path.is_symlink() for a in found)
    spec = found[0].spec
    assert spec is not None and spec.shape == (3, 32, 48) and spec.mean == (0.5, 0.4, 0.3) and spec.classes == 2
    assert "ViTForImageClassification" in found[1].note
    assert isinstance(open_source(str(hub)), HubSource) and isinstance(
        open_source(str(hub / "models--acme--net")), HubSource
    )


def test_a_hub_cache_inside_a_folder_is_read_once(hub: Path) -> None:
    """Not its blobs and its snapshots."""
    names = [a.name for a in DirectorySource(str(hub.parent)).artifacts()]
    assert len(names) == 3 and all(name.startswith("hf:acme/net@") for name in names)


def test_a_hub_model_by_name(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    assert cache_folder() == hub
    assert len(list(open_source("hf:acme/net").artifacts())) == 3
    with pytest.raises(UsageError, match="no hub cache"):
        open_source("hf:acme/other")


@pytest.mark.parametrize(
    "change",
    [
        {"do_rescale": False},
        {"image_mean": "x"},
        {"image_std": [0, 1, 1]},
        {"size": {}},
        {"size": {"height": -1, "width": 3}},
    ],
)
def test_configurations_that_say_nothing_usable(change: dict[str, object], hub: Path) -> None:
    for path in hub.rglob("preprocessor_config.json"):
        path.unlink()
        path.write_text(json.dumps({**PREPARED, **change}))
    assert {a.spec for a in HubSource(str(hub)).artifacts()} == {None}


def test_a_timm_configuration(hub: Path) -> None:
    timm = {"input_size": [3, 8, 8], "mean": [0.1] * 3, "std": [0.2] * 3, "num_classes": 5}
    config = {"architecture": "x", "pretrained_cfg": timm}
    for path in hub.rglob("config.json"):
        path.unlink()
        path.write_text(json.dumps(config))
    spec = next(HubSource(str(hub)).artifacts()).spec
    assert spec is not None and (spec.shape, spec.classes) == ((3, 8, 8), 5)


# -- OCI -------------------------------------------------------------------------------------------------------------


def blob(layout: Path, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": "application/octet-stream"}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A manifest with a model as a layer and an image layer, below an index of an index."""
    folder = tmp_path / "layout"
    model = {**blob(folder, TFLITE), "annotations": {"org.opencontainers.image.title": "net.tflite"}}
    image = blob(folder, tarred({"srv/model.bin": SAFETENSORS}))
    gone = {"digest": "sha256:" + "0" * 64}
    bad = {"digest": "sha256:../../../etc/passwd"}
    manifest = blob(folder, json.dumps({"layers": [model, image, gone, bad]}).encode())
    inner = blob(folder, json.dumps({"manifests": [manifest]}).encode())
    tagged = {**inner, "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (folder / "index.json").write_text(json.dumps({"manifests": [tagged]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def test_an_oci_layout(layout: Path) -> None:
    found = list(open_source(str(layout)).artifacts())
    names = [a.name.removeprefix(str(layout)) for a in found]
    assert names[0] == "@v1/net.tflite" and found[0].kind == "file"
    assert names[1].startswith("@v1/sha256:") and found[1].kind == "archive"
    with opened(found[1]) as inner:
        assert [a.name.rpartition("!/")[2] for a in inner] == ["srv/model.bin"]
    assert [a.finding.status for a in found[2:] if a.finding] == ["unreadable", "unreadable"]
    assert [a.name for a in DirectorySource(str(layout.parent)).artifacts()] == [a.name for a in found]


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"manifests": [1]}', '{"manifests": [{"digest": "x"}]}', "[" * 10_000]
)
def test_broken_layouts_are_results(index: str, layout: Path) -> None:
    (layout / "index.json").write_text(index)
    assert [a.finding.status for a in OciSource(str(layout)).artifacts() if a.finding] == ["unreadable"]


# -- lists -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name in ("a b", "folder/b"):
        (tmp_path / name).write_bytes(TFLITE)
    return tmp_path


def names(source: object, root: Path) -> list[tuple[str, str | None]]:
    return [
        (str(Path(a.name).relative_to(root)), a.finding and a.finding.status)
        for a in source.artifacts()  # type: ignore[attr-defined]
    ]


EXPECTED = [("a b", None), ("folder/b", None), ("gone", "unreadable")]


@pytest.mark.parametrize(("separator", "end"), [("\n", "\n"), ("\r\n", ""), ("\0", "\0"), ("\n\n", "\n\n")])
def test_a_list_file(separator: str, end: str, listed: Path) -> None:
    text = separator.join(str(listed / name) for name in ("a b", "folder", "gone")) + end
    (listed / "list.txt").write_text(text, newline="")
    assert names(ListSource(f"@{listed / 'list.txt'}"), listed) == EXPECTED
    assert isinstance(open_source(f"@{listed / 'list.txt'}"), ListSource)


def test_standard_input_is_read_as_it_comes(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(f"{listed}/a b\n{listed}/gone".encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert names(open_source("-"), listed) == [EXPECTED[0], EXPECTED[2]]


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no list"):
        ListSource(f"@{tmp_path / 'none'}")
    (tmp_path / "long").write_bytes(b"x" * 200_000)
    with pytest.raises(UsageError, match="path of more than"):
        list(ListSource(f"@{tmp_path / 'long'}").artifacts())


def test_a_parquet_manifest(listed: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"id": [1, 2, 3, 4], "path": ["a b", "folder", None, "gone"]})
    parquet.write_table(table, listed / "manifest")
    source = open_source(str(listed / "manifest"))
    assert isinstance(source, ManifestSource)
    assert names(source, listed) == EXPECTED
    parquet.write_table(table.select(["id"]), listed / "other")
    with pytest.raises(UsageError, match="no column 'path'"):
        open_source(str(listed / "other"))
    (listed / "cut").write_bytes((listed / "manifest").read_bytes()[:40])
    with pytest.raises(UsageError, match="can't be read"):
        open_source(str(listed / "cut"))


def test_every_kind_has_its_name_and_unknown_places_are_usage_errors(tmp_path: Path) -> None:
    for name in BUILT_IN:
        assert source_named(name).name == name
    with pytest.raises(UsageError, match="no such file"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no source"):
        source_named("none")
