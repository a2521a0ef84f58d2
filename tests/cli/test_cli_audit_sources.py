"""One command over places of all kinds: a real app, a hub cache and an MLflow registry."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from cli_tool import Tool  # type: ignore[import-not-found]

REVISION = "4f2a" * 10


@pytest.fixture
def hub(models: Path, tmp_path: Path) -> Path:
    """A hub cache as its client writes it: blobs by digest, a revision of links; a derivative and a stranger."""
    repository = tmp_path / "hub" / "models--acme--net"
    snapshot = repository / "snapshots" / REVISION
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, source in (("model.onnx", "derived.onnx"), ("other.onnx", "strangers/net-0.onnx")):
        for suffix in ("", ".spec.json"):
            content = (models / f"{source}{suffix}").read_bytes()
            blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            (snapshot / f"{name}{suffix}").symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return tmp_path / "hub"


@pytest.fixture
def registry(models: Path, tmp_path: Path) -> str:
    """An MLflow registry in SQLite: a model of two versions, a stranger's and the owner's own, which has an alias."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("net")
    for number, source in enumerate(("strangers/net-0.onnx", "owner.onnx"), start=1):
        data = tmp_path / f"v{number}" / "data"
        data.mkdir(parents=True)
        for suffix in ("", ".spec.json"):
            shutil.copy(models / f"{source}{suffix}", data / f"model.onnx{suffix}")
        (data.parent / "MLmodel").write_text("flavors: {}")
        client.create_model_version("net", source=str(data.parent))
    client.set_registered_model_alias("net", "champion", "2")
    return uri


@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore")
def test_an_app_a_hub_cache_and_a_registry_in_one_command(
    copied: Tool, shared_data: Path, hub: Path, registry: str
) -> None:
    app = shared_data / "mobile" / "flower_app.apk"
    done = copied("audit", app, hub, f"mlflow:{registry}", "-f", "json", "--workers", "2")
    assert done.code == 1, done.err  # there are derivatives
    found = {r["suspect"]["path"]: (r["verdict"] or {}).get("lineage") for r in done.json["results"]}
    net = f"hf:acme/net@{REVISION[:12]} (main)"
    assert {path: lineage for path, lineage in found.items() if ".apk!" not in path} == {
        f"{net}/model.onnx": "derived",
        f"{net}/other.onnx": "unrelated",
        "models:/net/1/data/model.onnx": "unrelated",
        "models:/net/2 (champion)/data/model.onnx": "derived",
    }
    inside = {f"{app}!/assets/model (1).tflite", f"{app}!/assets/model.tflite"}
    assert inside == {path for path in found if ".apk!" in path}
    assert "derived" not in {found[path] for path in inside}, "a classifier of flowers is no derivative"
    assert {r["suspect"]["format"] for r in done.json["results"] if r["suspect"]["path"] in inside} == {"tflite"}
