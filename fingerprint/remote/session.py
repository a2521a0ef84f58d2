"""An endpoint that is open: adapts images, asks in batches, joins the answers."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from fingerprint.engine.adapt import Adapter
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.remote.answers import joined
from fingerprint.remote.channel import Channel
from fingerprint.remote.interface import Manner, Meter, RemoteOptions
from fingerprint.remote.protocols import protocol_for
from fingerprint.remote.url import Endpoint

BATCH = 8  # inputs per request, where neither the user nor the host says


class EndpointSession:
    """One endpoint. Use it as a context manager.

    Args:
        endpoint: from `url.parse`.
        options: how to ask.
        meter: counts every input sent, those of retries and of a fixed batch's padding too.

    Raises:
        MissingExtra: the HTTP library is not installed.
        HostError, UnsupportedModel: the endpoint does not describe itself.
    """

    def __init__(self, endpoint: Endpoint, options: RemoteOptions, meter: Meter) -> None:
        self._channel, self._meter = Channel(endpoint, options), meter
        self._protocol = protocol_for(endpoint)(endpoint, self._channel, options)
        self.manner = Manner()
        try:
            self.signature: Signature = self._protocol.describe()
        except BaseException:
            self._channel.close()
            raise
        self._fixed = self.signature.batch
        self.step = self._fixed or 1
        self._batch = self._fixed or self._protocol.most or options.batch or BATCH

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """See `Answering.predict`."""
        adapter = Adapter(spec, self.signature if self.signature.shape else Signature((), spec.dtype))
        parts = []
        for start in range(0, len(images), self._batch):
            batch = adapter(images[start : start + self._batch])
            count = len(batch)
            if self._fixed and count < self._fixed:
                batch = np.concatenate([batch, np.repeat(batch[-1:], self._fixed - count, axis=0)])
            part = self._protocol.ask(batch, partial(self._meter.take, len(batch)))
            parts.append(part.first(count))
        return joined(parts, images, self.manner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
