"""The secret tensors of a fingerprint: safetensors bytes, their checks, and the Merkle tree over the probes."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images


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
    certified_radius (N,) float32: the largest random change of the weights, relative to each weight tensor's RMS, that
    each probe's label is certified to stand (`probes.certificate`; the manifest's families state probability and
    confidence), 0 where none is, NaN for the probes of a family without a certificate; None where no family has one.
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
    certified_radius: NDArray[np.float32] | None = None

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
        radius = self.certified_radius
        if radius is not None:
            wanted["certified_radius"] = (np.float32, (count,))
            if np.isinf(radius).any() or (radius < 0).any():
                raise Tampered("the record's tensor 'certified_radius' holds what is no radius")
        wanted["weight_sketch"] = (np.uint8, (0 if self.weight_sketch is None else self.weight_sketch.size,))
        for name, (dtype, shape) in wanted.items():
            value: NDArray[np.generic] | None = getattr(self, name)
            if value is not None and (value.dtype != dtype or value.shape != shape):
                raise Tampered(f"the record's tensor {name!r} has shape {value.shape} and dtype {value.dtype}")

    def merkle_root(self) -> str:
        """Merkle root (hex) over the salted probes."""
        leaves = [leaf(s.tobytes(), p.tobytes()) for s, p in zip(self.salts, self.probes, strict=True)]
        return merkle_root(leaves).hex()


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
