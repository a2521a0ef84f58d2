"""What a host sent, and what its refusals mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from fingerprint.engine.replies import printable
from fingerprint.errors import HostError, HostFailed, UnsupportedModel
from fingerprint.frozen import dataclass

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be over in a moment
_READ = 64 * 1024  # bytes of a refusal that are looked at
SHOWN = 300  # characters of a host's words that are shown


@dataclass(frozen=True)
class Reply:
    """A host's answer with status 200."""

    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> object:
        """The body as JSON.

        Raises:
            HostFailed: it is none.
        """
        return parse_json(self.body, self.headers.get("content-type", ""))


def parse_json(body: bytes, kind: str = "") -> object:
    """JSON of a host. Raises HostFailed for anything else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        shown = printable(kind)[:60] or printable(body[:40].decode("utf-8", "replace"))
        raise HostFailed(f"it answers no JSON ({shown})", remedy="Check the URL in a browser or with curl.") from None


class Refused(Exception):
    """A status other than 200."""

    def __init__(self, status: int, reply: Reply, retry_after: str) -> None:
        super().__init__(status)
        self.status, self.reply, self.retry_after = status, reply, retry_after


def refusal(refused: Refused, origin: str) -> tuple[HostError, float | None]:
    """The error of `origin` for a status that may be over soon, with the seconds to wait that it names.

    Raises:
        HostFailed, UnsupportedModel: any other status.
    """
    status, said = refused.status, _message(refused.reply)
    where = f"{origin} answers {status}"
    if status in _AGAIN:
        asked = _retry_after(refused.retry_after)
        wait = f" and asks to wait {asked:g} s" if asked is not None else ""
        return HostFailed(f"{where}{wait}{said}", remedy="Try again later, or with --rate."), asked
    if 300 <= status < 400:
        to = printable(refused.reply.headers.get("location", ""))[:SHOWN] or "elsewhere"
        raise HostFailed(f"{where}: it redirects to {to}", remedy="Redirects are not followed: give that URL.")
    if status in (401, 403):
        raise HostFailed(f"{where}{said}", remedy="Give a token with --headers FILE or FINGERPRINT_TOKEN.")
    if 400 <= status < 500:
        raise UnsupportedModel(f"{where}{said}", remedy="Check the URL, and the input spec, and try --batch 1.")
    raise HostFailed(f"{where}{said}")


def _message(reply: Reply) -> str:
    """What a host says of an error, bounded and printable, with a colon before it."""
    try:
        value = json.loads(reply.body[:_READ])
    except (ValueError, RecursionError):
        return ""
    said = value.get("error", value.get("message", value.get("detail"))) if isinstance(value, dict) else value
    text = printable(said)[:SHOWN] if isinstance(said, str) else ""
    return f": {text}" if text else ""


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header (a number or a date), None where there is none that can be read."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    with suppress(InvalidHeader, ValueError, OverflowError):
        return max(0.0, float(Retry().parse_retry_after(value))) if value else None
    return None
