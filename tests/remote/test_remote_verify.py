"""A whole verify against hosts that fail or lie: always one result with a word and a sentence, never an exception."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest
from hosts import Host, reply  # type: ignore[import-not-found]
from made_records import OUTPUTS, SHAPE, fingerprint

from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.model import InputSpec
from fingerprint.remote import channel as module
from fingerprint.remote.interface import ForgottenExposures, RemoteOptions

Start = Callable[[Callable[[BaseHTTPRequestHandler, bytes], None]], Host]
RECORD = fingerprint((12, 8))
SPEC = InputSpec("NCHW", (3, 4, 5))
METADATA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 4, 5]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, OUTPUTS]}],
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)


def model(change: Callable[[BaseHTTPRequestHandler, int, np.ndarray], None]) -> Callable[..., None]:
    """A host whose answers to inference `change` sends: called with the handler, the request's number and scores."""
    numbers = itertools.count()

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if handler.command == "GET":
            reply(handler, {"extensions": []} if handler.path == "/v2" else METADATA)
            return
        tensor = json.loads(body)["inputs"][0]
        sums = np.array(tensor["data"]).reshape(tensor["shape"][0], -1)
        weights = np.random.default_rng(0).normal(size=(sums.shape[1], OUTPUTS))
        change(handler, next(numbers), sums @ weights)

    return answer


def send(handler: BaseHTTPRequestHandler, scores: Any) -> None:  # noqa: ANN401
    data = np.asarray(scores)
    entry = {"name": "y", "datatype": "FP32", "shape": list(data.shape), "data": data.ravel().tolist()}
    reply(handler, {"outputs": [entry]})


def run(made: Host, exposures: ForgottenExposures | None = None, **options: Any) -> Result:  # noqa: ANN401
    remote = RemoteOptions(retries=1, timeout_s=0.5)
    settings = VerifyOptions(**{"spec": SPEC, "remote": remote, "sequential": False, **options})
    (result,) = verify([made.origin + "/v2/models/m"], [RECORD], settings, exposures=exposures)
    assert "\n" not in result.reason
    json.dumps(result.to_dict(), allow_nan=False)
    return result


def test_a_host_that_answers(host: Start) -> None:
    made = host(model(lambda handler, number, scores: send(handler, scores)))
    result = run(made)
    assert result.status == "decided" and result.reason == ""
    assert result.verdict is not None and result.verdict.queries == 20 + 4


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda handler, number, scores: send(handler, scores * np.nan), "degenerate", "NaN"),
        (lambda handler, number, scores: send(handler, scores * 0), "degenerate", "do not depend"),
        (lambda handler, number, scores: send(handler, scores[:, : 3 + number]), "degenerate", "width"),
        (lambda handler, number, scores: send(handler, scores[:1]), "crashed", "shape"),
        (lambda handler, number, scores: reply(handler, b"<html>hello</html>"), "crashed", "no JSON"),
        (lambda handler, number, scores: time.sleep(2), "timed-out", "within 0.5 s"),
        (lambda handler, number, scores: reply(handler, {"error": "no\x1b"}, 500), "crashed", "500"),
        (lambda handler, number, scores: reply(handler, {"error": "bad shape"}, 400), "unsupported", "bad shape"),
        (lambda handler, number, scores: send(handler, np.ones((len(scores), 3, 9, 9))), "unsupported", "per input"),
        (lambda handler, number, scores: reply(handler, {}, 302, Location="http://evil/"), "crashed", "evil"),
    ],
    ids=range(10),
)
def test_hosts_that_fail(change: Callable[..., None], status: str, said: str, host: Start) -> None:
    result = run(host(model(change)))
    assert (result.status, result.verdict) == (status, None)
    assert said in result.reason and "inputs had been sent" in result.reason and "\x1b" not in result.reason


def test_a_host_that_recovers_and_what_that_costs(host: Start) -> None:
    def change(handler: BaseHTTPRequestHandler, number: int, scores: np.ndarray) -> None:
        if number % 2 == 0:
            reply(handler, {"error": "busy"}, 503, Retry_After="0")
        else:
            send(handler, scores)

    result = run(host(model(change)))
    assert result.status == "decided"
    assert result.verdict is not None and result.verdict.queries == 2 * (20 + 4)
    spent = run(host(model(change)), budget=20)  # probes for the whole budget: nothing is left for what fails
    assert (spent.status, spent.verdict) == ("skipped", None)
    assert "budget of 20" in spent.reason


def test_what_a_failed_run_has_sent_stays_exposed(host: Start) -> None:
    exposures = ForgottenExposures()
    made = host(model(lambda handler, number, scores: reply(handler, {"error": "x"}, 400)))
    run(made, exposures, budget=5)
    ((place, probes),) = exposures.known(RECORD.manifest.probes.merkle_root).items()
    assert place == made.origin and len(probes) == 5


@pytest.mark.parametrize("top", [{"0": 0.5, "3": 0.3}, [0.1, 0.2, 0.3, 0.15, 0.15, 0.1], 4, [4], "5"])
def test_torchserve(top: object, host: Start) -> None:
    made = host(lambda handler, body: reply(handler, top))
    remote = RemoteOptions(retries=0, timeout_s=5)
    (result,) = verify([made.origin + "/predictions/m"], [RECORD], VerifyOptions(remote=remote, sequential=False))
    if isinstance(top, list) and len(top) > 1:
        assert (result.status, result.verdict) == ("degenerate", None)  # the same scores for all
        return
    assert result.status == "decided", result.reason
    assert result.adaptation is not None and result.adaptation["spec"]["shape"] == list(SHAPE)  # type: ignore[index]
    assert "label_only" in result.adaptation
    assert len(made.seen) == 24
