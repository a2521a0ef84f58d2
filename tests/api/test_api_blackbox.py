"""verify against suspects that are no file: endpoints on loopback, and functions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from api_world import World

from fingerprint.api.answers import draw
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import UsageError
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import ForgottenExposures, RemoteOptions
from fingerprint.remote.places import is_file
from fingerprint.spec import load_spec

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from oip_server import Server

FAST = RemoteOptions(retries=0, timeout_s=20)


@contextmanager
def serving(path: Path, *, binary: bool = True) -> Iterator[Server]:
    with Server(path, "m", binary=binary, threads=1) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def run(
    record: Fingerprint, pool: WorkerPool, place: str, exposures: ForgottenExposures | None = None, **options: object
) -> Result:
    settings = VerifyOptions(**{"alpha": 0.05, "remote": FAST, "sequential": False, **options})  # type: ignore[arg-type]
    (result,) = verify([place], [record], settings, pool=pool, exposures=exposures)
    return result


@pytest.fixture(scope="module")
def spec(world: World):  # type: ignore[no-untyped-def]
    return load_spec(Path(f"{world.pruned_onnx}.spec.json"))


# -- endpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_an_endpoint_gives_the_files_verdict(
    binary: bool, world: World, record: Fingerprint, pool: WorkerPool, spec: object
) -> None:
    (file,) = verify([world.pruned_onnx], [record], VerifyOptions(alpha=0.05), pool=pool)
    with serving(world.pruned_onnx, binary=binary) as server:
        result = run(record, pool, server.url, spec=spec)
    assert result.status == "decided", result.reason
    assert result.verdict is not None and file.verdict is not None
    assert result.lineage == "derived"
    assert [f.matches for f in result.verdict.families] == [f.matches for f in file.verdict.families]
    assert result.verdict.queries == 60 + 4  # four inputs are sent twice, to see whether the answers are random
    assert result.suspect.sha256 is None
    assert (result.suspect.path, result.suspect.format, result.suspect.runtime) == (server.url, "endpoint", "oip")


def test_without_a_spec_clean_images_settle_it_within_the_budget(
    world: World, record: Fingerprint, pool: WorkerPool
) -> None:
    with serving(world.pruned_onnx) as server:
        whole = run(record, pool, server.url, budget=2000, alpha=0.2)  # which is divided among equally good settings
        small = run(record, pool, server.url, budget=150)
        none = run(record, pool, server.url, budget=20)
    for result, budget in ((whole, 2000), (small, 150), (none, 20)):
        assert result.verdict is not None, result.reason
        assert result.verdict.queries <= budget
    assert whole.adaptation is not None and whole.adaptation["origin"] == "settled on clean images"
    assert whole.lineage == "derived"
    assert small.verdict is not None and small.verdict.queries > 75  # half to settle, half for the probes
    assert none.lineage == "inconclusive" and none.verdict is not None and "budget" in none.verdict.reason
    assert none.verdict.queries == 0


def test_step_by_step_asks_no_more_than_one_by_one_would(
    record: Fingerprint,
    pool: WorkerPool,
    owner_function: Callable[[np.ndarray], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the same order: as many probes, in fewer questions."""
    monkeypatch.setattr("fingerprint.api.questioning.FIRST", 1)
    monkeypatch.setattr("fingerprint.api.questioning.secrets.randbits", lambda bits: 20_261_128)
    sent: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        sent.append(len(images))
        return owner_function(images)

    def asked() -> list[int]:
        sent.clear()
        with function("mine", counted):
            assert run(record, pool, "mine:answer", sequential=True).lineage == "derived"
        return list(sent)

    several = asked()
    monkeypatch.setattr("fingerprint.decision.sequential.SequentialTest.soonest", lambda self, ahead: 1)
    assert sum(several) == sum(one := asked()) and len(several) < len(one)


def test_a_budget_holds_for_all_inputs_of_all_fingerprints(
    world: World, record: Fingerprint, pool: WorkerPool, spec: object
) -> None:
    other = replace(record, manifest=record.manifest.model_copy(update={"name": "second"}))
    sent: list[int] = []

    def count(images: np.ndarray) -> np.ndarray:
        sent.append(len(images))
        return np.random.default_rng(len(sent)).random((len(images), 10)).astype(np.float32)

    options = VerifyOptions(alpha=0.05, budget=45, repeat=2, remote=FAST)
    with function("counted", count):
        found = list(verify(["counted:answer"], [record, other], options, pool=pool))
    assert sum(sent) <= 45
    assert sum(r.verdict.queries for r in found if r.verdict is not None) == sum(sent) == 44
    with function("counted", count):
        found = list(verify(["counted:answer"], [record, other], replace(options, budget=3), pool=pool))
    assert {r.lineage for r in found} == {"inconclusive"}
    assert all(r.verdict is not None and "does not reach" in r.verdict.reason for r in found)


def test_probes_that_leave_are_marked_and_fresh_ones_preferred(
    world: World, record: Fingerprint, pool: WorkerPool, spec: object
) -> None:
    exposures, root = ForgottenExposures(), record.manifest.probes.merkle_root
    with serving(world.pruned_onnx) as first, serving(world.pruned_onnx) as second:
        run(record, pool, first.url, exposures, spec=spec, budget=20)
        one = exposures.known(root)[f"http://127.0.0.1:{first.server_port}"]
        run(record, pool, second.url, exposures, spec=spec, budget=40)
        two = exposures.known(root)[f"http://127.0.0.1:{second.server_port}"]
    assert (len(one), len(two)) == (20, 40)
    assert not one & two
    (result,) = verify([world.pruned_onnx], [record], VerifyOptions(alpha=0.05), pool=pool, exposures=exposures)
    assert result.lineage == "derived"
    assert len(exposures.known(root)) == 2  # a file in a sandbox exposes nothing


def test_probes_are_marked_before_they_are_sent(
    world: World, record: Fingerprint, pool: WorkerPool, spec: object
) -> None:
    class Full(ForgottenExposures):
        def add(self, merkle_root: str, probes: frozenset[int], place: str) -> None:
            raise OSError("the disk is full")

    with serving(world.pruned_onnx) as server:
        asked: list[str] = []
        server.RequestHandlerClass = type(
            "Watched", (server.RequestHandlerClass,), {"do_POST": lambda self: asked.append(self.path)}
        )
        with pytest.raises(OSError, match="full"):
            run(record, pool, server.url, Full(), spec=spec)
    assert not asked


def test_avoided_probes_come_last(record: Fingerprint) -> None:
    avoid = frozenset(range(0, 60, 2))
    assert not set(draw(record, 30, avoid).index.tolist()) & avoid
    assert len(set(draw(record, 40, avoid).index.tolist())) == 40


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1/v2/models/m", "http://127.0.0.1/v2/models/m?key=secret", "http://127.0.0.1/",
        "https://127.0.0.1/v2/models/", "http:///v2/models/m", "http://127.0.0.1:99999/v2/models/m",
        "http://127.0.0.1/v2/models/a b",
    ],
)  # fmt: skip
def test_urls_that_make_no_sense(url: str, record: Fingerprint, pool: WorkerPool) -> None:
    with pytest.raises(UsageError) as caught:
        run(record, pool, url)
    assert "secret" not in caught.value.diagnosis()


def test_a_host_that_is_not_there_is_a_result(record: Fingerprint, pool: WorkerPool) -> None:
    result = run(record, pool, "http://127.0.0.1:9/v2/models/m")
    assert (result.status, result.verdict) == ("crashed", None)
    assert "127.0.0.1:9" in result.reason and "0x" not in result.reason


# -- functions -------------------------------------------------------------------------------------------------------


@contextmanager
def function(name: str, answer: Callable[[np.ndarray], object]) -> Iterator[None]:
    module = type(sys)(name)
    module.answer = answer  # type: ignore[attr-defined]
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("change", "label_only"),
    [
        (lambda scores: scores, None),
        (lambda scores: scores.argmax(axis=1), "labels only"),
        (lambda scores: scores.argmax(axis=1)[:, None].astype(np.uint8), "labels only"),
        (lambda scores: softmax(scores).round(2), "rounded to 2 decimals"),
    ],
    ids=["scores", "labels", "column of labels", "rounded"],
)
def test_functions(
    change: Callable[[np.ndarray], np.ndarray], label_only: str | None, record: Fingerprint, pool: WorkerPool,
    owner_function: Callable[[np.ndarray], np.ndarray],
) -> None:  # fmt: skip
    with function("mine", lambda images: change(owner_function(images))):
        result = run(record, pool, "mine:answer")
    assert result.lineage == "derived", result.reason
    assert result.adaptation is not None and result.adaptation["origin"] == "8-bit images"
    assert "random" not in result.reason
    assert label_only is None or label_only in str(result.adaptation["label_only"])
    assert (label_only is None) == ("label_only" not in result.adaptation)
    assert result.verdict is not None
    assert all((f.correlation is None) == (label_only is not None) for f in result.verdict.families)


def test_a_stranger_that_answers_labels_is_unrelated(record: Fingerprint, pool: WorkerPool) -> None:
    """Labels alone do not tell how many classes there are; that is no reason to doubt."""
    with function("stranger", lambda images: images.astype(np.int64).sum(axis=(1, 2, 3)) % 9):
        assert run(record, pool, "stranger:answer").lineage == "unrelated"
    with function("stranger", lambda images: images.astype(np.int64).sum(axis=(1, 2, 3)) % 50):
        assert run(record, pool, "stranger:answer").lineage == "inconclusive"  # labels that the owner does not have


def test_random_answers_are_told_and_voted_on(
    record: Fingerprint, pool: WorkerPool, owner_function: Callable[[np.ndarray], np.ndarray]
) -> None:
    rng = np.random.default_rng(0)

    def noisy(images: np.ndarray) -> np.ndarray:
        scores = owner_function(images)
        wrong = rng.random(len(images)) < 0.4
        return np.asarray(np.where(wrong[:, None], rng.normal(size=scores.shape) * 50, scores))

    with function("noisy", noisy):
        once, often = run(record, pool, "noisy:answer"), run(record, pool, "noisy:answer", repeat=9)
    assert often.lineage == "derived"
    assert "random" in often.reason and "9 rounds" in often.reason
    assert often.verdict is not None and often.verdict.queries == 9 * 60
    assert once.verdict is not None and often.verdict.match_rate > once.verdict.match_rate + 0.1


def test_randomness_is_seen_without_repeats(record: Fingerprint, pool: WorkerPool) -> None:
    rng = np.random.default_rng(0)
    with function("dice", lambda images: rng.random((len(images), 10))):
        result = run(record, pool, "dice:answer")
    assert "random" in result.reason and "--repeat" in result.reason


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda images: 1 / 0, "crashed"),
        (lambda images: sys.exit(3), "crashed"),
        (lambda images: np.zeros((3, 10)), "crashed"),
        (lambda images: None, "crashed"),
        (lambda images: ["a"] * len(images), "crashed"),
        (lambda images: np.full((len(images), 10), np.nan), "degenerate"),
        (lambda images: np.ones((len(images), 10)), "degenerate"),
        (lambda images: np.zeros((len(images), 0)), "degenerate"),
        (lambda images: np.full(len(images), 0.5), "unsupported"),
        (lambda images: np.full(len(images), -1), "unsupported"),
        (lambda images: np.zeros((len(images), 4, 4)), "unsupported"),
        (lambda images: np.full(len(images), 10**9), "unsupported"),
    ],
)
def test_functions_that_fail_are_results(
    answer: Callable[[np.ndarray], object], status: str, record: Fingerprint, pool: WorkerPool
) -> None:
    with function("odd", answer):
        result = run(record, pool, "odd:answer")
    assert (result.status, result.verdict) == (status, None)
    assert "inputs had been sent" in result.reason


def test_a_function_may_want_adapted_input(record: Fingerprint, pool: WorkerPool, world: World, spec: object) -> None:
    session = onnxruntime.InferenceSession(str(world.pruned_onnx), providers=["CPUExecutionProvider"])
    with function("adapted", lambda batch: session.run(None, {"input": batch})[0]):
        result = run(record, pool, "adapted:answer", spec=spec)
    assert result.lineage == "derived" and result.adaptation is not None and result.adaptation["origin"] == "flag"


@pytest.mark.parametrize("text", ["no_such_module:f", "json:no_such_function", "json:__doc__"])
def test_functions_that_are_none(text: str, record: Fingerprint, pool: WorkerPool) -> None:
    with pytest.raises(UsageError, match=text):
        run(record, pool, text)


def test_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_file("module:function") and not is_file("HTTPS://host/v2/models/m")
    Path("module:function").touch()
    assert is_file("module:function") and is_file("model.onnx") and is_file("C:/model.onnx")
