"""HTTP to one host: bounded in time, size and rate, with retries. What the host sends is never believed.

urllib3 speaks HTTP and TLS. A watchdog cuts the connection when a request has taken its time, for a socket's own
timeout starts anew with every byte that a host trickles.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, NoReturn

from fingerprint.engine.replies import printable
from fingerprint.errors import (
    BudgetSpent,
    FingerprintError,
    HostError,
    HostFailed,
    HostTimedOut,
    MissingExtra,
)
from fingerprint.limits import DEFAULT, Limits
from fingerprint.remote.interface import RemoteOptions
from fingerprint.remote.replies import SHOWN, Refused, Reply, refusal
from fingerprint.remote.url import Endpoint

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

LONGEST_WAIT_S = 60.0  # that a host may ask for with Retry-After
_BACKOFF_S, _BACKOFF_MOST_S = 0.5, 20.0  # before the first retry, doubled for each further one
_CHUNK = 64 * 1024  # bytes


class Channel:
    """A connection to an endpoint's host, kept open between requests. Close it, or use `contextlib.closing`.

    Raises:
        MissingExtra: urllib3 is not installed.
    """

    def __init__(self, endpoint: Endpoint, options: RemoteOptions, limits: Limits = DEFAULT) -> None:
        try:
            from urllib3.connection import HTTPConnection, HTTPSConnection
        except ImportError:
            raise MissingExtra("urllib3", "http") from None
        kind = HTTPSConnection if endpoint.scheme == "https" else HTTPConnection
        self._make: Callable[[], HTTPConnection] = lambda: kind(endpoint.host, endpoint.port, timeout=options.timeout_s)
        self._endpoint, self._options, self._limits = endpoint, options, limits
        self._connection: HTTPConnection | None = None
        self._next = 0.0  # monotonic time before which no request may start

    def get(self, path: str) -> Reply:
        """GET. Raises as `post`."""
        return self._exchange("GET", path, None, {}, lambda: None)

    def post(self, path: str, body: bytes, headers: Mapping[str, str], sending: Callable[[], None]) -> Reply:
        """POST, and again where the host fails in a way that may be over soon.

        Args:
            path: of the URL.
            body: to send.
            headers: besides the user's.
            sending: called before every attempt; counts what is sent.

        Raises:
            HostFailed: unreachable, still failing after the retries, a redirect, too large or broken an answer.
            HostTimedOut: still too slow after the retries.
            UnsupportedModel: the host says that the request is wrong (4xx).
            BudgetSpent: from `sending`, at the first attempt.
        """
        return self._exchange("POST", path, body, headers, sending)

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], sending: Callable[[], None]
    ) -> Reply:
        failure: HostError | None = None
        for attempt in range(self._options.retries + 1):
            self._wait(self._next - time.monotonic())
            try:
                sending()
            except BudgetSpent:
                if failure is None:
                    raise
                break
            pause = min(_BACKOFF_MOST_S, _BACKOFF_S * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
            try:
                return self._once(method, path, body, headers)
            except Refused as refused:
                failure, asked = refusal(refused, self._endpoint.origin)
                if asked is not None and asked > LONGEST_WAIT_S:
                    break
                pause = pause if asked is None else asked
            except HostError as error:
                failure = error
            if attempt < self._options.retries:
                self._wait(pause)
        assert failure is not None  # noqa: S101  (every attempt returns, raises or fails)
        raise failure

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        if self._options.rate is not None:
            self._next = time.monotonic() + 1.0 / self._options.rate
        with self._watched() as connection:
            connection.request(
                method,
                path,
                body=body,
                headers={"Accept": "application/json", **headers, **self._options.headers},
                preload_content=False,
                decode_content=False,
            )
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.headers.items()}
            data = bytearray()
            while chunk := response.read1(_CHUNK):
                data += chunk
                if len(data) > self._limits.response_bytes:
                    raise HostFailed(f"it answers more than {self._limits.response_bytes} bytes")
            if found.get("content-encoding", "identity") != "identity":
                raise HostFailed("it answers in a compressed form that was not asked for")
            if found.get("connection", "").lower() == "close":
                self.close()
        reply = Reply(found, bytes(data))
        if response.status != 200:
            raise Refused(response.status, reply, found.get("retry-after", ""))
        return reply

    @contextmanager
    def _watched(self) -> Iterator[HTTPConnection]:
        """A connection that is cut after the time limit; whatever goes wrong becomes an error of the tree."""
        from urllib3.exceptions import HTTPError

        cut = threading.Event()
        open_sockets: list[socket.socket] = []  # http.client forgets a socket that the answer's end will close

        def expire() -> None:
            cut.set()
            while_connecting = getattr(self._connection, "sock", None)
            for sock in open_sockets or ([while_connecting] if while_connecting is not None else []):
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the plain one: TLS would want to talk first

        watchdog = threading.Timer(self._options.timeout_s, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            if self._connection is None or not self._connection.is_connected:
                self.close()
                self._connection = self._make()
                self._connection.connect()
            open_sockets.append(self._connection.sock)
            yield self._connection
            if cut.is_set():  # an answer without a length ends where the connection was cut
                raise TimeoutError
        except FingerprintError:
            self.close()
            raise
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            self.close()
            self._failed(
                error, late=cut.is_set() or isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
            )
        except BaseException:
            self.close()
            raise
        finally:
            watchdog.cancel()

    def _failed(self, error: Exception, *, late: bool) -> NoReturn:
        where = self._endpoint.origin
        if late:
            raise HostTimedOut(
                f"{where} did not answer within {self._options.timeout_s:g} s", remedy="Try --timeout or --batch 1."
            ) from None
        detail = printable(str(error).split(">: ")[-1])[:SHOWN]  # without urllib3's object in front
        quotes = isinstance(error, ValueError) and not isinstance(error, OSError)  # a header, which may be a secret
        trust = "Trust another authority with SSL_CERT_FILE." if isinstance(error, ssl.SSLCertVerificationError) else ""
        told = "" if quotes else f": {detail}"
        raise HostFailed(f"{where} failed: {type(error).__name__}{told}", remedy=trust) from None

    @staticmethod
    def _wait(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)
