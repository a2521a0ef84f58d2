"""Hosts on loopback that do what a test tells them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hosts import Host  # type: ignore[import-not-found]


@pytest.fixture
def host() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler, bytes], None]], Host]]:
    """Start a host: called with (handler, body) for each request."""
    started: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Host:
        made = Host(answer)
        started.append(made)
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return made

    yield start
    for made in started:
        made.shutdown()
        made.server_close()
