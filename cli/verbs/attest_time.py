"""fingerprint attest timestamp: a trusted authority's word that a statement or a model existed (RFC 3161)."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@flags.with_common
def timestamp(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|NAME|ID|RUN", help="A file, or something in the database.", show_default=False),
    ],
    tsa: Annotated[
        str | None, typer.Option("--tsa", metavar="URL", show_default=False, help="Timestamp authority to ask.")
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option("--request", metavar="TSQ", show_default=False, help="Write the request to a file instead."),
    ] = None,
    response: Annotated[
        Path | None,
        typer.Option("--response", metavar="TSR", show_default=False, help="Take the answer from a file instead."),
    ] = None,
    ca: Annotated[
        list[Path] | None,
        typer.Option("--ca", metavar="PEM", show_default=False, help="Root certificate of the authority. Repeatable."),
    ] = None,
    trust_ca: Annotated[
        bool, typer.Option("--trust-ca", help="Keep --ca in the home's authorities/ folder, trusted from now on.")
    ] = False,
    model: Annotated[
        bool, typer.Option("--model", help="FILE is a model: stamp the SHA-256 that results name it by.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds to wait for the authority.")] = 30.0,
    *,
    common: flags.Common,
) -> None:
    """Get a timestamp for a statement or a model, check it, and keep it.

    The SHA-256 of the envelope or model leaves this machine, and nothing else. For a FILE, the answer is kept in
    FILE.tsr; for what is in the database, there. Without a network: --request, carry the file, `openssl ts` or the
    authority answers, then --response. `verify --suspect-timestamp` takes that of a model.

    \b
    Examples:
      fingerprint attest timestamp my-model --tsa https://freetsa.org/tsr --ca cacert.pem --trust-ca
      fingerprint attest timestamp statement.json --request statement.tsq
      fingerprint attest timestamp statement.json --response statement.tsr --ca cacert.pem
      fingerprint attest timestamp model.onnx --model --tsa https://freetsa.org/tsr --ca cacert.pem
    """
    from cli.output import emit
    from cli.verbs.attest import _find
    from fingerprint.errors import UsageError
    from store import timestamps
    from store.files import write_atomic
    from store.home import Home

    wanted = common.targets()
    home = Home.default()
    if sum(choice is not None for choice in (tsa, request, response)) != 1:
        raise UsageError("give one of --tsa, --request and --response")
    (found, *others) = (
        [_model(Path(what))] if model else [_Stamped(a.sha256, a.envelope) for a in _find(what, None, common.db)]
    )
    if others and tsa is None:
        raise UsageError(f"{what} has {len(others) + 1} signed parts", remedy="Name one by its digest, or use --tsa.")
    if request is not None:
        write_atomic(request, timestamps.request(found.sha256), overwrite=True)
        emit(wanted, {"request": str(request), "sha256": found.sha256}, lambda page: f"{found.sha256} -> {request}\n")
        return
    authorities = [*timestamps.trusted(home.authorities), *timestamps.certificates(ca or ())]
    made = []
    for one in (found, *others):
        answer = _from_file(response) if response else timestamps.ask(str(tsa), timestamps.request(one.sha256), timeout)
        made.append(_keep(one, answer, authorities, None if Path(what).exists() else common.db, home_of=what))
    if trust_ca:
        for path in ca or ():
            write_atomic(home.ensure(home.authorities) / path.with_suffix(".pem").name, path.read_bytes())
    emit(
        wanted,
        {"timestamps": made},
        lambda page: "".join(f"{one['sha256'][:16]} existed at {one['time']} ({one['authority']})\n" for one in made),
    )


@dataclass(frozen=True)
class _Stamped:
    """What is to be stamped. envelope: None for a model, which is known by its digest."""

    sha256: str
    envelope: bytes | None = field(default=None, repr=False)


def _model(path: Path) -> _Stamped:
    from fingerprint.errors import UnreadableModel, UsageError
    from fingerprint.runtimes.parts import model_sha256

    try:
        return _Stamped(model_sha256(path)[0])
    except (OSError, UnreadableModel) as error:
        raise UsageError(f"can't read the model {path}: {error}") from error


def _keep(
    one: _Stamped, answer: bytes, authorities: list[Certificate], db: Path | None, home_of: str
) -> dict[str, str]:
    """Check an answer and keep it. Raises Tampered."""
    from cli.access import open_writable
    from store import timestamps
    from store.files import write_atomic
    from store.home import Home

    if one.envelope is None:
        stamp = timestamps.verify_digest(one.sha256, answer, authorities)
    else:
        stamp = timestamps.verify(one.envelope, answer, authorities)
    path = Path(home_of)
    if path.exists():
        write_atomic(path.with_name(path.name + ".tsr"), answer)
    else:
        with open_writable(Home.default(), db) as database:
            database.add_timestamp(one.sha256, answer)
    return {"sha256": one.sha256, "time": stamp.time.isoformat(), "authority": stamp.authority or str(stamp.serial)}


def _from_file(path: Path) -> bytes:
    from fingerprint.errors import StoreError
    from store.files import read_limited
    from store.timestamps import LARGEST

    try:
        return read_limited(path, LARGEST)
    except OSError as error:
        raise StoreError(f"can't read the response {path}: {error.strerror or error}") from error
