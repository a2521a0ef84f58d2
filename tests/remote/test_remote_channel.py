"""A host that is slow, broken, huge or rude: bounded, retried, and told in one sentence."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hosts import Host, reply  # type: ignore[import-not-found]

from fingerprint.errors import BudgetSpent, HostError, HostFailed, HostTimedOut, UnsupportedModel
from fingerprint.limits import Limits
from fingerprint.remote import channel as module
from fingerprint.remote.channel import Channel
from fingerprint.remote.interface import Meter, RemoteOptions
from fingerprint.remote.replies import Reply
from fingerprint.remote.url import parse

Start = Callable[[Callable[[BaseHTTPRequestHandler, bytes], None]], Host]
QUICK = RemoteOptions(retries=2, timeout_s=0.6, headers={"X-Key": "s3cret"})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)


def post(host: Host, options: RemoteOptions = QUICK, meter: Meter | None = None, **limits: Any) -> Reply:  # noqa: ANN401
    counted = meter or Meter()
    endpoint = parse(f"{host.origin}/v2/models/m")
    with closing(Channel(endpoint, options, Limits(**limits))) as opened:
        return opened.post("/v2/models/m/infer", b"{}", {}, lambda: counted.take(3))


def failing(
    times: int, fail: Callable[[BaseHTTPRequestHandler], None]
) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    left = [times]

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        left[0] -= 1
        if left[0] >= 0:
            fail(handler)
        else:
            reply(handler, {"fine": True})

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def hang_up_in_the_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"fine":')
    handler.close_connection = True


def refuse(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: reply(handler, {"error": "not\x1b now"}, status, **headers)


@pytest.mark.parametrize(
    "fail", [hang_up, hang_up_in_the_body, refuse(500), refuse(503), refuse(429, Retry_After="0"), refuse(502)]
)
def test_what_may_be_over_soon_is_tried_again(fail: Callable[[BaseHTTPRequestHandler], None], host: Start) -> None:
    made, meter = host(failing(2, fail)), Meter()
    assert post(made, meter=meter).json() == {"fine": True}
    assert len(made.seen) == 3
    assert meter.sent == 9, "what is sent again is counted again"
    made = host(failing(9, fail))
    with pytest.raises(HostFailed) as caught:
        post(made)
    assert len(made.seen) == 3 and made.origin in caught.value.message
    assert "s3cret" not in caught.value.diagnosis() and "\x1b" not in caught.value.diagnosis()


def test_a_budget_ends_the_retries(host: Start) -> None:
    made = host(failing(9, refuse(500)))
    with pytest.raises(HostFailed, match="500"):
        post(made, meter=Meter(4))
    assert len(made.seen) == 1
    with pytest.raises(BudgetSpent):
        post(made, meter=Meter(2))
    assert len(made.seen) == 1


def test_retry_after_is_honoured_up_to_a_bound(host: Start) -> None:
    made = host(failing(1, refuse(429, Retry_After="1")))
    start = time.monotonic()
    assert post(made).json() == {"fine": True}
    assert 1.0 <= time.monotonic() - start < 3
    made = host(failing(1, refuse(503, Retry_After="86400")))
    with pytest.raises(HostFailed, match="asks to wait"):
        post(made)
    made = host(failing(1, refuse(503, Retry_After="soon")))
    assert post(made).json() == {"fine": True}


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_host_calls_wrong_is_not_tried_again(status: int, host: Start) -> None:
    made = host(failing(9, refuse(status)))
    with pytest.raises(UnsupportedModel, match=f"{status}: not") as caught:
        post(made)
    assert len(made.seen) == 1 and "--batch 1" in caught.value.remedy


@pytest.mark.parametrize("status", [401, 403])
def test_tokens_that_are_missing(status: int, host: Start) -> None:
    with pytest.raises(HostFailed, match=str(status)) as caught:
        post(host(failing(9, refuse(status))))
    assert "FINGERPRINT_TOKEN" in caught.value.remedy


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int, host: Start) -> None:
    other = host(lambda handler, body: reply(handler, {}))
    made = host(failing(9, refuse(status, Location=f"{other.origin}/v2/models/m")))
    with pytest.raises(HostFailed, match="redirects to"):
        post(made)
    assert (len(made.seen), len(other.seen)) == (1, 0)


def trickle(handler: BaseHTTPRequestHandler, head: bytes, piece: bytes) -> None:
    handler.wfile.write(head)
    for _ in range(100):
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler, body: time.sleep(3),
        lambda handler, body: trickle(handler, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        lambda handler, body: trickle(handler, b"HTTP/1.1 2", b"0"),
        lambda handler, body: trickle(handler, b"HTTP/1.1 200 OK\r\n\r\n", b"{}"),
        lambda handler, body: trickle(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"1"),
        lambda handler, body: trickle(handler, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n1\r\n"),
    ],
    ids=["silent", "headers", "status", "body without length", "body", "chunks"],
)
def test_slow_hosts_are_cut_off(answer: Callable[[BaseHTTPRequestHandler, bytes], None], host: Start) -> None:
    start = time.monotonic()
    with pytest.raises(HostError) as caught:
        post(host(answer), replace(QUICK, retries=0))
    assert time.monotonic() - start < 2.0
    assert isinstance(caught.value, HostTimedOut) or "BadStatusLine" in caught.value.message
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]


@pytest.mark.parametrize("chunked", [True, False])
def test_endless_bodies_are_cut_off(chunked: bool, host: Start) -> None:
    def endless(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        handler.end_headers()
        while True:
            handler.wfile.write((b"10000\r\n" if chunked else b"") + b"0" * 65536 + (b"\r\n" if chunked else b""))

    with pytest.raises(HostFailed, match="more than 1000000 bytes"):
        post(host(endless), replace(QUICK, retries=0, timeout_s=10), response_bytes=1_000_000)


def test_compressed_answers_are_refused(host: Start) -> None:
    made = host(lambda handler, body: reply(handler, b"\x1f\x8b bomb", Content_Encoding="gzip"))
    with pytest.raises(HostFailed, match="compressed"):
        post(made)


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>", b"", b"{", b"[" * 100_000, b"1" * 10_000, b"\xff\xfe", b'"' + b"x" * 99]
)
def test_what_is_no_json(body: bytes, host: Start) -> None:
    made = host(lambda handler, _: reply(handler, body, Content_Type="text/html"))
    with pytest.raises(HostFailed, match="no JSON"):
        post(made).json()


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n", b"HTTP/9.9 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", b"\x00" * 1000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=range(8),
)  # fmt: skip
def test_broken_http_is_an_error_of_the_tree(raw: bytes, host: Start) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.wfile.write(raw)
        handler.close_connection = True

    try:
        post(host(answer), replace(QUICK, retries=0)).json()
    except HostError as error:
        assert "s3cret" not in error.diagnosis()


def test_headers_that_can_not_be_sent_are_not_quoted(host: Start) -> None:
    made = host(lambda handler, body: reply(handler, {}))
    for value in ("s3cret\r\nX: y", "s3cret\u2603"):
        with pytest.raises(HostFailed) as caught:
            post(made, replace(QUICK, retries=0, headers={"X-Key": value}))
        assert "s3cret" not in caught.value.diagnosis()
    assert not made.seen


def test_the_rate_is_kept_and_the_connection_reused(host: Start) -> None:
    made = host(lambda handler, body: reply(handler, {"port": handler.client_address[1]}))
    start = time.monotonic()
    with closing(Channel(parse(f"{made.origin}/v2/models/m"), replace(QUICK, rate=20.0))) as opened:
        ports = {opened.get("/").body for _ in range(5)}
    assert time.monotonic() - start >= 4 / 20
    assert len(ports) == 1


def test_an_idle_connection_that_was_closed_is_opened_again(host: Start) -> None:
    def once(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        reply(handler, {})
        handler.close_connection = True

    made = host(once)
    with closing(Channel(parse(f"{made.origin}/v2/models/m"), replace(QUICK, retries=0))) as opened:
        for _ in range(3):
            assert opened.get("/").json() == {}
            time.sleep(0.05)


def test_what_is_sent(host: Start) -> None:
    made = host(lambda handler, body: reply(handler, {}))
    post(made)
    ((method, path, headers, body),) = made.seen
    assert (method, path, body) == ("POST", "/v2/models/m/infer", b"{}")
    assert headers["X-Key"] == "s3cret" and "fingerprint" not in str(headers).lower()
    assert "s3cret" not in repr(QUICK) and "s3cret" not in str(QUICK.to_dict())


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def over_tls(host: Host, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    host.socket = context.wrap_socket(host.socket, server_side=True)
    return host.origin.replace("http:", "https:") + "/v2/models/m"


def get(url: str, timeout_s: float = 5.0) -> Reply:
    with closing(Channel(parse(url), replace(QUICK, retries=0, timeout_s=timeout_s))) as opened:
        return opened.get("/")


def test_certificates_are_checked(host: Start, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = host(lambda handler, body: reply(handler, {"fine": True}))
    url = over_tls(made, certificate)
    with pytest.raises(HostFailed, match=r"(?i)certificate"):
        get(url)
    assert not made.seen
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(url).json() == {"fine": True}
    with pytest.raises(HostFailed):
        get(url.replace("127.0.0.1", "localhost"))  # the certificate names another host
    assert len(made.seen) == 1


def test_slow_hosts_are_cut_off_over_tls(host: Start, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    made = host(lambda handler, body: trickle(handler, b"HTTP/1.1 200 OK\r\n\r\n", b"{}"))
    start = time.monotonic()
    with pytest.raises(HostTimedOut):
        get(over_tls(made, certificate), 0.6)
    assert time.monotonic() - start < 2


def test_a_host_that_never_shakes_hands_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/v2/models/m"
        start = time.monotonic()
        with closing(Channel(parse(url), replace(QUICK, retries=0))) as opened, pytest.raises(HostTimedOut):
            opened.get("/")
    assert time.monotonic() - start < 2
