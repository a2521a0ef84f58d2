"""MLflow's registry: a real one in SQLite, with versions, aliases and more than a page of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_files import TFLITE, zipped

from fingerprint.errors import UsageError
from fingerprint.sources import mlflow as source
from fingerprint.sources.containers import opened
from fingerprint.sources.interface import Artifact
from fingerprint.sources.mlflow import MlflowSource
from fingerprint.sources.registry import open_source

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two models: `net` of three versions, the last with an alias and its files gone, and `app`, an archive."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    for name in ("net", "app"):
        client.create_registered_model(name)
    for number in (1, 2):
        place = folder / f"v{number}" / "data"
        place.mkdir(parents=True)
        (place / "model").write_bytes(TFLITE + bytes([number]))
        (place.parent / "MLmodel").write_text("flavors: {}")
        client.create_model_version("net", source=str(place.parent))
    client.create_model_version("net", source=str(folder / "gone"))
    (folder / "app.apk").write_bytes(zipped({"assets/m": TFLITE}))
    client.create_model_version("app", source=(folder / "app.apk").as_uri())
    client.set_registered_model_alias("net", "champion", "2")
    return uri


def names(location: str) -> list[tuple[str, str | None]]:
    found = open_source(location).artifacts()
    return sorted((a.name, a.finding.status if a.finding else None) for a in found)


NET_2 = ("models:/net/2 (champion)/data/model", None)


def test_everything_in_a_registry(registry: str) -> None:
    assert names(f"mlflow:{registry}") == [
        ("models:/app/1/app.apk", None), ("models:/net/1/data/model", None), NET_2, ("models:/net/3", "unreadable"),
    ]  # fmt: skip


def test_pages_are_turned(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_PAGE", 1)
    assert len(names(f"mlflow:{registry}")) == 4


def test_parts_of_a_registry(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(f"mlflow:{registry}#net/2") == names(f"mlflow:{registry}#net@champion") == [NET_2]
    assert len(names(f"mlflow:{registry}#net")) == 3
    mlflow.set_tracking_uri(registry)
    mlflow.set_registry_uri(registry)
    assert names("models:/net/2") == [NET_2]


@pytest.mark.parametrize("wanted", ["#none/1", "#net/x", "#net@none"])
def test_what_is_not_there(wanted: str, registry: str) -> None:
    with pytest.raises(UsageError):
        list(open_source(f"mlflow:{registry}{wanted}").artifacts())


def test_a_registry_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no MLflow database"):
        MlflowSource(f"mlflow:sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists(), "asking makes no database"


def test_what_is_not_local_is_fetched_and_removed(registry: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "model").write_bytes(TFLITE)
    locator = "\n".join(("mlflow", registry, (tmp_path / "store").as_uri()))
    with opened(Artifact(tmp_path, "models:/far/1", "remote", locator=locator)) as inner:
        found = next(inner)
        assert found.name.startswith("models:/far/1/") and found.path.read_bytes() == TFLITE
        assert (tmp_path / "store") not in found.path.parents
        place = found.path
    assert not place.exists()
    gone = "\n".join(("mlflow", registry, (tmp_path / "none").as_uri()))
    with opened(Artifact(tmp_path, "models:/far/2", "remote", locator=gone)) as inner:
        (missing,) = inner
        assert missing.finding is not None and missing.finding.status == "unreadable"
