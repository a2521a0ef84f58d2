"""Exchanges as each server's documentation has them (none was recorded), and answers that no protocol allows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hosts import Host, reply  # type: ignore[import-not-found]
from PIL import Image

from fingerprint.errors import DegenerateModel, FingerprintError, HostFailed, SpecError, UnsupportedModel, UsageError
from fingerprint.model import InputSpec
from fingerprint.remote.interface import Meter, RemoteOptions
from fingerprint.remote.session import EndpointSession
from fingerprint.remote.url import parse

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "protocols").glob("*.json"))
Start = Callable[[Callable[[BaseHTTPRequestHandler, bytes], None]], Host]
IMAGES = np.array([[[0, 51], [102, 153]], [[204, 255], [0, 51]]], np.uint8)[..., None]  # two grey images of 2 x 2
QUICK = RemoteOptions(retries=0, timeout_s=5)


def spec_for(signature: Any) -> InputSpec:  # noqa: ANN401
    """Fed as the model says, else as 8-bit images are."""
    shape = signature.shape
    if signature.dtype == "uint8":
        return InputSpec("NHWC", (2, 2, 1), "uint8", (0.0, 255.0), channels="L")
    layout = "NCHW" if shape and shape[1] == 1 else "NHWC"
    return InputSpec(layout, (1, 2, 2) if layout == "NCHW" else (2, 2, 1), channels="L")  # type: ignore[arg-type]


def replaying(exchanges: list[dict[str, Any]]) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    """Answers each exchange once, in any order of those with the same method and path; others are 404."""
    left = list(exchanges)

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        for exchange in left:
            if (exchange["method"], exchange["path"]) == (handler.command, handler.path):
                left.remove(exchange)
                if "request" in exchange and not same(exchange["request"], json.loads(body)):
                    reply(handler, {"error": f"unexpected request {body[:500]!r}"}, 400)
                    return
                reply(handler, exchange["body"], exchange["status"])
                return
        reply(handler, {"error": f"unexpected {handler.command} {handler.path}"}, 404)

    return answer


def same(expected: object, found: object) -> bool:
    """Equal, numbers up to the precision of float32."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(same(expected[k], found[k]) for k in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    if isinstance(expected, float) and isinstance(found, int | float):
        return abs(expected - found) < 1e-6
    return expected == found


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_documented_exchanges(path: Path, host: Start) -> None:
    written = json.loads(path.read_text())
    made, meter = host(replaying(written["exchanges"])), Meter()
    options = RemoteOptions(retries=0, timeout_s=5, class_names=tuple(written.get("names", ())))
    endpoint = parse(made.origin + written["url"])
    with EndpointSession(endpoint, options, meter) as session:
        told = session.signature
        assert {"shape": list(told.shape), "dtype": told.dtype, "classes": told.classes} == written["signature"]
        outputs = session.predict(IMAGES, spec_for(told))
        manner = session.manner
    assert meter.sent == 2
    if "scores" in written:
        np.testing.assert_allclose(outputs, written["scores"], rtol=1e-6)
        assert not manner.open_classes
    else:
        assert outputs.argmax(axis=1).tolist() == written["labels"]
        assert manner.label_only and manner.open_classes
    posts = [seen for seen in made.seen if seen[0] == "POST"]
    if endpoint.protocol == "torchserve":
        for sent, image in zip(posts, IMAGES, strict=True):
            assert sent[2]["Content-Type"] == "image/png"
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(sent[3]))), image[..., 0])


def test_all_servers_have_exchanges() -> None:
    assert {p.stem.split("-")[0] for p in FIXTURES} == {"triton", "kserve", "tfserving", "torchserve"}


# -- binary tensors --------------------------------------------------------------------------------------------------

METADATA = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 2, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}
SCORES = np.array([[0.123456, 0.7, 0.2], [0.6, 0.3, 0.1]], np.float32)


def oip(
    infer: Callable[[BaseHTTPRequestHandler, bytes], None], metadata: object = METADATA, extensions: object = ()
) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if handler.command == "POST":
            infer(handler, body)
        elif handler.path == "/v2":
            reply(handler, {"name": "s", "extensions": list(extensions)})  # type: ignore[call-overload]
        else:
            reply(handler, metadata)

    return answer


def ask(made: Host, options: RemoteOptions = QUICK, meter: Meter | None = None, count: int = 2) -> Any:  # noqa: ANN401
    with EndpointSession(parse(made.origin + "/v2/models/m"), options, meter or Meter()) as session:
        images = np.resize(IMAGES, (count, 2, 2, 1)) if count != 2 else IMAGES
        return session.predict(images, spec_for(session.signature))


def binary(size: int | None = None, head: str | None = None, cut: int | None = None, **fields: object) -> Any:  # noqa: ANN401
    def infer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        length = int(handler.headers["Inference-Header-Content-Length"])
        tensor = json.loads(body[:length])["inputs"][0]
        assert tensor["parameters"]["binary_data_size"] == len(body) - length == 2 * 4 * 4 and "data" not in tensor
        other = {"name": "z", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
        output = {"name": "y", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": size or 24}}
        text = json.dumps({"outputs": [other, {**output, **fields}]}).encode()
        data = (b"\0" * 8 + SCORES.tobytes())[:cut]
        reply(handler, text + data, 200, Inference_Header_Content_Length=head or str(len(text)))

    return infer


def test_binary_tensors(host: Start) -> None:
    found = ask(host(oip(binary(), extensions=["binary_tensor_data"])))
    assert np.array_equal(found, SCORES)


@pytest.mark.parametrize(
    "wrong",
    [
        binary(size=20), binary(size=23), binary(size=10**12), binary(size=-1), binary(head="9999999"),
        binary(head="abc"), binary(head="-1"), binary(cut=10), binary(shape=[2, 4]), binary(datatype="FP64"),
        binary(shape=[2, 3, -1]), binary(shape="all"), binary(shape=[10**10, 10**10, 10**10]), binary(name="w"),
    ],
    ids=range(14),
)  # fmt: skip
def test_binary_tensors_that_lie(wrong: Any, host: Start) -> None:  # noqa: ANN401
    with pytest.raises(HostFailed):
        ask(host(oip(wrong, extensions=["binary_tensor_data"])))


# -- answers that no protocol allows ---------------------------------------------------------------------------------


def outputs(data: object, shape: object = (2, 3), datatype: str = "FP32", name: str = "y") -> dict[str, object]:
    return {"outputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ([], HostFailed), ({}, HostFailed), ({"outputs": []}, HostFailed), ({"outputs": "y"}, HostFailed),
        ({"outputs": [1]}, HostFailed), (outputs([1, 2, 3]), HostFailed), (outputs([1] * 6, [3, 2]), HostFailed),
        (outputs([1] * 6, [6]), HostFailed), (outputs(["1"] * 6), HostFailed), (outputs([True] * 6), HostFailed),
        (outputs([[1, 2], [3]]), HostFailed), (outputs({"a": 1}), HostFailed), (outputs(None), HostFailed),
        (outputs([1] * 6, None), HostFailed), (outputs([1] * 6, [2, 3.0]), HostFailed),
        (outputs([10**400] * 6), HostFailed), (outputs([1e300] * 6), DegenerateModel),
        (outputs([float("nan")] * 6), DegenerateModel), (outputs([float("inf")] * 6), DegenerateModel),
        (outputs([], [2, 0]), DegenerateModel), (outputs([0.5, 0.25], [2, 1]), UnsupportedModel),
        (outputs([-1, 3], [2], "INT64"), UnsupportedModel), (outputs([10**9, 3], [2], "INT64"), UnsupportedModel),
        (outputs([0.5] * 8, [2, 2, 2]), UnsupportedModel), (outputs([1] * 6, [2, 3], "BOOL"), UnsupportedModel),
        (outputs(["cat", "dog"], [2], "BYTES"), UnsupportedModel), (outputs([1, 2], [2], "BYTES"), HostFailed),
        (outputs(["e:1", "0.5:2"], [2, 1], "BYTES"), HostFailed),
        (outputs(["nan:1", "0.5:2"], [2, 1], "BYTES"), UnsupportedModel), (outputs([1] * 6, name="w"), HostFailed),
    ],
    ids=range(30),
)  # fmt: skip
def test_answers_that_can_not_be_used(answer: object, kind: type[FingerprintError], host: Start) -> None:
    with pytest.raises(kind):
        ask(host(oip(lambda handler, body: reply(handler, answer))))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ([], HostFailed), ({"inputs": 3}, HostFailed), ({"inputs": [3]}, HostFailed),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2, 3]}]}, HostFailed),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**40, 3]}]}, HostFailed),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 9}]}, HostFailed),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1]}]}, UnsupportedModel),
        ({"inputs": METADATA["inputs"] * 65}, HostFailed),
        ({"inputs": [{"name": n, "datatype": "FP32", "shape": [-1, 1, 2, 2]} for n in "ab"]}, UnsupportedModel),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 7]}]}, SpecError),
    ],
    ids=range(10),
)  # fmt: skip
def test_metadata_that_can_not_be_used(change: object, kind: type[FingerprintError], host: Start) -> None:
    metadata = {**METADATA, **change} if isinstance(change, dict) else change
    with pytest.raises(kind):
        ask(host(oip(lambda handler, body: reply(handler, outputs([1] * 6)), metadata)))


def test_an_output_by_name(host: Start) -> None:
    two = {**METADATA, "outputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 9]}, *METADATA["outputs"]]}
    asked: list[object] = []

    def infer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.append(json.loads(body)["outputs"])
        reply(handler, outputs(SCORES.ravel().tolist()))

    found = ask(host(oip(infer, two)), RemoteOptions(retries=0, output="y"))
    assert found.shape == (2, 3) and asked == [[{"name": "y"}]]
    with pytest.raises(UnsupportedModel, match="no output 'w'"):
        ask(host(oip(infer, two)), RemoteOptions(retries=0, output="w"))


def test_a_fixed_batch_is_filled_and_counted(host: Start) -> None:
    fixed = {**METADATA, "inputs": [{"name": "x", "datatype": "FP32", "shape": [4, 1, 2, 2]}]}
    sizes: list[int] = []

    def infer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        shape = json.loads(body)["inputs"][0]["shape"]
        sizes.append(shape[0])
        reply(handler, outputs(np.random.default_rng(0).random(12).tolist(), [4, 3]))

    meter = Meter()
    assert ask(host(oip(infer, fixed)), meter=meter, count=6).shape == (6, 3)
    assert sizes == [4, 4] and meter.sent == 8


@pytest.mark.parametrize(
    ("url", "protocol", "path"),
    [
        ("http://h/v2/models/m", "oip", "/v2/models/m"),
        ("https://h:8443/a/b/v2/models/m/versions/2/infer", "oip", "/a/b/v2/models/m/versions/2"),
        ("HTTP://H/v1/models/m", "tfserving", "/v1/models/m"),
        ("http://[::1]:8501/v1/models/m/labels/stable:predict", "tfserving", "/v1/models/m/labels/stable"),
        ("http://h/predictions/m/2.0/", "torchserve", "/predictions/m/2.0"),
    ],
)
def test_urls(url: str, protocol: str, path: str) -> None:
    found = parse(url)
    assert (found.protocol, found.path) == (protocol, path)
    assert parse(found.url) == found
    with pytest.raises(UsageError, match="form"):
        parse(url, {"oip": "torchserve", "tfserving": "oip", "torchserve": "tfserving"}[protocol])  # type: ignore[arg-type]
