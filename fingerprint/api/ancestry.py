"""Public ancestors of the owner's model: what they answer to its probes, and innocent kin made from them.

An ancestor of the owner's own label space answers the probes itself. With labelled images, innocent kin are made: other
models that begin at the ancestor and never see the owner's. Where the file gives gradients they are trained whole,
else only a linear layer on its answers, which is all that many small models on a frozen base are. Ancestors are opened
in this process, like the owner's model that was made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.owner import KEPT_VALUES, Owner
from fingerprint.data import CleanImages
from fingerprint.decision.reach import MADE_AUTHOR
from fingerprint.errors import CalibrationError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, InputSpec, Labels
from fingerprint.probes.screening import can_screen
from fingerprint.probes.seeds import derive, numpy_seed
from fingerprint.progress import Progress
from fingerprint.record import Ancestor, Fingerprint, Kin
from fingerprint.runtimes.digest import tensor_digests
from fingerprint.spec import find_spec

if TYPE_CHECKING:
    import torch

KIN = 16  # innocent kin made from each ancestor
STEPS = (60, 240)  # training steps of one of them, smallest and largest
BATCH = 64
MOST_IMAGES = 2000  # of the labelled images that kin learn from
HEAD_STEPS = 200
ROW_LENGTH = 5.0  # of standardised features, before the layer


@dataclass(frozen=True)
class AncestorOptions:
    """spec: of ancestors without a sidecar (None: the owner's). kin: how many to make from each, where images allow."""

    spec: InputSpec | None = None
    factory: str | None = None
    kin: int = KIN


def add_ancestors(
    fingerprint: Fingerprint,
    ancestors: Sequence[Path],
    data: CleanImages | None,
    options: AncestorOptions,
    *,
    progress: Progress,
) -> Fingerprint:
    """The record with public ancestors: an unsealed version of it.

    Args:
        fingerprint: the record.
        ancestors: files of the models that the owner's was made from.
        data: labelled images of the owner's task; without them no kin are made.
        options: how ancestors are opened.
        progress: told after every ancestor.

    Raises:
        UsageError: one is the owner's own, known already, or says nothing here.
    """
    for done, path in enumerate(ancestors, start=1):
        fingerprint = _with(fingerprint, path, data, options, progress)
        progress.step("ancestors", done, len(ancestors))
    return fingerprint


def _with(
    fingerprint: Fingerprint, path: Path, data: CleanImages | None, options: AncestorOptions, progress: Progress
) -> Fingerprint:
    manifest, payload = fingerprint.manifest, fingerprint.payload
    opened = Owner(path, options.factory)
    if opened.sha256 == manifest.owner.sha256 or (
        opened.weights_sha256 is not None and opened.weights_sha256 == manifest.owner.weights_sha256
    ):
        raise UsageError(f"{path} is the owner's own model", remedy="An ancestor is what that was made from.")
    if opened.sha256 in {a.sha256 for a in manifest.ancestors}:
        raise UsageError(f"{path} is an ancestor in the record already")
    found = find_spec(path, None)
    opened.bind(found.spec if found else options.spec or manifest.input_spec.to_input_spec())
    opened.find_gradients(progress)
    same = opened.classes == manifest.outputs and _knows(opened, data)
    labelled = can_screen(data, manifest.outputs)
    if not same and not labelled:
        raise UsageError(
            f"{path} does not answer in the classes of the owner's model, so what it shares can't be seen",
            remedy="Give labelled images with --data: a layer is learned on its answers.",
        )
    nets = _kin_nets(fingerprint, opened, data, options.kin, same=same, progress=progress) if labelled and data else []
    kin = [labels for labels, _ in nets]
    own = opened.predict(payload.probes).argmax(axis=1).astype(np.int64) if same else _vote(kin, manifest.outputs)
    entry = Ancestor(
        name=path.name[:200],
        sha256=opened.sha256,
        weights_sha256=opened.weights_sha256,
        tensors=tuple(tensor_digests(opened.runtime.weights(opened.path, opened.format))),
        shared=int((own == payload.targets).sum()),
    )
    progress.note(
        f"The ancestor {path.name} answers {entry.shared} of {len(own)} probes as the owner does; they do not count "
        + (f"against those who share it. {len(kin)} innocent kin were made from it." if kin else "against its heirs.")
    )
    if entry.shared == len(own):
        progress.note("No probe is left that the ancestor does not explain: by this record nobody can be accused.")
    if same and 2 * entry.shared > len(own):
        progress.note(f"create --screen-model {path} too makes probes that it does not answer as the owner does.")
    made = tuple(
        Kin(name=f"{MADE_AUTHOR} {i + 1}", ancestor_sha256=opened.sha256, accuracy=accuracy)
        for i, (_, accuracy) in enumerate(nets)
    )
    return replace(
        fingerprint,
        manifest=manifest.model_copy(update={"ancestors": (*manifest.ancestors, entry), "kin": (*manifest.kin, *made)}),
        payload=replace(
            payload,
            ancestor_labels=_stacked(payload.ancestor_labels, [own]),
            kin_labels=_stacked(payload.kin_labels, kin),
        ),
    )


def _stacked(before: NDArray[np.int64] | None, added: Sequence[Labels]) -> NDArray[np.int64] | None:
    rows = [*([] if before is None else before), *added]
    return np.stack(rows).astype(np.int64) if rows else None


def _knows(opened: Owner, data: CleanImages | None) -> bool:
    """Whether its classes are those of the labelled images; True where there are none to see it on."""
    if data is None or data.labels is None:
        return True
    sample = data.take(500)
    assert sample.labels is not None  # noqa: S101  (checked above)
    right = float((opened.predict(sample.images).argmax(axis=1) == sample.labels).mean())
    return right >= min(2.0 / opened.classes, 0.6)


def _vote(kin: Sequence[Labels], classes: int) -> Labels:
    """What most kin answer (N,): the base in the owner's label space; -1 where no more than half agree."""
    votes = np.stack([(np.stack(kin) == c).sum(axis=0) for c in range(classes)])  # (K, N)
    return np.where(votes.max(axis=0) * 2 > len(kin), votes.argmax(axis=0), -1).astype(np.int64)


# -- kin ---------------------------------------------------------------------------------------------------------------


def _kin_nets(
    fingerprint: Fingerprint, opened: Owner, data: CleanImages, count: int, *, same: bool, progress: Progress
) -> list[tuple[Labels, float]]:
    """Labels on the probes (N,) and accuracy on images held out, of each innocent relative."""
    import torch

    manifest, payload = fingerprint.manifest, fingerprint.payload
    seed = derive(payload.secret.tobytes(), f"kin/{opened.sha256}", manifest.owner.sha256)
    data = data.take(MOST_IMAGES, numpy_seed(seed, "images") % 2**32)
    values = sum(t.numel() for t in opened.module.parameters()) if opened.module is not None else 0
    whole = opened.module is not None and values <= KEPT_VALUES
    known, asked = _features(opened.predict(data.images)), _features(opened.predict(payload.probes))
    found, recalls = [], list[float]()
    with torch.random.fork_rng(devices=[]):
        for number in range(count):
            rng = np.random.default_rng([numpy_seed(seed, "kin") % 2**32, number])
            torch.manual_seed(int(rng.integers(2**62)))
            order = rng.permutation(len(data))
            cut = int(len(data) * rng.uniform(0.5, 0.9))
            own, held = order[:cut], order[cut:]
            if whole:
                answer = _trained_whole(opened, data, own, manifest.outputs, rng, same=same)
                labels, right = answer(payload.probes), answer(data.images[held]) == _labels(data)[held]
            else:
                head = _trained_head(known[own], _labels(data)[own], manifest.outputs, rng)
                labels, right = head(asked), head(known[held]) == _labels(data)[held]
            found.append((labels, float(right.mean()) if len(right) else 0.0))
            recalls.append(_recall(right, _labels(data)[held]))
            progress.step("innocent kin", number + 1, count)
    if recalls and max(recalls) <= 1.2 / manifest.outputs:
        raise CalibrationError(
            f"nothing learns the owner's classes from {opened.path.name}",
            remedy="Check its input spec, and the labels of --data.",
        )
    return found


def _labels(data: CleanImages) -> Labels:
    assert data.labels is not None  # noqa: S101  (can_screen checked it)
    return data.labels


def _features(outputs: Floats) -> Floats:
    """Outputs (N, F) as a linear layer can use them: probabilities are logged."""
    rows = outputs.astype(np.float32)
    if rows.min() >= 0.0 and bool(np.all(np.abs(rows.sum(axis=1) - 1.0) < 0.05)):
        return np.asarray(np.log(np.maximum(rows, 1e-6)))
    return rows


def _recall(right: NDArray[np.bool_], labels: Labels) -> float:
    """Mean over the classes that occur of the share that is right, (N,) each: no single class can carry it."""
    shares = [float(right[labels == each].mean()) for each in np.unique(labels)]
    return float(np.mean(shares)) if shares else 0.0


@dataclass(frozen=True)
class _Head:
    """A linear layer on features (N, F): labels (N,)."""

    weight: Floats
    bias: Floats
    centre: Floats
    scale: Floats

    def __call__(self, features: Floats) -> Labels:
        logits = (features - self.centre) * self.scale @ self.weight + self.bias
        return np.asarray(logits.argmax(axis=1), np.int64)


def _trained_head(features: Floats, labels: Labels, classes: int, rng: np.random.Generator) -> _Head:
    """Learn one on features (N, F) and labels (N,), with a random weight decay.

    Centre and spread are those of the images that it learns from: were the others counted too, whatever the layer gives
    these would be taken from those where there are more features than images. Rows have the length `ROW_LENGTH`, so
    that a step moves the logits as far with a thousand features as with thirty; the bias starts at the frequencies.
    """
    import torch

    centre, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 1e-6, ROW_LENGTH / np.maximum(spread, 1e-6), 0.0) / np.sqrt(features.shape[1])
    x, y = torch.from_numpy(np.ascontiguousarray((features - centre) * scale, np.float32)), torch.from_numpy(labels)
    layer = torch.nn.Linear(x.shape[1], classes)
    frequency = (torch.bincount(y, minlength=classes) + 1.0) / (len(y) + classes)
    layer.bias.data.copy_(frequency.log())
    decay = float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-1))))
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=decay)
    for _ in range(HEAD_STEPS):
        batch = torch.randint(len(x), (min(len(x), 4 * BATCH),))
        loss = torch.nn.functional.cross_entropy(layer(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return _Head(layer.weight.detach().T.numpy(), layer.bias.detach().numpy(), centre, scale)


class _Answering:
    """A trained relative: labels (N,) of 8-bit images (N, H, W, C)."""

    def __init__(self, logits: Callable[[torch.Tensor], torch.Tensor], chunk: int) -> None:
        self._logits, self._chunk = logits, chunk

    def __call__(self, images: Images) -> Labels:
        import torch

        with torch.inference_mode():
            parts = [
                self._logits(_pixels(images[i : i + self._chunk])).argmax(1) for i in range(0, len(images), self._chunk)
            ]
        return np.asarray(torch.cat(parts).numpy(), np.int64) if parts else np.zeros(0, np.int64)


def _pixels(images: Images) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()


def _trained_whole(
    opened: Owner, data: CleanImages, own: NDArray[np.int64], classes: int, rng: np.random.Generator, *, same: bool
) -> _Answering:
    """Train a copy of the ancestor on some images: all weights, and a layer on top where its classes are others."""
    import copy

    import torch

    from fingerprint.probes.gradient import DifferentiableOwner

    assert opened.module is not None  # noqa: S101  (the caller checked)
    body = DifferentiableOwner(copy.deepcopy(opened.module), opened.spec, opened.classes, opened.batches)
    layer = torch.nn.Identity() if same else torch.nn.Linear(opened.classes, classes)
    tensors = {id(t): t for t in (*body.module.parameters(), *body.module.buffers())}
    weights = [t.requires_grad_(True) for t in tensors.values() if t.is_floating_point() and t.ndim >= 2]
    rate = float(np.exp(rng.uniform(np.log(2e-4), np.log(3e-3))))
    added = list(layer.parameters())
    optimisers = [torch.optim.Adam(weights, lr=rate), *([torch.optim.Adam(added, lr=1e-2)] if added else [])]
    labels = torch.from_numpy(_labels(data))
    size = min(BATCH, len(own), body.chunk)
    for _ in range(int(rng.integers(*STEPS))):
        batch = rng.choice(own, size, replace=False)
        logits = layer(body.logits(_pixels(data.images[batch])))
        loss = torch.nn.functional.cross_entropy(logits, labels[batch])
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
    for weight in weights:
        weight.requires_grad_(False)
    return _Answering(lambda images: layer(body.logits(images)), body.chunk)
