"""Batching: same answers in any batch, fixed batches, the search for a size, and nonsense refused."""

import math
import queue
import threading
import time
from pathlib import Path

import engine_models
import numpy as np
import pytest
from engine_models import FACTORY, IMAGES, NCHW, NHWC, expected, write_onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fingerprint.engine import batching
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.asker import Asker
from fingerprint.engine.batching import BatchTuner, _Search, answer
from fingerprint.engine.local import open_local
from fingerprint.errors import DegenerateModel, ModelError, SpecError, UnreadableModel, UnsupportedModel
from fingerprint.model import InputSpec, Signature
from fingerprint.runtimes.interface import LoadedModel, LoadOptions

OPTIONS = LoadOptions(threads=1, factory=FACTORY)
SPEC = InputSpec("NHWC", (2, 2, 1), channels="L")


class Fake(LoadedModel):
    """Answers (sum, largest) of each image; records its batches; `broken` does things to the answers."""

    def __init__(self, batch: int | None = None, cost=lambda size: 0.0, broken=lambda rows: rows) -> None:
        self.signature = Signature((batch, 2, 2, 1), "float32")
        self.sizes: list[int] = []
        self.cost, self.broken = cost, broken

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        time.sleep(self.cost(len(batch)))
        flat = batch.reshape(len(batch), -1).astype(np.float32)
        return self.broken(np.stack([flat.sum(axis=1), flat.max(axis=1)], axis=1))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)


def ask(model: Fake, count: int, tuner: BatchTuner | None = None) -> np.ndarray:
    return answer(model, Adapter(SPEC, model.signature), images(count), tuner)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.one_of(st.none(), st.integers(1, 50)), st.integers(1, 40), st.integers(0, 3), st.booleans()
)
def test_every_input_is_answered_once_and_in_order(
    count: int, batch: int | None, least: int, calls: int, offloads: bool
) -> None:
    model, tuner = Fake(batch), BatchTuner()
    model.offloads = offloads
    model.batch_range = (least, max(least, 64))
    for _ in range(calls + 1):
        found = ask(model, count, tuner)
    flat = images(count).reshape(count, -1) / np.float32(255)
    np.testing.assert_allclose(found, np.stack([flat.sum(axis=1), flat.max(axis=1)], axis=1), rtol=1e-5)
    if batch is not None:
        assert set(model.sizes) == {batch} and len(model.sizes) == (calls + 1) * math.ceil(count / batch)
    else:
        assert all(least <= size <= max(least, 64) for size in model.sizes)
        assert sum(model.sizes) <= (calls + 1) * count + least * len(model.sizes)


def found_size(rate, *, most: int = 1000, least: int = 1) -> int:
    """The size that the search settles on for a throughput curve."""
    search = _Search(size=32, most=most, least=least)
    for _ in range(20):
        if search.settled:
            break
        search.record(search.size, search.size / rate(search.size))
    assert search.settled
    return search.size


def test_the_search_doubles_while_it_pays() -> None:
    assert found_size(lambda size: 100.0) == 32
    assert found_size(float) == 512
    assert found_size(lambda size: float(min(size, 128))) == 128
    assert found_size(float, most=100) == 64
    assert found_size(lambda size: 100.0 + size / 10) == 512  # small gains add up
    slow_once = iter((9.0, 10.0, 9.0, 12.0, 1.0))
    assert found_size(lambda size: next(slow_once)) == 64
    assert found_size(lambda size: 90.0 if size == 64 else float(size)) == 512


def test_the_search_halves_where_more_is_slower() -> None:
    assert found_size(lambda size: 1000.0 / size) == 1
    assert found_size(lambda size: 1000.0 / size, least=8) == 8
    curve = {1: 90.0, 2: 100.0, 4: 112.0, 8: 111.0, 16: 110.0, 32: 100.0, 64: 70.0}
    assert found_size(curve.__getitem__) == 16
    assert found_size(lambda size: 100.0 - 0.01 * size if size > 16 else 130.0, least=2) == 16  # no step up loses much
    slow_once = iter((9.0, 10.0, 7.0, 5.0, 12.0, 9.0, 9.0, 8.0, 8.0))  # 32, 32, 64, then 16, 8, 4 twice each
    assert found_size(lambda size: next(slow_once)) == 16


def test_a_size_that_cost_little_is_timed_again() -> None:
    """Setting up a shape may take longer than a batch of it: that must not decide."""
    for unit, kept in ((1e-6, 512), (1e-2, 32)):
        search, seen = _Search(size=32, most=1000), set()
        while not search.settled:
            size = search.size
            search.record(size, unit * (size / float(size) ** 0.5 + (0 if size in seen or size == 32 else 50)))
            seen.add(size)
        assert search.size == kept


def test_the_first_batch_does_not_count() -> None:
    search = _Search(size=32, most=1000)
    search.record(32, 1e-9)
    assert not search.settled and search.best == 0
    search.record(16, 1e-9)  # a rest says nothing
    assert search.best == 0


def test_the_next_batch_is_adapted_while_a_device_computes() -> None:
    """Each call of `predict` waits for the next batch to be adapted, which only another thread can do."""
    adapted: queue.Queue[int] = queue.Queue()

    class Counting(Adapter):
        def __call__(self, given: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
            done = super().__call__(given, out)
            adapted.put(len(given))
            return done

    def wait(rows: np.ndarray) -> np.ndarray:
        if len(model.sizes) == 1:
            adapted.get(timeout=60)  # the first batch itself
        if len(model.sizes) < 5:
            adapted.get(timeout=60)
        return rows

    model = Fake(batch=10, broken=wait)
    model.offloads = True
    given = images(50)
    found = answer(model, Counting(SPEC, model.signature), given)
    np.testing.assert_allclose(found, answer(Fake(), Adapter(SPEC, model.signature), given), rtol=1e-6)


def test_a_batch_that_was_not_foreseen_is_adapted_anew() -> None:
    model = Fake()
    model.offloads = True
    given, adapter = images(30), Adapter(SPEC, model.signature)
    with Asker(model, adapter) as asked:
        asked(given[:10], given[10:20])
        np.testing.assert_array_equal(asked(given[20:]), answer(Fake(), adapter, given)[20:])


def test_a_call_between_two_sizes_is_tried_whole() -> None:
    """100 inputs hold 64 and not 128: all at once is tried twice, and kept if it is faster."""
    for rate, kept in ((float, 100), (lambda size: float(size) if size <= 64 else 62.0, 64)):
        search, asked = _Search(size=32, most=1000), []
        for _ in range(6):
            left = 100
            while left:
                asked.append(batching._next_size(search, left))
                search.record(asked[-1], asked[-1] / rate(asked[-1]))
                left -= asked[-1]
        assert not search.settled and search.best == kept
        assert asked.count(100) == (2 if kept == 64 else 4)
        assert asked[-1] == (50 if kept == 64 else 100)


def test_memory_growth_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((0, 10, 2**30))
    monkeypatch.setattr(batching, "resident_bytes", lambda: next(sizes))
    search = _Search(size=32, most=1000)
    for _ in range(3):
        search.record(search.size, 1.0)
    assert search.settled and search.size == 64


def test_a_tuner_remembers() -> None:
    model, tuner = Fake(cost=lambda size: 0.01), BatchTuner()
    ask(model, 300, tuner)
    first, model.sizes[:] = list(model.sizes), []
    ask(model, 300, tuner)
    assert model.sizes[0] > first[0]  # no search again
    assert len(set(model.sizes)) <= 2


@pytest.mark.parametrize(
    ("count", "best", "sizes"),
    [
        (100, 32, [25] * 4),
        (100, 36, [25] * 4),
        (100, 64, [50] * 2),
        (96, 32, [32] * 3),
        (97, 32, [33, 32, 32]),
        (7, 32, [7]),
    ],
)
def test_parts_are_equal_where_they_can_be(count: int, best: int, sizes: list[int]) -> None:
    """Some runtimes plan anew for every change of the batch."""
    search, found = _Search(size=best, most=1000, best=best, settled=True), []
    while count:
        found.append(batching._next_size(search, count))
        count -= found[-1]
    assert found == sizes


def test_tuner_forgets_models_that_are_gone() -> None:
    tuner = BatchTuner()
    ask(Fake(), 5, tuner)
    assert len(tuner._searches) == 0


def test_large_inputs_start_small() -> None:
    tuner = BatchTuner(most_bytes=2**20)
    assert tuner.search(Fake(), 2**18).size == 4
    assert tuner.search(Fake(), 2**22).size == 1
    assert tuner.search(Fake(), 16).size == 32


def test_out_of_memory_halves_the_batch() -> None:
    def limited(rows: np.ndarray) -> np.ndarray:
        if len(rows) > 10:
            raise MemoryError
        return rows

    model = Fake(broken=limited)
    assert len(ask(model, 100)) == 100 and max(model.sizes[2:]) <= 10
    with pytest.raises(MemoryError):
        ask(Fake(batch=20, broken=limited), 100)


def test_a_file_that_bears_single_inputs_only() -> None:
    def picky(rows: np.ndarray) -> np.ndarray:
        if len(rows) > 1:
            raise UnsupportedModel("no")
        return rows

    for broken in (picky, lambda rows: rows.reshape(1, -1)):
        model = Fake(broken=broken)
        assert ask(model, 20).shape == (20, 2) and model.sizes[1:] == [1] * 20


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        (lambda rows: rows * np.nan, DegenerateModel, "NaN or infinity"),
        (lambda rows: rows / 0, DegenerateModel, "NaN or infinity"),
        (lambda rows: rows[:, :0], DegenerateModel, "zero classes"),
        (lambda rows: rows * 0, DegenerateModel, "do not depend"),
        (lambda rows: rows[:-1], DegenerateModel, "for 1 inputs"),
        (lambda rows: np.tile(rows, (1, len(rows))), DegenerateModel, "change width"),
        (lambda rows: rows[:, :1], UnsupportedModel, "one number"),
        (lambda rows: rows[:, 0], UnsupportedModel, "one number"),
        (lambda rows: np.stack([rows, rows], axis=1), UnsupportedModel, "array of shape"),
    ],
)
def test_nonsense(broken, error: type[ModelError], words: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(error, match=words):
        ask(Fake(broken=broken), 40)


def test_constant_answers_need_eight_different_inputs() -> None:
    model = Fake(broken=lambda rows: rows * 0)
    assert ask(model, 7).shape == (7, 2)
    same = np.repeat(images(1), 20, axis=0)
    assert answer(model, Adapter(SPEC, model.signature), same).shape == (20, 2)


def test_no_inputs() -> None:
    assert len(ask(Fake(), 0)) == 0


@pytest.mark.parametrize("shape", [(-1, 2, 1, 1), (-1, 1, 2)])
def test_vectors_in_more_dimensions(shape: tuple[int, ...]) -> None:
    assert ask(Fake(broken=lambda rows: rows.reshape(shape)), 9).shape == (9, 2)


@pytest.mark.parametrize("format", ["pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite"])
def test_files_in_this_process(files: dict[str, Path], format: str) -> None:
    model = open_local(files[format], options=OPTIONS)
    spec = NHWC if format == "tflite" else NCHW
    many = np.concatenate([IMAGES] * 5)
    reference = np.load(engine_models.FIXTURES / "tiny_float_answers.npy") if format == "tflite" else expected()
    np.testing.assert_allclose(model.predict(many, spec), np.concatenate([reference] * 5), atol=1e-4)
    np.testing.assert_allclose(model.predict(IMAGES[:1], spec), reference[:1], atol=1e-4)
    assert model.format == format and model.runtime_version[0].isdigit() and model.weights()


def test_fixed_batches(tmp_path: Path) -> None:
    for path in (write_onnx(tmp_path / "m.onnx", batch=5), engine_models.write_pt2(tmp_path / "m.pt2", batch=5)):
        np.testing.assert_allclose(open_local(path, options=OPTIONS).predict(IMAGES, NCHW), expected(), atol=1e-4)


def test_least_batch_of_a_program(tmp_path: Path) -> None:
    model = open_local(engine_models.write_pt2(tmp_path / "m.pt2", least=4), options=OPTIONS)
    assert model.loaded.batch_range == (4, 64)
    np.testing.assert_allclose(model.predict(IMAGES[:2], NCHW), expected()[:2], atol=1e-4)


def test_a_reshape_to_one_row(tmp_path: Path) -> None:
    model = open_local(write_onnx(tmp_path / "m.onnx", tail="flat"), options=OPTIONS)
    np.testing.assert_allclose(model.predict(IMAGES, NCHW), expected(), atol=1e-4)


def test_local_errors(tmp_path: Path, files: dict[str, Path]) -> None:
    (tmp_path / "noise.bin").write_bytes(b"hello, world")
    with pytest.raises(UnreadableModel, match="known format"):
        open_local(tmp_path / "noise.bin")
    with pytest.raises(SpecError):
        open_local(files["onnx"]).predict(IMAGES, NHWC)


# -- files of a fixed batch, several at a time -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(2, 5))
def test_several_fixed_batches_at_a_time(count: int, batch: int, concurrent: int) -> None:
    """Whatever the numbers, every input is answered once and in order, in batches of the file's size."""
    model = Fake(batch)
    model.concurrent = concurrent
    found = ask(model, count)
    flat = images(count).reshape(count, -1) / np.float32(255)
    np.testing.assert_allclose(found, np.stack([flat.sum(axis=1), flat.max(axis=1)], axis=1), rtol=1e-5)
    assert set(model.sizes) == {batch}
    assert len(model.sizes) == math.ceil(count / batch)


@pytest.mark.parametrize("fixed", [True, False])
def test_they_run_at_the_same_time(fixed: bool) -> None:
    """Two calls meet: neither could return alone. Files that must be asked one by one are such files, too."""
    meeting = threading.Barrier(2, timeout=20)
    model = Fake(1 if fixed else None, broken=lambda rows: (meeting.wait(), rows)[1])
    model.batch_range = (1, 1)
    model.concurrent = 2
    assert len(ask(model, 4)) == 4


def test_an_error_in_one_of_them_is_raised() -> None:
    model = Fake(1, broken=lambda rows: rows[:, :0])
    model.concurrent = 2
    with pytest.raises(DegenerateModel, match="zero classes"):
        ask(model, 6)
    uneven = Fake(1, broken=lambda rows: rows if rows[0, 0] > 2 else np.repeat(rows, 2, axis=1))
    uneven.concurrent = 2
    with pytest.raises(DegenerateModel, match="change width"):
        ask(uneven, 40)


def test_onnx_files_of_a_fixed_batch_answer_so(tmp_path: Path) -> None:
    fixed = open_local(write_onnx(tmp_path / "fixed.onnx", batch=1), options=LoadOptions(threads=2))
    assert fixed.loaded.concurrent == 2
    np.testing.assert_allclose(fixed.predict(IMAGES, NCHW), expected(), atol=1e-4)
    assert open_local(write_onnx(tmp_path / "open.onnx"), options=LoadOptions(threads=2)).loaded.concurrent == 1


# -- files that were converted for one batch and bear others ---------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 9))
def test_little_work_is_done_in_the_file_s_own_batch(count: int, own: int) -> None:
    model = Fake()
    model.own_batch = own
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "_WORTH_S", 1e6)  # however busy the machine is
        found = ask(model, count)
    flat = images(count).reshape(count, -1) / np.float32(255)
    np.testing.assert_allclose(found, np.stack([flat.sum(axis=1), flat.max(axis=1)], axis=1), rtol=1e-5)
    if count > 2 * own:
        assert set(model.sizes) == {own}


def test_much_work_is_worth_another_batch() -> None:
    model = Fake(cost=lambda size: 5e-3)
    model.own_batch = 1
    assert len(ask(model, 100)) == 100
    assert max(model.sizes) > 1


def test_what_is_asked_again_and_again_is_worth_another_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work each time, and much all told: the own size is left for a better one."""
    monkeypatch.setattr(batching, "_WORTH_S", 1e6)
    model, tuner = Fake(), BatchTuner()
    model.own_batch = 1
    ask(model, 60, tuner)
    assert set(model.sizes) == {1}
    (search,) = tuner._searches.values()
    assert search.own_s > 0
    search.own_s, model.sizes[:] = 2e6, []
    ask(model, 60, tuner)
    assert max(model.sizes) > 1
