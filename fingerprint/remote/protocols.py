"""What a protocol of an endpoint is, and which there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from fingerprint.model import Signature
from fingerprint.remote.answers import Answers
from fingerprint.remote.interface import ProtocolName, RemoteOptions
from fingerprint.remote.url import Endpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerprint.remote.channel import Channel

_KINDS: dict[ProtocolName, str] = {
    "oip": "fingerprint.remote.oip:OpenInference",
    "tfserving": "fingerprint.remote.tfserving:TensorFlowServing",
    "torchserve": "fingerprint.remote.torchserve:TorchServe",
}


class HostProtocol(ABC):
    """How to ask one endpoint. Made for one session.

    Attributes:
        takes_images: it wants encoded images and prepares them itself: no input spec is needed.
        most: inputs that one request can hold; None = no bound.
    """

    name: ClassVar[ProtocolName]
    takes_images: ClassVar[bool] = False
    most: int | None = None

    def __init__(self, endpoint: Endpoint, channel: Channel, options: RemoteOptions) -> None:
        self.endpoint, self.channel, self.options = endpoint, channel, options

    @abstractmethod
    def describe(self) -> Signature:
        """Ask what the model says of itself.

        Raises:
            HostError, UnsupportedModel.
        """

    @abstractmethod
    def ask(self, batch: NDArray[np.generic], sending: Callable[[], None]) -> Answers:
        """Answers to one batch (B, ...) in the model's layout and dtype; `sending` is called before every attempt.

        Raises:
            HostError, ModelError, BudgetSpent.
        """


def protocol_for(endpoint: Endpoint) -> type[HostProtocol]:
    """The class that speaks an endpoint's protocol."""
    module, _, name = _KINDS[endpoint.protocol].partition(":")
    kind: type[HostProtocol] = getattr(import_module(module), name)
    return kind
