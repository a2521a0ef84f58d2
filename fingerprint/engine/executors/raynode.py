"""Ray on this machine: started with ports of our choosing, so that a busy machine has the time that it needs."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from fingerprint.errors import FingerprintError

_STARTS = 3  # tries to start Ray on this machine
_WAIT_S = "120"  # for the node as a whole, where Ray's own default is half a minute
# A raylet reads these ports from files where they are not given, waits 15 seconds for each, and dies
# (ray-project/ray, issue 65983).
_PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def patience() -> None:
    """Settings that Ray reads when it is imported."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", _WAIT_S)


def start(ray: Any, address: str | None, workers: int) -> None:  # noqa: ANN401
    """Connect to a cluster, or start Ray on this machine, apart from any cluster that may run there.

    Args:
        ray: the module.
        address: of a running cluster; None starts one.
        workers: actors that will be wanted, each with a CPU of Ray's.

    Raises:
        FingerprintError: neither works.
    """
    for left in reversed(range(_STARTS if address is None else 1)):
        try:
            if address is None:
                with _given_ports(ray) as ports:
                    options = {"num_cpus": workers + 1, "include_dashboard": False, **ports}
                    ray.init(address="local", logging_level="ERROR", log_to_driver=False, **options)
            else:
                ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            return
        except Exception as error:  # Ray raises plain ones, such as for a start that took too long
            with suppress(Exception):
                ray.shutdown()
            if left:
                continue
            raise FingerprintError(
                f"Ray can't be reached at {address}: {error}" if address else f"Ray does not start here: {error}",
                remedy="Is it running, and this its address?"
                if address
                else "Its logs are in /tmp/ray/session_latest/logs. Try again when there is less to do, or start a "
                "cluster with `ray start --head` and give --ray-address.",
            ) from error


@contextmanager
def _given_ports(ray: Any) -> Iterator[dict[str, int]]:  # noqa: ANN401
    """What to give `ray.init` besides; meanwhile a node that it starts gets fixed ports for its agents.

    `ray start` has flags for them, `ray.init` has not, and passes its settings on in a class that is replaced here. A
    release of Ray without that class, or without these ports, is started as it wants.
    """
    module = getattr(getattr(ray, "_private", None), "parameter", None)
    original = getattr(module, "RayParams", None)
    if not inspect.isclass(original) or not {*_PORTS} <= inspect.signature(original).parameters.keys():
        yield {}
        return
    *agents, exported = _free_ports(len(_PORTS) + 1)
    module.RayParams = partial(original, **dict(zip(_PORTS, agents, strict=True)))  # type: ignore[union-attr]
    try:
        yield {"_metrics_export_port": exported}
    finally:
        module.RayParams = original  # type: ignore[union-attr]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()
