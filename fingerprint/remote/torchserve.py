"""TorchServe's predictions call: one encoded image per request, prepared by the server's own handler.

https://pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import HostFailed
from fingerprint.model import Signature
from fingerprint.remote.answers import Answers, from_json
from fingerprint.remote.interface import ProtocolName
from fingerprint.remote.protocols import HostProtocol


class TorchServe(HostProtocol):
    """One model of a TorchServe server. Its answers: a list of scores, {label: score} of the top k, or a label."""

    name: ClassVar[ProtocolName] = "torchserve"
    takes_images: ClassVar[bool] = True
    most: int | None = 1

    def describe(self) -> Signature:
        """See `HostProtocol.describe`: the predictions call describes nothing."""
        return Signature((), "uint8")

    def ask(self, batch: NDArray[np.generic], sending: Callable[[], None]) -> Answers:
        """See `HostProtocol.ask`: one image (1, H, W, C) as PNG."""
        body = png(batch[0].astype(np.uint8))
        found = self.channel.post(self.endpoint.path, body, {"Content-Type": "image/png"}, sending).json()
        while isinstance(found, list) and len(found) == 1:
            found = found[0]
        if isinstance(found, Mapping) and not found:
            raise HostFailed("it answers an empty object")
        return from_json([found], 1, self.options.class_names)


def png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of an image (H, W, C), RGB or grey."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(out, "PNG")
    return out.getvalue()
