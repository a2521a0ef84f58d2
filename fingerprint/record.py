"""The fingerprint record: a public manifest, secret tensors, and bytes <-> record.

The manifest (pydantic) is the predicate of an in-toto Statement v1 that the store signs. The tensors (safetensors) are
encrypted by the store; the manifest carries the digest of the ciphertext and the Merkle root of the plaintext probes.
This module knows neither keys nor databases.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fingerprint.canonical import canonical
from fingerprint.errors import Tampered
from fingerprint.model import Channels, Floats, Images, InputSpec, Layout

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
    """The released model. `weights_sha256` identifies its values in whatever container (None: not readable)."""

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
    """Uniqueness Score = robustness - transferability (Wang et al., IJCAI 2021)."""

    robustness: Rate
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


@dataclass(frozen=True)
class Payload:
    """The secret part: plaintext tensors.

    probes (N, H, W, C) uint8; targets (N,) int64 common labels; family (N,) uint8 index into `manifest.families`;
    responses (N, K) float32 owner outputs; salts (N, 32) uint8; secret (32,) uint8, the K of seed derivation;
    clean_images (M, H, W, C) uint8; clean_labels (M,) int64, -1 = unknown; clean_responses (M, K) float32;
    reference_orders (R, N, K) uint16, for each of the manifest's references and each probe the classes from most to
    least likely, or None (records of earlier releases, and very large ones); groups (N,) int64, the number, within its
    family, of the group that a probe belongs to, -1 where it stands alone, or None where all do. Members of a group
    lie in their order; trial_labels (T, N) uint16 and trial_margins (T, N) float32, the common label that each of the
    manifest's trials gives to each probe, and the log probability of the target less that of the best other class.
    With D control sets: control_probes (D, N, H, W, C) uint8 in the families of the true probes, control_targets (D, N)
    int64. With ancestors and kin: ancestor_labels (A, N), kin_labels (J, N) int64, the common label of each on each
    probe, -1 = none. weight_sketch (B,) uint8: the summary of the owner's weights, as bytes of `runtimes.sketch`.
    trial_contrast (T + 1,) float32: the contrastive loss (`decision.contrast`) of the owner and of each of its trials.
    """

    probes: Images
    targets: NDArray[np.int64]
    family: NDArray[np.uint8]
    responses: Floats
    salts: NDArray[np.uint8]
    secret: NDArray[np.uint8]
    clean_images: Images
    clean_labels: NDArray[np.int64]
    clean_responses: Floats
    reference_orders: NDArray[np.uint16] | None = None
    groups: NDArray[np.int64] | None = None
    trial_labels: NDArray[np.uint16] | None = None
    trial_margins: Floats | None = None
    control_probes: NDArray[np.uint8] | None = None
    control_targets: NDArray[np.int64] | None = None
    ancestor_labels: NDArray[np.int64] | None = None
    kin_labels: NDArray[np.int64] | None = None
    weight_sketch: NDArray[np.uint8] | None = None
    trial_contrast: NDArray[np.float32] | None = None

    def to_bytes(self) -> bytes:
        """Safetensors bytes; the same tensors give the same bytes."""
        from safetensors.numpy import save

        values = {name: getattr(self, name) for name in sorted(self.__annotations__)}
        return save({name: np.ascontiguousarray(value) for name, value in values.items() if value is not None})

    @classmethod
    def from_bytes(cls, data: bytes) -> Payload:
        """Parse decrypted bytes.

        Raises:
            Tampered: not a payload of this version, or its shapes contradict each other.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            payload = cls(**load(data))
        except (SafetensorError, TypeError, ValueError, KeyError) as error:
            raise Tampered(f"the record's tensors can't be read: {error}") from error
        payload.validate()
        return payload

    def validate(self) -> None:
        """Check ranks, dtypes and lengths against each other. Raises Tampered."""
        n, m = self.probes.shape[:1], self.clean_images.shape[:1]
        rules = {
            "probes": (np.uint8, 4, n),
            "targets": (np.int64, 1, n),
            "family": (np.uint8, 1, n),
            "responses": (np.float32, 2, n),
            "salts": (np.uint8, 2, n),
            "secret": (np.uint8, 1, (32,)),
            "clean_images": (np.uint8, 4, m),
            "clean_labels": (np.int64, 1, m),
            "clean_responses": (np.float32, 2, m),
        }
        for name, (dtype, rank, length) in rules.items():
            value: NDArray[np.generic] = getattr(self, name)
            if value.dtype != dtype or value.ndim != rank or value.shape[:1] != length:
                raise Tampered(f"the record's tensor {name!r} has shape {value.shape} and dtype {value.dtype}")
        if self.groups is not None and (self.groups.dtype != np.int64 or self.groups.shape != n):
            raise Tampered(f"the record's tensor 'groups' has shape {self.groups.shape} and dtype {self.groups.dtype}")
        orders = self.reference_orders
        if orders is not None and (
            orders.dtype != np.uint16
            or orders.ndim != 3
            or orders.shape[1:] != self.responses.shape
            or not (orders < orders.shape[2]).all()
        ):
            raise Tampered(f"the record's tensor 'reference_orders' has shape {orders.shape} and dtype {orders.dtype}")
        self._validate_trials()
        self._validate_optional()
        if self.salts.shape[1] != 32:
            raise Tampered("the record's salts are not 32 bytes each")

    def _validate_trials(self) -> None:
        labels, margins = self.trial_labels, self.trial_margins
        if labels is None and margins is None:
            return
        count, classes = self.responses.shape
        if (
            labels is None
            or margins is None
            or labels.dtype != np.uint16
            or margins.dtype != np.float32
            or labels.ndim != 2
            or labels.shape != margins.shape
            or labels.shape[1] != count
            or not (labels < classes).all()
            or not np.isfinite(margins).all()
        ):
            raise Tampered("the record's tensors 'trial_labels' and 'trial_margins' contradict each other or the rest")

    def _validate_optional(self) -> None:
        count, controls = len(self.probes), self.control_targets
        if (controls is None) != (self.control_probes is None):
            raise Tampered("the record's control sets lack their probes or their targets")
        sets = 0 if controls is None else len(controls)
        wanted: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "control_probes": (np.uint8, (sets, *self.probes.shape)),
            "control_targets": (np.int64, (sets, count)),
        }
        for name in ("ancestor_labels", "kin_labels"):
            labels: NDArray[np.int64] | None = getattr(self, name)
            wanted[name] = (np.int64, (0 if labels is None else len(labels), count))
        if self.trial_contrast is not None:
            trials = 0 if self.trial_labels is None else len(self.trial_labels)
            wanted["trial_contrast"] = (np.float32, (trials + 1,))
            if not np.isfinite(self.trial_contrast).all():
                raise Tampered("the record's tensor 'trial_contrast' is not finite")
        wanted["weight_sketch"] = (np.uint8, (0 if self.weight_sketch is None else self.weight_sketch.size,))
        for name, (dtype, shape) in wanted.items():
            value: NDArray[np.generic] | None = getattr(self, name)
            if value is not None and (value.dtype != dtype or value.shape != shape):
                raise Tampered(f"the record's tensor {name!r} has shape {value.shape} and dtype {value.dtype}")

    def merkle_root(self) -> str:
        """Merkle root (hex) over the salted probes."""
        leaves = [leaf(s.tobytes(), p.tobytes()) for s, p in zip(self.salts, self.probes, strict=True)]
        return merkle_root(leaves).hex()


@dataclass(frozen=True)
class Fingerprint:
    """A whole record: manifest and plaintext payload. `id` is the SHA-256 of its envelope once sealed, else None."""

    manifest: Manifest
    payload: Payload
    id: str | None = None

    def check(self) -> None:
        """The payload is the one that the manifest describes. Raises Tampered."""
        manifest, payload = self.manifest, self.payload
        payload.validate()
        if payload.probes.shape != (manifest.probes.count, *manifest.probes.shape):
            raise Tampered("the number or shape of the probes is not what the manifest says")
        if payload.merkle_root() != manifest.probes.merkle_root:
            raise Tampered("the probes do not give the Merkle root that was signed")
        if hashlib.sha256(payload.secret.tobytes()).hexdigest() != manifest.seed.commitment:
            raise Tampered("the secret K does not give the commitment that was signed")
        counts = np.bincount(payload.family, minlength=len(manifest.families)).tolist()
        if counts != [family.count for family in manifest.families]:
            raise Tampered("the families of the probes are not what the manifest says")
        orders = payload.reference_orders
        if orders is not None and len(orders) != len(manifest.references):
            raise Tampered("the references' answers are not as many as the manifest's references")
        if (0 if payload.trial_labels is None else len(payload.trial_labels)) != len(manifest.trials):
            raise Tampered("the trials' answers are not as many as the manifest's trials")
        self._check_others()
        if payload.responses.shape[1] != manifest.outputs:
            raise Tampered("the owner's responses are not as long as the manifest says")

    def _check_others(self) -> None:
        """Control sets, ancestors and kin are those of the manifest."""
        manifest, payload = self.manifest, self.payload
        lengths = (
            ("control sets", manifest.controls, payload.control_targets),
            ("ancestors", manifest.ancestors, payload.ancestor_labels),
            ("kin", manifest.kin, payload.kin_labels),
        )
        for what, said, held in lengths:
            if len(said) != (0 if held is None else len(held)):
                raise Tampered(f"the {what} are not as many as the manifest says")
        if payload.control_probes is not None and payload.control_targets is not None:
            pairs = zip(payload.control_probes, payload.control_targets, strict=True)
            for control, (probes, targets) in zip(manifest.controls, pairs, strict=True):
                if control_sha256(probes, targets) != control.probes_sha256:
                    raise Tampered("the probes of a control set are not those that were signed")


def control_sha256(probes: Images, targets: NDArray[np.int64]) -> str:
    """Digest (hex) of one control set: its probes (N, H, W, C) and the labels (N,) that its owner gave them."""
    parts = (
        str(probes.shape).encode(),
        np.ascontiguousarray(probes).tobytes(),
        np.ascontiguousarray(targets).tobytes(),
    )
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def leaf(salt: bytes, probe: bytes) -> bytes:
    """Merkle leaf H(0x00 || salt || probe)."""
    return hashlib.sha256(b"\x00" + salt + probe).digest()


def merkle_root(leaves: list[bytes]) -> bytes:
    """Root of the RFC 6962 tree over leaf digests: H(0x01 || left || right), split at the largest power of two."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


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
