"""The owner's model while a fingerprint is made: opened in this process, trusted, differentiable where it can be."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from fingerprint.data import CleanImages
from fingerprint.decision.distributions import binomial_tail
from fingerprint.decision.statistics import align
from fingerprint.engine.local import LocalModel, open_local
from fingerprint.engine.settle import ABOVE_CHANCE, candidates, settle
from fingerprint.errors import DegenerateModel, NoGradients, SpecError, UnreadableModel, UnsupportedModel, UsageError
from fingerprint.limits import DEFAULT
from fingerprint.model import Floats, Images, InputSpec, Signature, labels_of
from fingerprint.probes.selection import SELECTION_COPIES
from fingerprint.progress import Progress
from fingerprint.runtimes.digest import weights_sha256
from fingerprint.runtimes.formats import Format, sniff, title
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.parts import main_file, model_sha256
from fingerprint.runtimes.registry import runtime_for
from fingerprint.runtimes.sketch import WeightSketch, sketch
from fingerprint.spec import find_spec
from fingerprint.transforms.derive import parse_how
from fingerprint.transforms.files import EDITABLE
from fingerprint.transforms.interface import DeriveContext, WeightTransform

if TYPE_CHECKING:
    import torch

Predict = Callable[[Images], Floats]


KEPT_VALUES = 32_000_000  # weights of an owner whose compressed copies are kept between rounds (128 MiB each)


class Asked(Protocol):
    """An opened model that answers images."""

    @property
    def signature(self) -> Signature:
        """What it says of its input and output."""
        ...

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """Answers (N, K) to canonical 8-bit images (N, H, W, C), fed as `spec` says."""
        ...


class Owner:
    """The released model: answers, gradients, and transformed copies of itself. Counts example-passes.

    This one is a file whose weights can be edited. `api.asked_owner` has those of whom there are answers only; they are
    not `editable`, and give no gradients and no copies.
    """

    editable: ClassVar[bool] = True

    def __init__(self, path: Path, factory: str | None) -> None:
        if not path.is_file():
            raise UsageError(f"no such model file: {path}")
        self.path = path = main_file(path)
        self.sha256, self.size = model_sha256(path)
        if not self.size:
            raise UnreadableModel(f"{path} is empty")
        if self.size > DEFAULT.model_bytes:
            raise UnreadableModel(f"{path} is larger than {DEFAULT.model_bytes} bytes")
        format = sniff(path)
        if format is None:
            raise UnreadableModel(
                f"{path} is not a model file of a known format",
                remedy="Known formats are listed by: fingerprint doctor",
            )
        self.format = str(format)
        self.runtime = runtime_for(format)
        self.runtime_name, self.name = self.runtime.name, path.name
        if format not in (*EDITABLE, Format.PICKLE):
            raise UnsupportedModel(
                f"{path} is {title(format)}, whose weights can't be edited, as is needed here",
                remedy="Give the .pt2, .onnx or .tflite of the same model.",
            )
        self.options = LoadOptions(factory=factory)
        self.local: LocalModel = open_local(path, self.format, self.options)
        self.model: Asked = self.local
        self.weights_sha256 = weights_sha256(self.runtime.weights(path, self.format))
        self.passes = 0
        self._copies: dict[str, Predict] = {}
        self.spec: InputSpec
        self.classes: int
        self.module: torch.nn.Module | None = None

    @property
    def batches(self) -> tuple[int, int | None]:
        """Smallest and largest batch that the model takes."""
        fixed = self.model.signature.batch
        return (fixed, fixed) if fixed else self.local.loaded.batch_range

    def given_spec(self, given: InputSpec | None) -> InputSpec | None:
        """The input spec that was given, else that of its sidecar; None where it must be detected."""
        found = find_spec(self.path, given)
        return found.spec if found else None

    def close(self) -> None:
        """Give back what it was opened with."""

    def weight_sketch(self) -> WeightSketch | None:
        """The summary of its weights; None where the format hides them."""
        weights = self.runtime.weights(self.path, self.format)
        return sketch(weights, self.format) if weights else None

    def bind(self, spec: InputSpec) -> None:
        """Fix the input spec; learn the number of classes by asking."""
        self.spec = spec
        images = np.random.default_rng(0).integers(0, 256, (2, *spec.image_shape), dtype=np.uint8)
        width = self._width(images)
        self.classes = width - spec.class_offset
        if self.classes < 2:
            raise SpecError(f"the model answers {width} numbers; at least 2 classes above class_offset are needed")
        if spec.classes is not None and spec.classes != width:
            raise SpecError(f"the spec says {spec.classes} classes, the model answers {width}")

    def _width(self, images: Images) -> int:
        """Numbers that the model answers per input."""
        return int(self.model.predict(images, self.spec).shape[1])

    def find_gradients(self, progress: Progress) -> None:
        """Open the model differentiably; say so where that can't be."""
        try:
            self.module = self.local.loaded.differentiable()
        except NoGradients as error:
            progress.note(f"No gradients from this file ({error.message}); only families that need none are used.")

    def predict(self, images: Images) -> Floats:
        """Outputs (N, classes) on 8-bit images, cut to the common classes."""
        self.passes += len(images)
        return np.ascontiguousarray(align(self.model.predict(images, self.spec), self.spec.class_offset, self.classes))

    @contextmanager
    def copy(self, how: str) -> Iterator[Predict]:
        """A transformed copy of the owner, answering like `predict`."""
        (transform,) = parse_how(how)
        assert isinstance(transform, WeightTransform)  # noqa: S101  (the lists in selection.py hold no others)
        if self.module is not None:
            yield self._counted(self._kept_copy(self.module, transform))
            return
        with tempfile.TemporaryDirectory(prefix="fingerprint-") as folder:
            out = Path(folder) / self.path.name
            transform.apply(self.path, out, DeriveContext(self.spec))
            copied = open_local(out, self.format, self.options)
            offset = self.spec.class_offset
            yield self._counted(lambda images: align(copied.predict(images, self.spec), offset, self.classes))

    def _counted(self, predict: Predict) -> Predict:
        def counted(images: Images) -> Floats:
            self.passes += len(images)
            try:
                return predict(images)
            except DegenerateModel:  # compressed until it answers one thing: no label, no margin
                return np.zeros((len(images), self.classes), np.float32)

        return counted

    def _kept_copy(self, module: torch.nn.Module, transform: WeightTransform) -> Predict:
        """A copy of the module; those that selection asks in every round are kept, unless they are large."""
        how = transform.spell()
        if how in self._copies:
            return self._copies[how]
        made = self._module_copy(module, transform)
        values = sum(t.numel() for t in (*module.parameters(), *module.buffers()))
        if how in SELECTION_COPIES and values <= KEPT_VALUES:
            self._copies[how] = made
        return made

    def _module_copy(self, module: torch.nn.Module, transform: WeightTransform) -> Predict:
        from fingerprint.transforms.weights import edit_module

        return self.answering(edit_module(module, transform))

    def answering(self, module: torch.nn.Module) -> Predict:
        """A module of the owner's kind that answers 8-bit images as `predict` does."""
        import torch

        from fingerprint.probes.gradient import DifferentiableOwner

        copied = DifferentiableOwner(module, self.spec, self.classes, self.batches)

        def predict(images: Images) -> Floats:
            parts = []
            with torch.inference_mode():
                for start in range(0, len(images), copied.chunk):
                    batch = torch.from_numpy(images[start : start + copied.chunk]).permute(0, 3, 1, 2).float()
                    parts.append(copied.logits(batch))
            return np.asarray(torch.cat(parts).cpu().numpy(), np.float32)

        return predict


def detect_spec(owner: Owner, data: Callable[[InputSpec], CleanImages | None], progress: Progress) -> InputSpec:
    """Detect an owner's input spec on labelled clean images.

    Raises:
        SpecError: no labelled images, or nothing explains them better than chance.
    """
    signature = owner.model.signature
    remedy = "Give --spec FILE or MODEL.spec.json, or labelled images with --data."
    if len(signature.shape) != 4 or None in signature.shape[1:] or signature.classes is None:
        raise SpecError("there is no input spec, and the file does not say the shape of its input", remedy=remedy)
    depth = signature.shape[1] if signature.layout == "NCHW" else signature.shape[3]
    guess = InputSpec(
        layout=signature.layout or "NCHW",
        shape=(signature.shape[1] or 0, signature.shape[2] or 0, signature.shape[3] or 0),
        dtype=signature.dtype,
        channels="L" if depth == 1 else "RGB",
    )
    images = data(guess)
    if images is None or images.labels is None:
        raise SpecError("there is no input spec for the owner's model", remedy=remedy)
    highest = int(images.labels.max()) + 1
    classes = max(highest, signature.classes - 1)  # with and without a background class
    settled = settle(owner.model.predict, candidates(signature, guess), images.take(500), classes)
    if not settled.settings or settled.settings[0].labels is not None:
        raise SpecError("no input setting makes the model answer the images better than chance", remedy=remedy)
    spec = replace(settled.settings[0].spec, classes=signature.classes)
    others = f" ({len(settled.settings) - 1} others do as well)" if len(settled.settings) > 1 else ""
    progress.note(
        f"Input spec detected: range {spec.range}, mean {spec.mean}, std {spec.std}, {spec.channels}, class offset "
        f"{spec.class_offset}: accuracy {settled.accuracy:.0%} on {settled.images} images{others}. --spec would fix it."
    )
    return spec


def confirm_spec(owner: Owner, data: CleanImages, progress: Progress) -> None:
    """Check that the owner, fed by its spec, answers labelled images better than chance. Raises SpecError."""
    sample = data.take(500)
    assert sample.labels is not None  # noqa: S101  (the caller checked)
    right = int((labels_of(owner.predict(sample.images)) == sample.labels).sum())
    if binomial_tail(right, len(sample), 1.0 / owner.classes) > ABOVE_CHANCE:
        raise SpecError(
            f"fed by this spec the model gets {right} of {len(sample)} labelled images right: no better than chance",
            remedy="Check range, mean, std, channels and class_offset of the spec, and the labels of --data.",
        )
    progress.note(f"The model gets {right / len(sample):.0%} of {len(sample)} labelled images right.")
