"""Suspects that are no file: how endpoints are asked, what is recorded of it, and answers given by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import DataError, UsageError
from fingerprint.remote.interface import RemoteOptions

if TYPE_CHECKING:
    from cli.access import Selection
    from cli.records import Records
    from cli.terminal import Terminal
    from fingerprint.api.blackbox import ResponsesSubject
    from fingerprint.api.verify import VerifyOptions

TOKEN = "FINGERPRINT_TOKEN"  # noqa: S105  (the variable's name)
_BYTES = 1024 * 1024  # of a file of headers or class names
_LOOPBACK = ("http://127.", "http://localhost", "http://[::1]")


class RecordedExposures:
    """`fingerprint.remote.interface.Exposures`, kept in the database."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def known(self, merkle_root: str) -> Mapping[str, frozenset[int]]:
        """Place -> probes that were sent there."""
        return self._records.exposed(merkle_root)

    def add(self, merkle_root: str, probes: frozenset[int], place: str) -> None:
        """Record probes that are about to be sent. Raises StoreError: then they are not sent."""
        self._records.expose(merkle_root, probes, place)


def headers(file: Path | None) -> dict[str, str]:
    """Headers of `--headers`, and FINGERPRINT_TOKEN as a bearer token. Errors name headers, never what they hold.

    Raises:
        UsageError: the file can't be read, or a line is no header.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(file) if file else (), start=1):
        name, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon or not _is_name(name.strip()) or not value.strip().isprintable() or not value.isascii():
            raise UsageError(f"line {number} of {file} is no header", remedy="One `Name: value` per line is needed.")
        found[name.strip()] = value.strip()
    token = os.environ.get(TOKEN, "").strip()
    if token:
        if not token.isascii() or not token.isprintable():
            raise UsageError(f"{TOKEN} holds characters that no header can")
        found.setdefault("Authorization", f"Bearer {token}")
    return found


def _is_name(text: str) -> bool:
    return bool(text) and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def class_names(file: Path | None) -> tuple[str, ...]:
    """Names of `--class-names`: one per line, or a JSON list, or TorchServe's {"0": name or [id, name]}.

    Raises:
        UsageError: the file can't be read, or is none of these.
    """
    if file is None:
        return ()
    if file.suffix.lower() != ".json":
        return tuple(line.strip() for line in _lines(file))
    import json

    try:
        value = json.loads("\n".join(_lines(file)))
        if isinstance(value, dict):
            value = [value[str(i)] for i in range(len(value))]
        names = tuple(entry[-1] if isinstance(entry, list) else entry for entry in value)
        if all(isinstance(name, str) for name in names):
            return names
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        pass
    raise UsageError(f"{file} holds no class names", remedy='Give one per line, or JSON: a list, or {"0": name, ...}.')


def _lines(file: Path) -> Sequence[str]:
    from store.files import read_limited

    try:
        return read_limited(file, _BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {file}: {getattr(error, 'strerror', None) or error}") from error


def warn(urls: Sequence[str], sent: Mapping[str, str], terminal: Terminal) -> None:
    """Say what leaves this machine."""
    for url in urls:
        terminal.note(f"Probes that are sent to {url} count as exposed from now on.")
        if sent and url.lower().startswith("http:") and not url.lower().startswith(_LOOPBACK):
            terminal.note(f"The headers ({', '.join(sent)}) go to {url} unencrypted: https would protect them.")


def note_unused(asked: VerifyOptions, headers_file: Path | None, terminal: Terminal) -> None:
    """Say which flags have no effect where every suspect is a file."""
    usual, given = RemoteOptions(), asked.remote
    pairs = {
        "--protocol": given.protocol != usual.protocol,
        "--batch": given.batch != usual.batch,
        "--rate": given.rate != usual.rate,
        "--retries": given.retries != usual.retries,
        "--timeout": given.timeout_s != usual.timeout_s,
        "--headers": headers_file is not None,
        "--output-name": given.output != usual.output,
        "--class-names": given.class_names != usual.class_names,
    }
    if unused := [flag for flag, differs in pairs.items() if differs]:
        terminal.note(f"No effect on files, only on endpoints: {', '.join(unused)}.")


def answered(
    records: Records, selection: Selection, file: Path, export: str | None, names: Sequence[str]
) -> tuple[Selection, ResponsesSubject]:
    """The subject of a file of answers, and the fingerprints whose probes it answers.

    Raises:
        UsageError: it does not say which export it answers, or says another than `--export`.
        NotFound: the export is not in the database.
        DataError: it can't be read, or answers another number of probes.
    """
    from dataclasses import replace

    from fingerprint.api.blackbox import ResponsesSubject
    from fingerprint.remote.byhand import read

    responses = read(file, names)
    if export and responses.export and not responses.export.startswith(export):
        raise UsageError(
            f"{file} answers the export {responses.export[:16]}, and not {export[:16]}",
            remedy="Give the answers to that export, or leave --export away.",
        )
    wanted = responses.export or export
    if not wanted:
        raise UsageError(
            f"{file} does not say which export it answers",
            remedy="Give its id with --export ID: it stands in the index.json beside the images.",
        )
    row = records.find_export(wanted)
    matching = tuple(f for f in selection.fingerprints if f.manifest.probes.merkle_root == row.merkle_root)
    if not matching:
        raise UsageError(
            f"{file} answers probes of {row.name!r}, which is not compared with here",
            remedy="Name it with --against, or leave --against away.",
        )
    if max(row.probes) >= matching[0].manifest.probes.count:
        raise DataError(f"the export {row.id[:16]} names probes that {row.name!r} does not have")
    subject = ResponsesSubject(str(file), responses, row.merkle_root, row.probes, row.id)
    return replace(selection, fingerprints=matching, closed=()), subject
