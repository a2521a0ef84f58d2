"""Reading a pack: files, canonical JSON, base64."""

from __future__ import annotations

import base64
import json
import zipfile

LIMIT = 1 << 30  # bytes of a file in the pack


class Wrong(Exception):
    """Something does not hold."""


def read_pack(path):
    """Name -> bytes of a folder or zip file."""
    found = {}
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            found[file.relative_to(path).as_posix()] = file.read_bytes()
        return found
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename in found or entry.file_size > LIMIT:
                raise Wrong("the pack has a file twice, or one that is too large: " + entry.filename[:80])
            found[entry.filename] = archive.read(entry)
    return found


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
