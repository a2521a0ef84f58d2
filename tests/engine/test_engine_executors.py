"""One contract for all executors: the same answers to the same tasks, little held at a time, and a clean end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.engine.executors.interface import Codec, Executor, Work
from fingerprint.engine.executors.local import LocalExecutor
from fingerprint.engine.executors.shard import ShardExecutor, share_of
from fingerprint.errors import FingerprintError, UsageError


@dataclass
class Square:
    """A task that was begun."""

    work: Squares
    task: int

    def run(self) -> int:
        with self.work.lock:
            self.work.running += 1
            self.work.most = max(self.work.most, self.work.running)
        time.sleep(0.001 * (self.task % 5))
        with self.work.lock:
            self.work.running -= 1
        if self.task < 0:
            raise ValueError("negative")
        return self.task**2

    def drop(self) -> None:
        self.work.dropped.append(self.task)


class Squares(Work[int, int]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.prepared: list[int] = []
        self.dropped: list[int] = []
        self.closed = False

    def prepare(self, task: int) -> Square:
        self.prepared.append(task)
        return Square(self, task)

    def close(self) -> None:
        self.closed = True


class Numbers(Codec[int, int]):
    def key(self, task: int) -> str:
        return f"task {task}"

    def pack(self, task: int) -> str:
        return str(task)

    def unpack(self, text: str) -> int:
        return int(text)

    def encode(self, result: int) -> str:
        return str(result)

    def decode(self, task: int, text: str) -> int:
        return int(text)


def nothing(task: int) -> None:
    del task


def run(executor: Executor, tasks: Iterator[int], make: Callable[[], Squares] = Squares) -> Iterator[int]:
    return executor.run(tasks, make, Numbers(), nothing)


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 4))
def test_answers_come_in_the_order_of_the_tasks(tasks: list[int], workers: int) -> None:
    assert list(run(LocalExecutor(workers), iter(tasks))) == [task**2 for task in tasks]


@given(st.lists(st.integers(0, 1000), max_size=30, unique=True), st.integers(1, 5))
def test_shares_are_disjoint_and_whole(tasks: list[int], count: int) -> None:
    shares = [list(run(ShardExecutor(LocalExecutor(2), i + 1, count), iter(tasks))) for i in range(count)]
    assert sorted(answer for share in shares for answer in share) == sorted(task**2 for task in tasks)
    for i, share in enumerate(shares):
        assert share == [task**2 for task in tasks if share_of(f"task {task}", count) == i + 1]


def test_shares_are_for_ever() -> None:
    """Machines of different releases must agree."""
    assert (share_of("a", 1000), share_of("models/x.onnx", 1000)) == (251, 26)
    assert 1 <= share_of("\udcff", 4) <= 4  # a path that is no text


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/4/2"])
def test_shares_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        ShardExecutor.parse(text, LocalExecutor(1))


def test_tasks_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []
    made: list[Squares] = []

    def tasks() -> Iterator[int]:
        for i in range(1000):
            taken.append(i)
            yield i

    def make() -> Squares:
        made.append(Squares())
        return made[0]

    answers = run(LocalExecutor(3), tasks(), make)
    for _ in range(10):
        next(answers)
    assert len(taken) <= 10 + 2 * 3 + 1
    assert made[0].most <= 3
    answers.close()  # type: ignore[attr-defined]
    assert made[0].closed
    assert len(made) == 1


def test_what_was_prepared_in_vain_is_dropped() -> None:
    made: list[Squares] = []

    def make() -> Squares:
        made.append(Squares())
        return made[0]

    answers = run(LocalExecutor(1), iter(range(4, 400, 5)), make)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    work = made[0]
    assert work.closed and work.running == 0
    assert set(work.dropped) <= set(work.prepared)


def test_what_is_ready_needs_no_work_and_keeps_its_place() -> None:
    made: list[Squares] = []

    def make() -> Squares:
        made.append(Squares())
        return made[0]

    answers = LocalExecutor(2).run(iter(range(20)), make, Numbers(), lambda task: -task if task % 2 else None)
    assert list(answers) == [-task if task % 2 else task**2 for task in range(20)]
    assert made[0].prepared == list(range(0, 20, 2))


def test_an_error_ends_it() -> None:
    with pytest.raises(ValueError, match="negative"):
        list(run(LocalExecutor(2), iter([1, 2, -3, 4])))


# -- Ray -------------------------------------------------------------------------------------------------------------


class _SlowRay:
    """Ray on a machine that is too busy to start it the first times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked, self.ended = failures, list[dict[str, object]](), 0

    def init(self, **asked: object) -> None:
        self.asked.append(asked)
        if len(self.asked) <= self.failures:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.ended += 1


def test_ray_is_started_again_where_the_machine_was_too_busy() -> None:
    from fingerprint.engine.executors.raynode import _STARTS, start

    slow = _SlowRay(failures=_STARTS - 1)
    start(slow, None, 2)
    assert (len(slow.asked), slow.ended) == (_STARTS, _STARTS - 1)
    assert slow.asked[0]["num_cpus"] == 3
    slow = _SlowRay(failures=_STARTS)
    with pytest.raises(FingerprintError, match="does not start here") as caught:
        start(slow, None, 2)
    assert "session_latest" in caught.value.remedy


def test_a_cluster_that_is_not_there_is_asked_once() -> None:
    from fingerprint.engine.executors.raynode import start

    slow = _SlowRay(failures=9)
    with pytest.raises(FingerprintError, match=r"10\.0\.0\.1:6379"):
        start(slow, "10.0.0.1:6379", 2)
    assert len(slow.asked) == 1 and "num_cpus" not in slow.asked[0]


def test_ray_gets_ports_for_its_agents_while_it_starts() -> None:
    """Else a raylet waits 15 seconds for each of them, and dies: too short on a busy machine."""
    from fingerprint.engine.executors.raynode import start

    class RayParams:
        def __init__(
            self, dashboard_agent_listen_port: int = 0, runtime_env_agent_port: int = 0, metrics_agent_port: int = 0
        ) -> None:
            self.ports = {dashboard_agent_listen_port, runtime_env_agent_port, metrics_agent_port}

    class Ray(_SlowRay):
        def __init__(self) -> None:
            super().__init__(failures=1)
            self._private = SimpleNamespace(parameter=SimpleNamespace(RayParams=RayParams))
            self.made: list[set[int]] = []

        def init(self, **asked: object) -> None:
            self.made.append(self._private.parameter.RayParams().ports)
            super().init(**asked)

    ray = Ray()
    start(ray, None, 2)
    assert [len(ports - {0}) for ports in ray.made] == [3, 3] and ray.made[0] != ray.made[1]
    assert ray.asked[1]["_metrics_export_port"] not in {0, *ray.made[1]} and ray.asked[1]["address"] == "local"
    assert ray._private.parameter.RayParams is RayParams, "it is as it was afterwards"
    start(ray, "10.0.0.1:6379", 2)
    assert ray.made[2] == {0}, "the ports of a running cluster are its own"


def killed(folder: Path) -> None:
    """What a run leaves that was killed after its second batch of three: 5, 6, 7, 8."""
    import pyarrow

    from fingerprint.engine.executors.ray import Actor, Assignment, _Manifest

    for name in ("verdicts", "manifest"):
        (folder / name).mkdir()
    with _Manifest(folder / "manifest") as manifest:
        for task in (1, 2, 3, 4, 5, 6, 7, 8, 10):
            manifest.add(str(task))
    given = Assignment(Squares, Numbers(), folder / "manifest", folder / "verdicts", 4)
    found = Actor(given)(pyarrow.table({"id": [1]}))
    assert found.to_pylist() == [{"task": str(n), "verdict": Numbers().encode(n * n)} for n in (5, 6, 7, 8)]
    assert given.texts(2) == ["10"]


def test_batches_of_a_manifest(tmp_path: Path) -> None:
    """Batches never lie in two files, and few tasks are dealt out to all actors."""
    pytest.importorskip("pyarrow")
    from fingerprint.engine.executors.ray import _BATCH, _ROWS, Assignment, _batch_size, _Manifest

    killed(tmp_path)
    assert [_batch_size(count, 2) for count in (1, 4, 7, 8, 63, 64, 10**6)] == [1, 1, 1, 2, 8, 16, _BATCH]
    with _Manifest(tmp_path) as manifest:
        for task in range(_ROWS + 3):
            manifest.add(str(task))
    given = Assignment(Squares, Numbers(), tmp_path, tmp_path, 16)
    batches = -(-manifest.count // 16)
    assert [int(text) for k in range(batches) for text in given.texts(k)] == list(range(_ROWS + 3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_answers_the_same_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # so that actors find this module
    pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    from fingerprint.engine.executors.ray import RayExecutor

    killed(tmp_path)
    tasks = list(range(40))
    answers = list(
        RayExecutor(2, tmp_path).run(iter(tasks), Squares, Numbers(), lambda task: -1 if task == 9 else None)
    )
    assert sorted(answers) == sorted(-1 if task == 9 else task**2 for task in tasks)
    assert answers[:5] == [-1, 25, 36, 49, 64], "what is ready, what was decided, then the rest in its order"
    assert answers[5:] == [task**2 for task in tasks if task not in (5, 6, 7, 8, 9)]
    assert not tmp_path.exists(), "manifest and verdicts are gone once all was read"
