"""What verify needs of a suspect that is open, and how a host may be asked.

Imports neither an HTTP library nor a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal, Protocol, get_args

from fingerprint.errors import BudgetSpent, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, InputSpec, Signature

ProtocolName = Literal["oip", "tfserving", "torchserve"]


class Meter:
    """Counts every input that is sent to one model, and holds `--budget` or `--queries`.

    Args:
        limit: inputs at most; None = no bound.
        flag: what sets it.
    """

    def __init__(self, limit: int | None = None, flag: str = "--budget") -> None:
        self.limit, self.sent, self._flag = limit, 0, flag

    @property
    def left(self) -> int | None:
        """Inputs that may still be sent; None = no bound."""
        return None if self.limit is None else self.limit - self.sent

    def take(self, count: int) -> None:
        """Count inputs just before they are sent.

        Raises:
            BudgetSpent: more than may still be sent; none of them is counted.
        """
        if self.limit is not None and self.sent + count > self.limit:
            raise BudgetSpent(
                f"the budget of {self.limit} inputs does not allow {count} more after {self.sent}",
                remedy=f"Give a larger {self._flag}.",
            )
        self.sent += count


@dataclass
class Manner:
    """How a suspect answers, as far as its answers showed: filled in while it answers.

    label_only: why nothing but the top label can be used of its answers; "" where scores can.
    open_classes: its answers do not tell how many classes it has.
    notes: what a person should know of its answers.
    """

    label_only: str = ""
    open_classes: bool = False
    notes: list[str] = field(default_factory=list)


class Answering(Protocol):
    """A suspect that is open. Whoever implements it counts what it sends, retries included, by a `Meter`."""

    @property
    def signature(self) -> Signature:
        """What it says of its input and output; an empty shape says nothing."""
        ...

    @property
    def manner(self) -> Manner:
        """How it answered so far."""
        ...

    @property
    def step(self) -> int:
        """Inputs are sent in multiples of this, the last ones padded; 1 where any number will do."""
        ...

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """Answers (N, K) to canonical 8-bit images (N, H, W, C), fed as `spec` says; labels come as one-hot rows.

        Raises:
            ModelError, WorkerError, HostError, SpecError, BudgetSpent.
        """
        ...


@dataclass(frozen=True)
class RemoteOptions:
    """How to ask an endpoint.

    protocol: None = told by the URL. batch: inputs per request; None = 8, or what the host demands. rate: requests per
    second at most; None = no bound. retries: of a request that failed. timeout_s: wall seconds for one request, from
    its start to the last byte of the answer. headers: sent with every request, never shown. output: the output to read
    where there are several. class_names: what the label at each index is called, where answers name labels.
    """

    protocol: ProtocolName | None = None
    batch: int | None = None
    rate: float | None = None
    retries: int = 4
    timeout_s: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    output: str | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in get_args(ProtocolName):
            raise UsageError(
                f"protocol {self.protocol!r} is unknown", remedy="One of " + ", ".join(get_args(ProtocolName))
            )
        if (
            (self.batch is not None and self.batch < 1)
            or self.retries < 0
            or self.timeout_s <= 0
            or (self.rate is not None and self.rate <= 0)
        ):
            raise UsageError(
                f"batch {self.batch}, rate {self.rate}, retries {self.retries} and timeout {self.timeout_s} make no "
                "sense together",
                remedy="batch >= 1, rate > 0, retries >= 0 and timeout > 0 are needed.",
            )

    def to_dict(self) -> dict[str, object]:
        """What a verdict may depend on, without headers."""
        return {"protocol": self.protocol, "batch": self.batch, "output": self.output, "names": list(self.class_names)}


REVEALED = "revealed to "  # what the places of probes begin with that were shown to a third party, and are burnt


class Exposures(Protocol):
    """Remembers which probes left this machine. Probes are named by the Merkle root of their set and their index."""

    def known(self, merkle_root: str) -> Mapping[str, frozenset[int]]:
        """Place -> probes that were sent there."""
        ...

    def add(self, merkle_root: str, probes: frozenset[int], place: str) -> None:
        """Remember probes that are about to be sent. Raises StoreError: then they are not sent."""
        ...


class ForgottenExposures:
    """Remembers exposures as long as this object lives."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, frozenset[int]]] = {}

    def known(self, merkle_root: str) -> Mapping[str, frozenset[int]]:
        """See `Exposures.known`."""
        return self._found.get(merkle_root, {})

    def add(self, merkle_root: str, probes: frozenset[int], place: str) -> None:
        """See `Exposures.add`."""
        places = self._found.setdefault(merkle_root, {})
        places[place] = places.get(place, frozenset()) | probes
