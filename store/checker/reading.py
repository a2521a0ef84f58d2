"""Reading a pack: files, canonical JSON, base64."""

from __future__ import annotations

import base64
import json
import zipfile

LIMIT = 1 << 30  # bytes of all files in the pack
FILES = 1_000_000


class Wrong(Exception):
    """Something does not hold."""


def read_pack(path):
    """Name -> bytes of a folder or zip file."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        within_limits([p.stat().st_size for p in files])
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        within_limits([entry.file_size for entry in entries])
        found = {entry.filename: archive.read(entry) for entry in entries}  # never more than an entry's stated size
    if len(found) != len(entries):
        raise Wrong("the pack has a file twice")
    return found


def within_limits(sizes):
    """Refuse a pack that would fill the memory, before any of it is read."""
    if len(sizes) > FILES or sum(sizes) > LIMIT:
        raise Wrong("the pack is too large: %d files of %d bytes" % (len(sizes), sum(sizes)))


def canonical(value):
    """The one JSON encoding that counts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def strict_json(data, what):
    """JSON that must be its own canonical encoding."""
    try:
        value = json.loads(data.decode("utf-8"))
        again = canonical(value)
    except (ValueError, RecursionError) as error:
        raise Wrong(what + " can't be read") from error
    if again != data:
        raise Wrong(what + " is not in its canonical encoding")
    return value


def decode64(text, what):
    """Bytes of canonical base64."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise Wrong(what + " is not canonical base64")
    return data
