"""MLflow's model registry: `models:/NAME[/VERSION|@ALIAS]`, `mlflow:TRACKING_URI` for all of one.

Files of a local artifact store are read in place; others are downloaded when their turn comes, and removed afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlparse

from fingerprint.errors import MissingExtra, UnreadableModel, UsageError
from fingerprint.sources.interface import Artifact, Finding, Source
from fingerprint.sources.walking import artifact_at, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODELS, SCHEME = "models:/", "mlflow:"
_PAGE = 100  # versions asked for at a time
_SEPARATOR = "\n"  # in a locator, between the kind of source, tracking URI and artifact URI
_LOGGER = "mlflow"


class MlflowSource(Source):
    """A registry, one model, one version or one alias.

    `mlflow:sqlite:////srv/mlflow.db` or `mlflow:https://host` is everything in that registry; followed by
    `#NAME`, `#NAME/VERSION` or `#NAME@ALIAS` a part of it. `models:/...` uses the registry that MLflow is set to.
    """

    name: ClassVar[str] = "mlflow"

    @classmethod
    def accepts(cls, location: str) -> bool:
        """See `Source.accepts`."""
        return location.startswith((MODELS, SCHEME))

    def __init__(self, location: str) -> None:
        if location.startswith(MODELS):
            self.uri: str | None = None
            wanted = location.removeprefix(MODELS)
        else:
            self.uri, _, wanted = location.removeprefix(SCHEME).partition("#")
        self.model, self.version, self.alias = _parse(wanted)
        self._client = _client(self.uri)

    def artifacts(self) -> Iterator[Artifact]:
        """See `Source.artifacts`: models and versions as the registry lists them, a page at a time."""
        from mlflow.exceptions import MlflowException

        try:
            for version in self._versions():
                yield from self._artifacts_of(version)
        except MlflowException as error:
            raise UsageError(
                f"the MLflow registry can't be read: {str(error)[:300]}",
                remedy="Check the URI, MLFLOW_TRACKING_URI, and the name.",
            ) from error

    def _versions(self) -> Iterator[ModelVersion]:
        if self.version is not None:
            yield self._client.get_model_version(self.model, self.version)
        elif self.alias is not None:
            yield self._client.get_model_version_by_alias(self.model, self.alias)
        else:
            quoted = self.model.replace("'", "''")
            chosen, token = f"name = '{quoted}'" if self.model else None, None
            while True:
                page = self._client.search_model_versions(chosen, max_results=_PAGE, page_token=token)
                yield from page
                token = page.token
                if not token:
                    return

    def _artifacts_of(self, version: ModelVersion) -> Iterator[Artifact]:
        name = f"{MODELS}{version.name}/{version.version}" + _aliases(self._client, version)
        uri = self._client.get_model_version_download_uri(version.name, version.version)
        place = _local(uri)
        if place is None:
            locator = _SEPARATOR.join((self.name, self.uri or "", uri))
            yield Artifact(Path(name), name, "remote", locator=locator, asked=True)
        elif place.is_dir():
            yield from walk(place, lambda path: f"{name}/{path.relative_to(place).as_posix()}")
        elif place.is_file():
            found = artifact_at(place, f"{name}/{place.name}")
            yield from [found] if found is not None else []
        else:
            yield Artifact(place, name, finding=Finding("unreadable", f"Its artifacts are not at {place}."))

    @classmethod
    def fetch(cls, locator: str, folder: Path) -> None:
        """See `Source.fetch`: downloads the artifacts of a version."""
        tracking, uri = locator.split(_SEPARATOR)
        _client(tracking or None)
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
        except (MlflowException, OSError, ImportError, ValueError) as error:
            raise UnreadableModel(f"its artifacts can't be downloaded: {str(error)[:300]}") from error


def _parse(wanted: str) -> tuple[str, str | None, str | None]:
    """(name, version, alias); the name is empty for all models."""
    if not wanted:
        return "", None, None
    name, at, alias = wanted.partition("@")
    if at:
        return name, None, alias
    name, slash, version = wanted.partition("/")
    if slash and not version.isdigit():
        raise UsageError(
            f"{MODELS}{wanted} names no version", remedy="Give models:/NAME, models:/NAME/3 or models:/NAME@ALIAS."
        )
    return name, version or None, None


def _client(uri: str | None) -> MlflowClient:
    """A client of the registry. Raises MissingExtra, UsageError."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import logging

        logging.getLogger("alembic").setLevel(logging.WARNING)
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise MissingExtra("MLflow", "mlflow") from None
    logging.getLogger(_LOGGER).setLevel(logging.ERROR)
    place = urlparse(uri or "")
    if place.scheme == "sqlite" and not Path(unquote(place.path[1:])).is_file():
        raise UsageError(f"there is no MLflow database {place.path[1:]}")
    try:
        if uri:
            mlflow.set_tracking_uri(uri)  # what resolves artifact URIs asks the global one
            mlflow.set_registry_uri(uri)
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, ImportError) as error:
        raise UsageError(f"the MLflow registry {uri} can't be used: {str(error)[:300]}") from error


def _aliases(client: MlflowClient, version: ModelVersion) -> str:
    names = sorted(str(alias) for alias in version.aliases or ())
    if not names:  # search results of some stores leave them out
        names = sorted(str(a) for a in client.get_model_version(version.name, version.version).aliases or ())
    return f" ({', '.join(names)})" if names else ""


def _local(uri: str) -> Path | None:
    """The folder of a local artifact URI, else None."""
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):
        return Path(unquote(parsed.path))
    return None
