"""RFC 3161 against a timestamp authority that OpenSSL runs."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from store_helpers import World

from fingerprint.errors import HostFailed, HostTimedOut, KeyFileError, RevokedSigner, Tampered, UsageError
from store import revocation, timestamps
from store.algorithms import generate_key
from store.checker import timestamps as checker_timestamps
from store.checker.reading import Wrong
from store.keys import Signer, public_pem, trusted_keys

pytest.importorskip("rfc3161_client")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")

CONFIG = """
[ tsa ]
default_tsa = one
[ one ]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ ext ]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
basicConstraints = CA:FALSE
[ ca ]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
"""


class Authority:
    """A certificate authority and a timestamp authority under it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01")
        config = ("-extfile", "tsa.cnf", "-extensions")
        self._request("ca")
        self._request("tsa")
        self.openssl("x509", "-req", "-in", "ca.csr", "-signkey", "ca.key", "-out", "ca.pem", *config, "ca")
        issued = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        self.openssl("x509", "-req", "-in", "tsa.csr", "-out", "tsa.pem", *issued, *config, "ext")

    def _request(self, name: str) -> None:
        files = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        self.openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", *files, "-subj", f"/CN={name}")

    def openssl(self, *words: str | Path) -> None:
        subprocess.run(["openssl", *map(str, words)], cwd=self.folder, check=True, capture_output=True)

    def answer(self, request: bytes) -> bytes:
        (self.folder / "q").write_bytes(request)
        self.openssl("ts", "-reply", "-config", "tsa.cnf", "-section", "one", "-queryfile", "q", "-out", "r")
        return (self.folder / "r").read_bytes()

    @property
    def roots(self) -> list[object]:
        return list(timestamps.certificates([self.folder / "ca.pem"]))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("impostor"))


ENVELOPE = b'{"payload":"eA==","payloadType":"t","signatures":[]}'
DIGEST = hashlib.sha256(ENVELOPE).hexdigest()


def test_a_timestamp(authority: Authority, tmp_path: Path) -> None:
    response = authority.answer(timestamps.request(DIGEST))
    stamp = timestamps.verify(ENVELOPE, response, authority.roots)  # type: ignore[arg-type]
    assert abs(stamp.time - datetime.now(UTC)) < timedelta(minutes=5)
    assert stamp.authority == "CN=tsa"
    assert checker_timestamps.check(response, ENVELOPE, authority.roots) == (stamp.time, stamp.authority)
    (tmp_path / "data").write_bytes(ENVELOPE)  # the third implementation: OpenSSL agrees
    (tmp_path / "r").write_bytes(response)
    authority.openssl("ts", "-verify", "-data", tmp_path / "data", "-in", tmp_path / "r", "-CAfile", "ca.pem")


def test_openssl_reads_our_request(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(timestamps.request(DIGEST))
    done = subprocess.run(
        ["openssl", "ts", "-query", "-in", str(tmp_path / "q"), "-text"], capture_output=True, text=True, check=True
    )
    assert "sha256" in done.stdout
    assert "Certificate required: yes" in done.stdout
    dumped = "".join(line.split(" - ")[1][:47] for line in done.stdout.splitlines() if " - " in line)
    assert dumped.replace(" ", "").replace("-", "").startswith(hashlib.sha256(ENVELOPE).hexdigest())


def test_what_does_not_hold(authority: Authority, impostor: Authority) -> None:
    response = authority.answer(timestamps.request(DIGEST))
    cases = [
        (ENVELOPE + b" ", response, authority.roots),
        (ENVELOPE, response, impostor.roots),
        (ENVELOPE, response, []),
        (ENVELOPE, response[:-1], authority.roots),
        (ENVELOPE, response + b"\0", authority.roots),
        (ENVELOPE, b"", authority.roots),
        (ENVELOPE, impostor.answer(timestamps.request(DIGEST)), authority.roots),
        (ENVELOPE, authority.answer(timestamps.request("ab" * 32)), authority.roots),
    ]
    for envelope, answer, roots in cases:
        with pytest.raises(Tampered):
            timestamps.verify(envelope, answer, roots)  # type: ignore[arg-type]
        with pytest.raises(Wrong):
            checker_timestamps.check(answer, envelope, roots)


def test_changed_responses(authority: Authority) -> None:
    """A response may carry bytes that its authority did not sign; whatever is accepted says the same time."""
    import random

    response, choose = authority.answer(timestamps.request(DIGEST)), random.Random(0)
    stamp, accepted = timestamps.verify(ENVELOPE, response, authority.roots), 0  # type: ignore[arg-type]
    for _ in range(300):
        place = choose.randrange(len(response))
        changed = response[:place] + bytes([response[place] ^ 1 << choose.randrange(8)]) + response[place + 1 :]
        with suppress(Wrong, ValueError):  # the checker turns any error into a line
            assert checker_timestamps.check(changed, ENVELOPE, authority.roots)[0] == stamp.time
        try:
            assert timestamps.verify(ENVELOPE, changed, authority.roots).time == stamp.time  # type: ignore[arg-type]
            accepted += 1
        except Tampered:
            continue
    assert accepted < 60, accepted  # in the store none: the ledger commits to the response's own digest


def test_kept_in_the_database(world: World, authority: Authority) -> None:
    row = world.database.add(world.sealed())
    envelope = world.database.envelope(row)
    response = authority.answer(timestamps.request(hashlib.sha256(envelope).hexdigest()))
    assert world.database.add_timestamp(row.id, response) == world.database.add_timestamp(row.id, response)
    assert world.database.timestamps(row.id) == [response]
    assert world.database.check(world.keys) == []
    world.tamper("UPDATE timestamps SET response = ?", (response[:-1] + b"x",))
    assert any("not the token" in error for error in world.errors())


def test_what_was_stamped_before_a_revocation_goes_on_to_hold(world: World, authority: Authority) -> None:
    early, late = world.database.add(world.sealed()), world.database.add(world.sealed("late", seed=1))
    stamped = authority.answer(timestamps.request(early.id))
    world.database.add_timestamp(early.id, stamped)
    new = Signer(generate_key("ed25519"))
    (world.home.trusted / "new.pub").write_bytes(public_pem(new.public))
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    revocation.keep(world.home, world.signer.key_id, revocation.event("revoke", world.signer.key_id, soon, [new]))
    keys = trusted_keys(world.home)
    with pytest.raises(RevokedSigner):  # nobody trusts the authority yet
        world.database.load(early, keys)
    shutil.copy(authority.folder / "ca.pem", world.home.ensure(world.home.authorities))
    assert world.database.load(early, keys)
    with pytest.raises(RevokedSigner):
        world.database.load(late, keys)


def test_certificates(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "no.pem").write_text("hello")
    for path in (tmp_path / "no.pem", tmp_path / "absent.pem"):
        with pytest.raises(KeyFileError, match="no certificate"):
            timestamps.certificates([path])
    assert len(timestamps.certificates([authority.folder / "ca.pem", authority.folder / "tsa.pem"])) == 2


@pytest.fixture
def server(authority: Authority) -> Iterator[tuple[str, dict[str, object]]]:
    """An HTTP timestamp authority."""
    state: dict[str, object] = {"status": 200}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            query = self.rfile.read(int(self.headers["Content-Length"]))
            if state.get("slow"):
                threading.Event().wait(2)
            body = authority.answer(query) if state["status"] == 200 else b""
            self.send_response(int(str(state["status"])))
            self.end_headers()
            self.wfile.write(body + b"\0" * int(str(state.get("more", 0))))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}/tsr", state
        made.shutdown()


def test_asking_over_http(server: tuple[str, dict[str, object]], authority: Authority) -> None:
    url, state = server
    assert timestamps.verify(ENVELOPE, timestamps.ask(url, timestamps.request(DIGEST), 10), authority.roots)  # type: ignore[arg-type]
    state["more"] = 100_000
    with pytest.raises(HostFailed, match="more than"):
        timestamps.ask(url, timestamps.request(DIGEST), 10)
    state["status"] = 503
    with pytest.raises(HostFailed, match="503"):
        timestamps.ask(url, timestamps.request(DIGEST), 10)
    state |= {"status": 200, "slow": True}
    with pytest.raises(HostTimedOut):
        timestamps.ask(url, timestamps.request(DIGEST), 0.2)
    with pytest.raises(HostFailed, match="can't reach"):
        timestamps.ask("http://127.0.0.1:9/tsr", timestamps.request(DIGEST), 1)
    with pytest.raises(UsageError):
        timestamps.ask("file:///etc/passwd", timestamps.request(DIGEST), 1)
