"""Ray Data: actors that hold the fingerprints read a Parquet manifest of paths and write Parquet verdicts.

The manifest holds paths, never bytes: every node must see the files under the same paths. Actors write what they have
decided before they take the next batch, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fingerprint.engine.executors import raynode
from fingerprint.engine.executors.interface import Codec, Executor, Ready, Work
from fingerprint.errors import MissingExtra
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")
R = TypeVar("R")
_ROWS = 1024  # of the manifest in a file
_MOST_BLOCKS = 10_000  # that Ray plans at a time
_BATCH = (
    16  # tasks that an actor takes at a time: what a kill may cost; a power of two, so that no batch is in two files
)


class RayExecutor(Executor):
    """Runs on a cluster by its address, or on this machine.

    Args:
        workers: actors, each with one CPU of Ray's.
        folder: where manifest and verdicts lie; all nodes must see it. Kept until all results were read.
        address: of a running cluster; None starts Ray on this machine.
    """

    name = "ray"

    def __init__(self, workers: int, folder: Path, address: str | None = None) -> None:
        self.workers, self.folder, self.address = workers, folder, address
        _modules()

    def run(
        self, tasks: Iterable[T], make: Callable[[], Work[T, R]], codec: Codec[T, R], ready: Ready[T, R]
    ) -> Iterator[R]:
        """See `Executor.run`: what is ready or was decided before comes first, then the others in their order."""
        from pyarrow import parquet

        verdicts, manifest = self.folder / "verdicts", self.folder / "manifest"
        verdicts.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(manifest, ignore_errors=True)
        manifest.mkdir()
        decided = _decided(verdicts)
        kept: set[bytes] = set()
        with _Manifest(manifest) as pending:
            for task in tasks:
                known = ready(task)
                if known is not None:
                    yield known
                elif (name := _name(codec.key(task))) in decided:
                    kept.add(name)
                else:
                    pending.add(codec.pack(task))
        for path in decided.files if kept else ():
            for row in parquet.read_table(path).to_pylist():
                task = codec.unpack(row["task"])
                if _name(codec.key(task)) in kept:
                    yield codec.decode(task, row["verdict"])
        if pending.count:
            with _cluster(self.address, self.workers) as ray:
                given = Assignment(make, codec, manifest, verdicts, _batch_size(pending.count, self.workers))
                for row in _answers(ray, -(-pending.count // given.size), self.workers, given):
                    yield codec.decode(codec.unpack(row["task"]), row["verdict"])
        shutil.rmtree(self.folder, ignore_errors=True)


class _Decided(set[bytes]):
    """Names of the tasks that an earlier run decided, and the files that say how."""

    files: tuple[Path, ...] = ()


def _decided(folder: Path) -> _Decided:
    from pyarrow import parquet

    found = _Decided()
    found.files = tuple(sorted(folder.glob("*.parquet")))
    for path in found.files:
        found.update(parquet.read_table(path, columns=["name"]).column(0).to_pylist())
    return found


def _name(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:16]


class _Manifest:
    """Parquet files with the column `task`, written as tasks come. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._rows, self._files = folder, list[str](), 0
        self.count = 0

    def add(self, text: str) -> None:
        """One task more."""
        self._rows.append(text)
        self.count += 1
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            import pyarrow
            from pyarrow import parquet

            table = pyarrow.table({"task": pyarrow.array(self._rows, pyarrow.string())})
            parquet.write_table(table, _part(self._folder, self._files))
            self._rows, self._files = [], self._files + 1

    def __enter__(self) -> _Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()


def _part(manifest: Path, number: int) -> Path:
    return manifest / f"part-{number:06}.parquet"


def _batch_size(count: int, workers: int) -> int:
    """A power of two: small enough that every actor has some of few tasks."""
    size = _BATCH
    while size > 1 and count < 2 * workers * size:
        size //= 2
    return size


@dataclass(frozen=True)
class Assignment(Generic[T, R]):
    """What an actor needs. size: tasks of a batch."""

    make: Callable[[], Work[T, R]]
    codec: Codec[T, R]
    manifest: Path
    verdicts: Path
    size: int

    def texts(self, batch: int) -> list[str]:
        """The tasks of a batch."""
        from pyarrow import parquet

        part, first = divmod(batch * self.size, _ROWS)
        table = parquet.read_table(_part(self.manifest, part), columns=["task"])
        found: list[str] = table.column("task").slice(first, self.size).to_pylist()
        return found


class Actor(Generic[T, R]):
    """One worker of the cluster: it makes the work once, and answers batches of the manifest."""

    def __init__(self, given: Assignment[T, R]) -> None:
        self._given, self._work = given, given.make()

    def __call__(self, numbers: pyarrow.Table) -> pyarrow.Table:
        """The verdicts (columns task, verdict) of batches (column id); each is written before it is returned."""
        import pyarrow

        return pyarrow.concat_tables(self._batch(number) for number in numbers.column("id").to_pylist())

    def _batch(self, number: int) -> pyarrow.Table:
        import pyarrow
        from pyarrow import parquet

        codec, texts = self._given.codec, self._given.texts(number)
        tasks = [codec.unpack(text) for text in texts]
        made: list[str] = []
        prepared = self._work.prepare(tasks[0]) if tasks else None
        for i in range(len(tasks)):
            current, prepared = prepared, self._work.prepare(tasks[i + 1]) if i + 1 < len(tasks) else None
            assert current is not None  # noqa: S101  (there is one for every task)
            made.append(codec.encode(current.run()))
        names = [_name(codec.key(task)) for task in tasks]
        table = pyarrow.table({"name": names, "task": texts, "verdict": made})
        target = self._given.verdicts / f"{hashlib.sha256(b''.join(names)).hexdigest()[:32]}.parquet"
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        parquet.write_table(table, temporary)
        temporary.replace(target)
        return table.select(["task", "verdict"])


def _answers(
    ray: Any,  # noqa: ANN401
    batches: int,
    workers: int,
    given: Assignment[Any, Any],
) -> Iterator[dict[str, str]]:
    """Rows of task and verdict, in the order of the manifest.

    Ray deals out numbers of batches, and actors read the manifest themselves: how Ray cuts Parquet files into blocks
    differs between its releases, and one block would leave all but one actor without work.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = ray.data.range(batches, override_num_blocks=min(_MOST_BLOCKS, batches))
    rows = rows.map_batches(
        Actor,
        fn_constructor_args=(given,),
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


@contextmanager
def _cluster(address: str | None, workers: int) -> Iterator[Any]:
    """Ray, connected or started; ended again if it was started here."""
    ray = _modules()
    started = not ray.is_initialized()
    if started:
        raynode.start(ray, address, workers)
    try:
        yield ray
    finally:
        if started:
            with suppress(Exception):
                ray.shutdown()


def _modules() -> Any:  # noqa: ANN401
    """Ray with Ray Data, which sends nothing home. Raises MissingExtra."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    raynode.patience()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ImportError:
        raise MissingExtra("Ray", "ray") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
