"""Owners of whom there are answers only: a compiled file, a served model, a function of the user's.

The same channels as `verify` has for suspects. A compiled file runs in an isolated worker: its native runtime may crash
without taking along what was made so far, and is then opened anew. There are no gradients and no edited copies: only
families that need neither can be made, and robustness is not measured.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np

from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.errors import CreateError, SpecError, WorkerError
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.progress import Progress
from fingerprint.remote.interface import Answering, Manner, Meter
from fingerprint.remote.places import is_function, is_url
from fingerprint.runtimes.formats import Format, sniff, title
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.parts import main_file
from fingerprint.runtimes.registry import runtime_for
from fingerprint.runtimes.sketch import WeightSketch
from fingerprint.spec import find_spec
from fingerprint.transforms.files import EDITABLE

REQUEST = 256  # images that a worker is asked at once: what is lost where it dies


def open_owner(place: Path | str, options: CreateOptions) -> Owner:
    """The owner's model at a place: a file, a URL, or `module:callable`. A file of that name wins. Close it.

    Raises:
        UsageError: no such file, no URL of a known form, or a function that can't be imported.
        UnreadableModel, UnsupportedModel, MissingExtra, WorkerError, HostError: it can't be opened.
    """
    if isinstance(place, str) and is_url(place):
        return _served(place, options)
    if isinstance(place, str) and is_function(place):
        return _function(place, options)
    path = main_file(Path(place))
    format = sniff(path) if path.is_file() else None
    if format is None or format in (*EDITABLE, Format.PICKLE):
        return Owner(path, options.factory)
    return _compiled(path, format)


class AskedOwner(Owner):
    """An owner that only answers.

    Args:
        name: how messages call it.
        identity: what the record's digest and size are of: the bytes of an address. None for a file.
        kind: the record's format and runtime.
        model: opened.
        close: gives back what it was opened with.
        spec: the input spec that a user's choice becomes; None where it is not known.
    """

    editable: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        identity: bytes,
        kind: tuple[str, str],
        model: Answering,
        close: Callable[[], object],
        spec: Callable[[InputSpec | None], InputSpec | None],
    ) -> None:
        self.path, self.name, self.passes, self.module = Path(name), name, 0, None
        self.sha256, self.size = hashlib.sha256(identity).hexdigest(), len(identity)
        self.format, self.runtime_name = kind
        self.options, self.weights_sha256 = LoadOptions(), None
        self.model = self._answering = model
        self.what = (
            f"{name} is no file: the record names it by the SHA-256 of its address, and knows nothing of its weights"
        )
        self._spec, self._close = spec, weakref.finalize(self, close)
        self._weights: WeightSketch | None = None

    @property
    def batches(self) -> tuple[int, int | None]:
        """Smallest and largest batch that the model takes."""
        fixed = self.model.signature.batch
        return (fixed, fixed) if fixed else (1, None)

    def given_spec(self, given: InputSpec | None) -> InputSpec | None:
        """See `Owner.given_spec`."""
        return self._spec(given)

    def close(self) -> None:
        """End its process, or hang up."""
        self._close()

    def weight_sketch(self) -> WeightSketch | None:
        """See `Owner.weight_sketch`."""
        return self._weights

    def find_gradients(self, progress: Progress) -> None:
        """Say what is left out of the record."""
        progress.note(
            f"{self.what}. It gives answers and no gradients: only families that need none are used. No compressed "
            "copies are made: robustness is not measured, and a verdict is derived or inconclusive, never unrelated."
        )

    def predict(self, images: Images) -> Floats:
        """See `Owner.predict`. Labels come as one-hot rows."""
        if not self._answering.manner.open_classes:
            return super().predict(images)
        self.passes += len(images)
        found = self.model.predict(images, self.spec)[:, self.spec.class_offset :]
        if found.shape[1] > self.classes:
            raise SpecError(f"{self.name} answers more labels than the {self.spec.classes} classes of the spec")
        return np.pad(found, ((0, 0), (0, self.classes - found.shape[1])))

    def copy(self, how: str) -> NoReturn:
        """Never: see `editable`. Raises CreateError."""
        raise CreateError(f"no copy ({how}) can be made of {self.name}, which only answers")

    def _width(self, images: Images) -> int:
        width = super()._width(images)
        if not self._answering.manner.open_classes:
            return width
        if self.spec.classes is None:
            raise SpecError(
                f"{self.name} answers labels only, so it does not tell how many classes there are",
                remedy="State `classes` in the file of --spec.",
            )
        return self.spec.classes


class _Worker:
    """A file in an isolated worker; one that died, or used up its time, is opened anew and asked again, once."""

    def __init__(self, opened: Callable[[], SuspectSession]) -> None:
        self._opened, self.session = opened, opened()
        self.manner, self.step = Manner(), 1

    @property
    def signature(self) -> Signature:
        return self.session.signature

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """See `Answering.predict`."""
        parts = [self._part(images[i : i + REQUEST], spec) for i in range(0, len(images), REQUEST)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _part(self, images: Images, spec: InputSpec) -> Floats:
        try:
            return self.session.predict(images, spec)
        except WorkerError:
            self.session.close()
            self.session = self._opened()
            return self.session.predict(images, spec)


def _compiled(path: Path, format: Format) -> AskedOwner:
    """A file whose weights can't be edited."""
    runtime = runtime_for(format)
    with ExitStack() as stack:
        sealed = stack.enter_context(SealedFile.of(path))
        pool = stack.enter_context(WorkerPool())
        worker = _Worker(lambda: pool.open(sealed, allow_code=True))
        weights = worker.session.weights_sha256()
        sketched = worker.session.weight_sketch() if weights is not None else None
        found = find_spec(path, None)
        beside = found.spec if found else None
        made = AskedOwner(
            path.name, b"", (str(format), runtime.name), worker, stack.pop_all().close, lambda given: given or beside
        )
    made.path, made.sha256, made.size = path, sealed.sha256, sealed.size
    made.what = f"{path.name} is {title(format)}, whose weights can't be edited"
    made.weights_sha256, made._weights = weights, sketched
    return made


def _function(text: str, options: CreateOptions) -> AskedOwner:
    """`module:callable`: called in this process."""
    from fingerprint.api.blackbox import FUNCTION_BATCH
    from fingerprint.remote.function import FunctionSession, load

    session = FunctionSession(load(text), Meter(options.queries, "--queries"), options.remote.batch or FUNCTION_BATCH)
    return AskedOwner(text, text.encode(), ("function", "python"), session, lambda: None, lambda given: given)


def _served(text: str, options: CreateOptions) -> AskedOwner:
    """A model behind a URL. Probes leave this machine."""
    from fingerprint.api.blackbox import images_spec
    from fingerprint.remote.protocols import protocol_for
    from fingerprint.remote.session import EndpointSession
    from fingerprint.remote.url import parse

    endpoint = parse(text, options.remote.protocol)

    def spec(given: InputSpec | None) -> InputSpec | None:
        if given is None or not protocol_for(endpoint).takes_images:
            return given
        plain = images_spec(given.image_shape).spec
        return replace(plain, class_offset=given.class_offset, classes=given.classes, author=given.author)

    with ExitStack() as stack:
        session = stack.enter_context(EndpointSession(endpoint, options.remote, Meter(options.queries, "--queries")))
        return AskedOwner(
            endpoint.url, endpoint.url.encode(), ("endpoint", endpoint.protocol), session, stack.pop_all().close, spec
        )
