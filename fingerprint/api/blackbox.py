"""Subjects that are no model file: endpoints, functions, answers given by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from fingerprint.api.results import Suspect
from fingerprint.api.subjects import Subject
from fingerprint.errors import DataError, UnsupportedModel
from fingerprint.model import Channels, InputSpec
from fingerprint.remote.byhand import RecordedSession, Responses
from fingerprint.remote.function import Function, FunctionSession, load
from fingerprint.remote.interface import Answering, Meter
from fingerprint.remote.protocols import protocol_for
from fingerprint.remote.session import EndpointSession
from fingerprint.remote.url import Endpoint, parse
from fingerprint.spec import FoundSpec

if TYPE_CHECKING:
    from fingerprint.api.verify import VerifyOptions
    from fingerprint.record import Fingerprint

FUNCTION_BATCH = 64  # inputs per call


def images_spec(shape: tuple[int, int, int]) -> FoundSpec:
    """The spec of a suspect that takes 8-bit images (H, W, C) as they are."""
    channels: Channels = "L" if shape[2] == 1 else "RGB"
    zero, one = (0.0,) * shape[2], (1.0,) * shape[2]
    return FoundSpec(InputSpec("NHWC", shape, "uint8", (0.0, 255.0), zero, one, channels), "8-bit images")


def function(text: str, options: VerifyOptions) -> FunctionSubject:
    """The subject of `module:callable`.

    Raises:
        UsageError: it can't be imported.
    """
    return FunctionSubject(text, load(text), options)


def endpoint(text: str, options: VerifyOptions) -> EndpointSubject:
    """The subject at a URL.

    Raises:
        UsageError: it has not the form of an endpoint, or shows a secret.
    """
    return EndpointSubject(parse(text, options.remote.protocol), options)


class EndpointSubject(Subject):
    """A model behind a URL. Its probes leave this machine."""

    checked = True

    def __init__(self, endpoint: Endpoint, options: VerifyOptions) -> None:
        self.suspect = Suspect(endpoint.url, None, "endpoint", endpoint.protocol)
        self.place = endpoint.origin
        self._endpoint, self._options = endpoint, options

    def __enter__(self) -> Self:
        return self

    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        """See `Subject.spec_for`: `--spec`; else none, but for hosts that take images and prepare them themselves."""
        given = self._options.spec
        if not protocol_for(self._endpoint).takes_images:
            return FoundSpec(given, "flag") if given else None
        shape = given.image_shape if given else fingerprint.manifest.probes.shape
        offset = given.class_offset if given else 0
        plain = images_spec(shape)
        return replace(plain, spec=replace(plain.spec, class_offset=offset))

    def identity(self) -> str | None:
        """See `Subject.identity`."""
        return repr(sorted(self._options.remote.to_dict().items()))

    @contextmanager
    def open(self, meter: Meter) -> Iterator[Answering]:
        """See `Subject.open`."""
        with EndpointSession(self._endpoint, self._options.remote, meter) as session:
            yield session


class FunctionSubject(Subject):
    """A function of the user's: trusted, called in this process, given 8-bit images unless `--spec` says otherwise."""

    checked = True

    def __init__(self, text: str, function: Function, options: VerifyOptions) -> None:
        self.suspect = Suspect(text, None, "function", "python")
        self._function, self._options = function, options

    def __enter__(self) -> Self:
        return self

    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        """See `Subject.spec_for`."""
        given = self._options.spec
        return FoundSpec(given, "flag") if given else images_spec(fingerprint.manifest.probes.shape)

    def identity(self) -> str | None:
        """See `Subject.identity`."""
        return None

    @contextmanager
    def open(self, meter: Meter) -> Iterator[Answering]:
        """See `Subject.open`."""
        yield FunctionSession(self._function, meter, self._options.remote.batch or FUNCTION_BATCH)


class ResponsesSubject(Subject):
    """Answers that a person brought back from a device.

    Args:
        path: of the file, as results show it.
        responses: what it holds.
        merkle_root: of the probes that were exported.
        order: the exported probes, as indices into the record.
        export: the export's id.

    Raises:
        DataError: not one answer per exported probe.
    """

    recorded = True

    def __init__(self, path: str, responses: Responses, merkle_root: str, order: Sequence[int], export: str) -> None:
        if responses.count != len(order):
            raise DataError(f"{path} holds {responses.count} answers, and {len(order)} probes were exported")
        self.suspect = Suspect(path, responses.sha256, "responses", "by hand")
        self._responses, self._root, self._order, self._export = responses, merkle_root, order, export

    def __enter__(self) -> Self:
        return self

    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        """See `Subject.spec_for`: the device got images, and fed them in its own way."""
        return replace(images_spec(fingerprint.manifest.probes.shape), origin="fed by hand")

    def answered(self, fingerprint: Fingerprint) -> Sequence[int] | None:
        """See `Subject.answered`.

        Raises:
            UnsupportedModel: the answers are to probes of another fingerprint.
        """
        if fingerprint.manifest.probes.merkle_root != self._root:
            raise UnsupportedModel("these are answers to probes of another fingerprint")
        return self._order

    def identity(self) -> str | None:
        """See `Subject.identity`."""
        return f"export {self._export}"

    @contextmanager
    def open(self, meter: Meter) -> Iterator[Answering]:
        """See `Subject.open`."""
        yield RecordedSession(self._responses, self._export, meter)
