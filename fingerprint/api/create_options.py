"""How to create a fingerprint: what was asked for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from fingerprint.decision.integrity import FEWEST_PROBES
from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec
from fingerprint.remote.interface import RemoteOptions

LARGEST_BUDGET = 10_000


@dataclass(frozen=True)
class CreateOptions:
    """How to create.

    spec: the owner's input spec (None: its sidecar, else detected on labelled data). references: files or folders of
    unrelated models, which calibrate. data: clean images. budget: probes stored. families: None = characteristic
    where the file gives gradients (robust and difference beside screen models and labelled data), else natural with
    labelled data, else zeroth. seed: for tests; the record is then non-evidential. declared_bound: match rate that the
    owner declares unrelated models not to exceed. screen: small nets to train for screening (None: 3 where the data
    allow, none beside screen models). screen_models: the owner's own nets of the same making from other seeds, which
    screen (`api.screen_models`).
    allow_code: open references whose format can carry code. make_references: small nets
    to train from the data as references. control_sets: other owners' models, of which probe sets of the same make are
    kept. ancestors: public models that the owner's was made from. secret: K itself, to make the same probes again.
    nonce: SHA-256 of the judge's nonce that K was derived from, to be recorded. integrity: probes that tell tampering
    from compression, besides the budget; copies of the owner are made to calibrate them. certify: state how large a
    random weight change the probes stand (`probes.certificate`). queries: inputs sent to an owner that is a URL or a
    function at most (None: no bound). remote: how to ask such an owner.
    """

    name: str
    spec: InputSpec | None = None
    references: Sequence[Path] = ()
    data: Path | None = None
    budget: int = 100
    families: Sequence[str] | None = None
    seed: int | None = None
    declared_bound: float | None = None
    screen: int | None = None
    screen_models: Sequence[Path] = ()
    factory: str | None = None
    allow_code: bool = False
    make_references: int = 0
    control_sets: Sequence[Path] = ()
    ancestors: Sequence[Path] = ()
    secret: bytes | None = field(default=None, repr=False)
    nonce: str | None = None
    integrity: int = 0
    certify: bool = False
    queries: int | None = None
    remote: RemoteOptions = field(default_factory=RemoteOptions)

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 200 or not self.name.isprintable():
            raise UsageError("a name has 1 to 200 printable characters")
        if not 1 <= self.budget <= LARGEST_BUDGET:
            raise UsageError(f"budget is {self.budget}; 1 to {LARGEST_BUDGET} probes can be stored")
        if self.declared_bound is not None and not 0.0 <= self.declared_bound < 1.0:
            raise UsageError(f"the declared bound is {self.declared_bound}; a match rate from 0 to below 1 is needed")
        if self.screen is not None and not 0 <= self.screen <= 100:
            raise UsageError(f"screen is {self.screen}; 0 to 100 nets can be trained")
        if self.queries is not None and self.queries < 1:
            raise UsageError(f"queries is {self.queries}; 1 or more inputs can be sent")
        if not 0 <= self.make_references <= 1000:
            raise UsageError(f"make-references is {self.make_references}; 0 to 1000 nets can be trained")
        if self.integrity and not FEWEST_PROBES <= self.integrity <= LARGEST_BUDGET:
            raise UsageError(
                f"integrity is {self.integrity}; 0, or {FEWEST_PROBES} to {LARGEST_BUDGET} probes can be stored"
            )
