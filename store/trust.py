"""Whose signatures count: the trusted keys, those that were revoked, and from how many signers on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeAlias

from fingerprint.errors import RevokedSigner, UntrustedSigner
from fingerprint.frozen import dataclass
from store.algorithms import PublicKey

Times: TypeAlias = Callable[[bytes], "datetime | None"]  # envelope -> when a trusted timestamp says that it existed


@dataclass(frozen=True)
class Revocation:
    """A key that must not be trusted from `time` on."""

    key_id: str
    time: datetime
    reason: str


class Trust(Mapping[str, PublicKey]):
    """Key id -> trusted public key, with all that decides whether a signature by it counts.

    revoked: by key id. A signature by such a key counts only where a timestamp proves that the envelope is older than
    the revocation. threshold: how many trusted signers an envelope needs.
    """

    def __init__(
        self,
        keys: Mapping[str, PublicKey],
        revoked: Iterable[Revocation] = (),
        *,
        threshold: int = 1,
        times: Times | None = None,
    ) -> None:
        if threshold < 1:
            raise ValueError("the threshold is at least 1")
        self._keys, self._times = dict(keys), times
        self.revoked = {r.key_id: r for r in sorted(revoked, key=lambda r: r.time, reverse=True)}  # the earliest wins
        self.threshold = threshold

    def __getitem__(self, key_id: str) -> PublicKey:
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"Trust({', '.join(key_id[:16] for key_id in self)})"

    def plus(self, key_id: str, public: PublicKey) -> Trust:
        """With one key more."""
        return Trust({**self._keys, key_id: public}, self.revoked.values(), threshold=self.threshold, times=self._times)

    def at_least(self, threshold: int) -> Trust:
        """With another threshold."""
        return Trust(self._keys, self.revoked.values(), threshold=threshold, times=self._times)

    def with_times(self, times: Times) -> Trust:
        """With timestamps to tell the age of an envelope by."""
        return Trust(self._keys, self.revoked.values(), threshold=self.threshold, times=times)

    def counting(self, envelope: bytes, signers: Iterable[str]) -> tuple[str, ...]:
        """Those of `signers` (trusted, their signatures checked) whose signatures on `envelope` count.

        Raises:
            RevokedSigner: none does, and one was revoked.
            UntrustedSigner: fewer than the threshold.
        """
        named = tuple(signers)
        counting = tuple(s for s in named if s not in self.revoked or self._before(envelope, self.revoked[s]))
        if len(counting) >= self.threshold:
            return counting
        gone = [self.revoked[s] for s in named if s not in counting]
        if gone:
            raise RevokedSigner(
                f"signed by {gone[0].key_id[:16]}, which was revoked at {gone[0].time.isoformat()}"
                + (f" ({gone[0].reason})" if gone[0].reason else ""),
                remedy="It counts only with a timestamp, by a trusted authority, from before the revocation.",
            )
        raise UntrustedSigner(
            f"signed by {len(counting)} trusted keys, and {self.threshold} are needed",
            remedy="Pass the other signers' public keys with `--key PUB`, or lower the threshold.",
        )

    def _before(self, envelope: bytes, revocation: Revocation) -> bool:
        time = self._times(envelope) if self._times is not None else None
        return time is not None and time < revocation.time
