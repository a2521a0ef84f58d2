"""What `create` refuses to record."""

from __future__ import annotations

from fingerprint.decision.claims import hopeless, recorded_transfer
from fingerprint.errors import CreateError
from fingerprint.record import Manifest


def refuse_transfer(manifest: Manifest) -> None:
    """Refuse a record whose probes match too many independent models.

    Raises:
        CreateError: its references and screening nets show that it does.
    """
    found = recorded_transfer(manifest)
    if found.too_many:
        raise CreateError(
            f"the probes match {found.matching} of {len(found.rates)} independent models on {found.line:.0%} of "
            f"them or more: such a fingerprint recognises models that were never derived from yours",
            remedy=_REMEDY,
        )
    if hopeless(manifest):
        rates = sorted(recorded_transfer(manifest.model_copy(update={"screens": ()})).rates)
        raise CreateError(
            f"unrelated models match the probes so often ({rates[0]:.0%} to {rates[-1]:.0%} of them) that not even an "
            "exact copy could stand out",
            remedy=_REMEDY,
        )


_REMEDY = (
    "Check that --data is labelled rightly and that the references are unrelated; or choose other --families, or more "
    "--screen nets."
)
