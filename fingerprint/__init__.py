"""dnn-fingerprint: is this my model, and is it still what I released?

The public API: `create`, `verify`, `audit`, `Fingerprint`, `Verdict`, `Model`. Nothing heavy is imported before it is
needed: names resolve on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerprint.api.audit import audit as audit
    from fingerprint.api.create import create as create
    from fingerprint.api.verify import verify as verify
    from fingerprint.decision.verdict import Verdict as Verdict
    from fingerprint.model import InputSpec as InputSpec
    from fingerprint.model import Model as Model
    from fingerprint.record.fingerprint import Fingerprint as Fingerprint

__version__ = "0.1.0"
__all__ = ["Fingerprint", "InputSpec", "Model", "Verdict", "__version__", "audit", "create", "verify"]

_HOMES = {
    "create": "fingerprint.api.create",
    "verify": "fingerprint.api.verify",
    "audit": "fingerprint.api.audit",
    "Fingerprint": "fingerprint.record.fingerprint",
    "Verdict": "fingerprint.decision.verdict",
    "Model": "fingerprint.model",
    "InputSpec": "fingerprint.model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fingerprint' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
