"""The public manifest of a fingerprint, and the in-toto Statement v1 whose predicate it is: the bytes to sign."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fingerprint.canonical import canonical
from fingerprint.errors import Tampered
from fingerprint.model import Channels, InputSpec, Layout

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:dnn-fingerprint:fingerprint:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    """Base of all parts of the manifest: immutable, no unknown fields, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spec(Frozen):
    """`model.InputSpec` as it stands in a manifest."""

    layout: Layout
    shape: tuple[int, int, int]
    dtype: str
    range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Channels
    classes: int | None = None
    class_offset: int = 0
    author: str | None = None

    @classmethod
    def of(cls, spec: InputSpec) -> Spec:
        """From the dataclass."""
        return cls.model_validate(spec.to_dict())

    def to_input_spec(self) -> InputSpec:
        """To the dataclass that the engine uses."""
        return InputSpec(**self.model_dump())


class Owner(Frozen):
    """The released model. `weights_sha256` identifies its values in whatever container (None: not readable).

    Where `format` is `endpoint` or `function` there was no file: `sha256` and `size` are of the address, in UTF-8.
    """

    sha256: Digest
    size: int
    format: str
    runtime: str
    weights_sha256: Digest | None = None


class Seed(Frozen):
    """How randomness was derived. `commitment` = SHA-256 of the secret K. A `--seed` record is non-evidential."""

    commitment: Digest
    derivation: str
    evidential: bool


class Family(Frozen):
    """The probes of one method. `passes` counts example-passes (one forward or backward of one probe = 1)."""

    name: str
    count: int = Field(gt=0)
    weight: Rate  # share of alpha that this family may spend
    parameters: dict[str, JsonValue]
    candidates: int
    passes: int
    role: Literal["lineage", "integrity"] = "lineage"  # which axis of a verdict its probes serve


class Probes(Frozen):
    """All probes together. Leaf = H(0x00 || salt || probe bytes)."""

    count: int = Field(gt=0)
    shape: tuple[int, int, int]
    merkle_root: Digest


class Tensors(Frozen):
    """The encrypted payload as stored. Set by the store when it seals."""

    sha256: Digest
    size: int
    cipher: Literal["ChaCha20-Poly1305"]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]


class FamilyMatch(Frozen):
    """How one model answered one family's probes. `correlation` is of centred log outputs, None if label-only."""

    matches: int
    queries: int
    correlation: float | None = None


class Copy(Frozen):
    """A transformed copy of the owner, made at create time. agreement: with the owner's labels on clean images."""

    transform: str
    agreement: Rate | None = None
    families: dict[str, FamilyMatch]


class Trial(Frozen):
    """A copy of the owner, compressed or tampered with at create time; the payload has what it answered.

    agreement: with the owner's labels on clean images.
    """

    transform: str
    agreement: Rate | None = None


class Reference(Frozen):
    """A model known to be unrelated, which calibrates.

    origin: None for a file, `made` for a net that the tool trained, `run ID` for a suspect of an earlier run that a
    person judged unrelated.
    """

    sha256: Digest
    author: str | None
    families: dict[str, FamilyMatch]
    origin: str | None = None


class Screen(Frozen):
    """A net that `create` trained to screen candidate probes; never calibrates."""

    name: str
    families: dict[str, FamilyMatch]


class Uniqueness(Frozen):
    """Uniqueness Score = robustness - transferability (Wang et al., IJCAI 2021); what was not measured is None."""

    robustness: Rate | None
    transferability: Rate | None
    score: float | None


class Clean(Frozen):
    """Clean inputs kept (encrypted) to settle how a suspect wants its input."""

    count: int
    labelled: bool


class Making(Frozen):
    """What `create` was asked for: what it takes, besides K and the owner's file, to make the same probes again.

    families: None where the default was asked for. screens: nets that screened candidates. data_sha256: digest of the
    decoded images and labels of `--data`. nonce: SHA-256 of the judge's nonce, for probes made afresh in a dispute.
    integrity: probes that tell tampering from compression.
    """

    budget: int = Field(gt=0)
    families: tuple[str, ...] | None = None
    screens: int = 0
    data_sha256: Digest | None = None
    nonce: Digest | None = None
    integrity: int = 0


class Control(Frozen):
    """A control set: a probe set of the same make for another owner. probes_sha256: of its probes and targets."""

    owner_sha256: Digest
    author: str | None
    probes_sha256: Digest


class Ancestor(Frozen):
    """A public model from which the owner's was made. shared: probes to which it gives the owner's label itself.

    tensors: digests of its weight tensors (`runtimes.digest`); the same tensor in a suspect does not count against it.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    sha256: Digest
    weights_sha256: Digest | None
    tensors: tuple[Digest, ...]
    shared: int


class Kin(Frozen):
    """An innocent relative: a net that was made from a public ancestor, not from the owner's model."""

    name: str
    ancestor_sha256: Digest
    accuracy: Rate


class Tool(Frozen):
    """What made the record."""

    name: str
    version: str
    torch: str | None = None


class Manifest(Frozen):
    """The public part of a fingerprint."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=200)]
    created: str
    tool: Tool
    owner: Owner
    input_spec: Spec
    outputs: Annotated[int, Field(gt=1)]
    seed: Seed
    families: tuple[Family, ...]
    probes: Probes
    tensors: Tensors | None = None
    copies: tuple[Copy, ...] = ()
    screens: tuple[Screen, ...] = ()
    uniqueness: Uniqueness
    references: tuple[Reference, ...] = ()
    declared_bound: Rate | None = None
    clean: Clean | None = None
    trials: tuple[Trial, ...] = ()  # what integrity and attribution are calibrated on
    previous: Digest | None = None  # id of the record that this one replaces (calibrate, --replace)
    making: Making | None = None
    controls: tuple[Control, ...] = ()
    ancestors: tuple[Ancestor, ...] = ()
    kin: tuple[Kin, ...] = ()


def lineage_part(manifest: Manifest) -> Manifest:
    """The manifest without the families that serve integrity only."""
    families = tuple(family for family in manifest.families if family.role == "lineage")
    return manifest if len(families) == len(manifest.families) else manifest.model_copy(update={"families": families})


def statement(manifest: Manifest) -> bytes:
    """The in-toto Statement v1 with the manifest as its predicate: the bytes to sign."""
    return _statement(manifest, manifest.model_dump(mode="json"))


def _statement(manifest: Manifest, predicate: dict[str, JsonValue]) -> bytes:
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": manifest.name, "digest": {"sha256": manifest.owner.sha256}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def parse_statement(data: bytes) -> Manifest:
    """The manifest inside verified statement bytes.

    Raises:
        Tampered: not a fingerprint statement, or the subject contradicts the manifest.
    """
    try:
        value = json.loads(data)
        if not isinstance(value, dict) or value.get("predicateType") != PREDICATE_TYPE:
            raise Tampered("the signed statement is not a fingerprint", remedy=f"Expected {PREDICATE_TYPE}.")
        manifest = Manifest.model_validate(value["predicate"], strict=False)
        # Only what was given: a record of an earlier release lacks the optional fields that came later.
        # ValueError where JSON has no encoding: lone surrogates, infinities.
        again = _statement(manifest, manifest.model_dump(mode="json", exclude_unset=True))
    except (ValueError, KeyError, ValidationError, RecursionError) as error:
        raise Tampered(f"the signed statement can't be read: {error}") from error
    if again != data:
        raise Tampered("the signed statement is not in its canonical encoding")
    return manifest
