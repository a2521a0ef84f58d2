"""URLs of endpoints: which protocol they speak, and the model that they name."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.remote.interface import ProtocolName

_FORMS: dict[ProtocolName, re.Pattern[str]] = {
    "oip": re.compile(r"(?P<model>.*/v2/models/[^/]+(/versions/[^/]+)?)(/infer)?/?"),
    "tfserving": re.compile(r"(?P<model>.*/v1/models/[^/:]+(/(versions|labels)/[^/:]+)?)(:predict)?/?"),
    "torchserve": re.compile(r"(?P<model>.*/predictions/[^/]+(/[^/]+)?)/?"),
}
_SHOWN: dict[ProtocolName, str] = {
    "oip": "http(s)://HOST/v2/models/NAME",
    "tfserving": "http(s)://HOST/v1/models/NAME:predict",
    "torchserve": "http(s)://HOST/predictions/NAME",
}


@dataclass(frozen=True)
class Endpoint:
    """A model behind a URL. `path` names the model, without `/infer` or `:predict`; `host` without a port."""

    protocol: ProtocolName
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: where probes go."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The model's URL as results show it."""
        return self.origin + self.path


def parse(text: str, protocol: ProtocolName | None = None) -> Endpoint:
    """Read a URL.

    Args:
        text: as the user gave it.
        protocol: the one to speak; None = the one that the URL's form tells.

    Raises:
        UsageError: no URL of a known form, or one with a password or a query, where secrets would be shown.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"the URL can't be read: {error}") from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            "the URL has a user, a query or a fragment, and results show URLs",
            remedy="Give tokens in a file with --headers FILE, or in FINGERPRINT_TOKEN.",
        )
    if parts.scheme.lower() not in ("http", "https") or not host or re.search(r"[^!-~]", text):
        raise UsageError(f"{text!r} is no http or https URL")
    scheme = parts.scheme.lower()
    found = _form(parts.path, protocol)
    if found is None:
        known = ", ".join(_SHOWN.values()) if protocol is None else _SHOWN[protocol]
        raise UsageError(f"the URL {text} has not the form of a model's endpoint", remedy=f"Known: {known}")
    return Endpoint(found[0], scheme, host, port or {"http": 80, "https": 443}[scheme], found[1])


def _form(path: str, protocol: ProtocolName | None) -> tuple[ProtocolName, str] | None:
    for name in [protocol] if protocol else list(_FORMS):
        match = _FORMS[name].fullmatch(path)
        if match:
            return name, match["model"]
    return None
