"""A whole record: the manifest and the tensors that it describes."""

from __future__ import annotations

import hashlib

import numpy as np

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from fingerprint.record.manifest import Manifest
from fingerprint.record.payload import Payload, control_sha256


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
        self._check_certificates()
        self._check_others()
        if payload.responses.shape[1] != manifest.outputs:
            raise Tampered("the owner's responses are not as long as the manifest says")

    def _check_certificates(self) -> None:
        """Radii of single probes, where there are any, are those of the families that state a certificate."""
        radius = self.payload.certified_radius
        if radius is None:  # no certificate, or a record of an earlier release
            return
        for number, family in enumerate(self.manifest.families):
            rows, stated = radius[self.payload.family == number], family.parameters.get("certificate")
            if not isinstance(stated, dict):
                agrees = bool(np.isnan(rows).all())
            else:
                agrees = all(
                    isinstance(said := stated.get(name), (int, float)) and abs(said - float(held)) < 1e-6
                    for name, held in (("lowest", rows.min()), ("median", np.median(rows)))
                )
            if not agrees:
                raise Tampered(f"the certified radii of the {family.name} probes are not what the manifest says")

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
