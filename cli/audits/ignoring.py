"""The ignore file: findings that a person has looked at. Every entry has a reason and an expiry; all are still counted.

[[ignore]]
path = "vendor/*.onnx"          # a glob over provenance paths, and/or
sha256 = "9f2c..."              # the suspect's digest
fingerprint = "my-model"        # a name or id; left out: any
reason = "Licensed to us, contract 4711."
expires = 2027-01-31
"""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.api.results import Result

_FIELDS = {"path", "sha256", "fingerprint", "reason", "expires"}
_REMEDY = "Every [[ignore]] has a reason, an expires date, and a path or sha256; fingerprint may be added."


@dataclass(frozen=True)
class Suppressed:
    """Why a finding counts no more, and until when."""

    reason: str
    expires: datetime.date

    def to_dict(self) -> dict[str, str]:
        """As rows show it."""
        return {"reason": self.reason, "expires": self.expires.isoformat()}


@dataclass(frozen=True)
class Entry:
    """One entry of the file."""

    path: str | None
    sha256: str | None
    fingerprint: str | None
    why: Suppressed

    def matches(self, result: Result) -> bool:
        """Whether it speaks of this result."""
        if self.path is not None and not fnmatch.fnmatchcase(result.suspect.path, self.path):
            return False
        if self.sha256 is not None and result.suspect.sha256 != self.sha256:
            return False
        return self.fingerprint in (None, result.fingerprint.name, result.fingerprint.id)


Suppressor: TypeAlias = "Callable[[Result], Suppressed | None]"


def load(path: Path | None, today: datetime.date, note: Callable[[str], None]) -> list[Entry]:
    """The entries that hold today; expired ones are told.

    Raises:
        UsageError: the file can't be read, or an entry is incomplete (named).
    """
    import tomllib

    if path is None:
        return []
    try:
        listed = tomllib.loads(path.read_text("utf-8")).get("ignore", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the ignore file {path} can't be read: {error}") from error
    if not isinstance(listed, list):
        raise UsageError(f"the ignore file {path} has no list of [[ignore]]", remedy=_REMEDY)
    entries = [_entry(value, f"{path}, entry {number}") for number, value in enumerate(listed, start=1)]
    for entry in entries:
        if entry.why.expires < today:
            what = entry.path or entry.sha256
            note(f"{path}: the entry for {what} expired on {entry.why.expires} and counts no more.")
    return [entry for entry in entries if entry.why.expires >= today]


def _entry(value: object, where: str) -> Entry:
    if not isinstance(value, Mapping) or set(value) - _FIELDS:
        raise UsageError(f"{where}: unknown fields", remedy=_REMEDY)
    texts: dict[str, str | None] = {}
    for name in _FIELDS - {"expires"}:
        text = value.get(name)
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise UsageError(f"{where}: {name} is no text", remedy=_REMEDY)
        texts[name] = text
    expires, reason, sha256 = value.get("expires"), texts["reason"], texts["sha256"]
    if isinstance(expires, datetime.datetime):
        expires = expires.date()
    if reason is None or not isinstance(expires, datetime.date) or (texts["path"] is None and sha256 is None):
        raise UsageError(f"{where} is incomplete", remedy=_REMEDY)
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(f"{where}: sha256 is no digest of 64 hex digits", remedy=_REMEDY)
    return Entry(texts["path"], sha256, texts["fingerprint"], Suppressed(reason, expires))


def suppressor(entries: list[Entry]) -> Callable[[Result], Suppressed | None]:
    """Says of a result why it is ignored, or None. The first entry that matches speaks."""
    if not entries:
        return lambda _: None
    return lambda result: next((entry.why for entry in entries if entry.matches(result)), None)
