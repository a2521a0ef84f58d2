"""Control sets: probe sets of the same make for other owners, kept in the record to calibrate by.

Their models are opened like an owner's, in this process: give only such as you trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.choosing import ProbeSet, make_probes
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.references import find_references
from fingerprint.api.reproduce import require_images, require_no_screen_models
from fingerprint.errors import CalibrationError, CreateError, ModelError, SpecError, UsageError
from fingerprint.model import Images, Labels
from fingerprint.probes.seeds import derive
from fingerprint.progress import Progress
from fingerprint.record import Control, Fingerprint, Manifest, control_sha256
from fingerprint.runtimes.formats import carries_code, sniff
from fingerprint.runtimes.parts import model_sha256

MOST_BYTES = 512 * 1024**2  # of control probes in one record


def add_control_sets(
    fingerprint: Fingerprint, models: Sequence[Path], *, options: CreateOptions, progress: Progress
) -> Fingerprint:
    """The record with a control set for each model: an unsealed version of it.

    Args:
        fingerprint: the record.
        models: files or folders of models that are related neither to the owner's nor to each other.
        options: where images come from (`data`, those of create), and what may be opened.
        progress: told after every set.

    Raises:
        UsageError: none there, or the record does not say how its probes were made.
        CalibrationError: one is the owner's own, or can't be used (named).
    """
    manifest, payload = fingerprint.manifest, fingerprint.payload
    made = manifest.making
    if made is None:
        raise UsageError("this record does not say how its probes were made, so no control set can be of the same make")
    require_no_screen_models(fingerprint)
    if made.data_sha256 is not None and options.data is None:
        raise UsageError("this record was made with images", remedy="Give the same with --data for its control sets.")
    if made.data_sha256 is not None and options.data is not None:
        require_images(fingerprint, options.data)
    known = {manifest.owner.sha256, manifest.owner.weights_sha256} | {c.owner_sha256 for c in manifest.controls}
    paths = [p for p in find_references(models) if model_sha256(p)[0] not in known - {manifest.owner.sha256}]
    if not paths:
        raise UsageError("all of these control sets are in the record already")
    _require_room(fingerprint, len(paths))
    controls, probes, targets = list(manifest.controls), _old(payload.control_probes), _old(payload.control_targets)
    for done, path in enumerate(paths, start=1):
        found = _probes_of(path, fingerprint, options)
        if found.owner.sha256 == manifest.owner.sha256 or (
            found.owner.weights_sha256 is not None and found.owner.weights_sha256 == manifest.owner.weights_sha256
        ):
            raise CalibrationError(f"{path} is the owner's own model", remedy="Control sets are of other owners.")
        fitted = _fit(found, fingerprint, path)
        probes.append(fitted[0])
        targets.append(fitted[1])
        digest = control_sha256(*fitted)
        controls.append(Control(owner_sha256=found.owner.sha256, author=found.owner.spec.author, probes_sha256=digest))
        progress.step("control sets", done, len(paths))
    return replace(
        fingerprint,
        manifest=manifest.model_copy(update={"controls": tuple(controls)}),
        payload=replace(payload, control_probes=np.stack(probes), control_targets=np.stack(targets)),
    )


def _old(value: NDArray[np.generic] | None) -> list[NDArray[np.generic]]:
    return [] if value is None else list(value)


def _require_room(fingerprint: Fingerprint, more: int) -> None:
    sets = len(fingerprint.manifest.controls) + more
    if sets * fingerprint.payload.probes.nbytes > MOST_BYTES:
        most = MOST_BYTES // fingerprint.payload.probes.nbytes
        raise UsageError(
            f"{sets} control sets of these probes take more than {MOST_BYTES // 1024**2} MiB; {most} fit",
            remedy="Give fewer, or make the fingerprint with a smaller --budget.",
        )


def _probes_of(path: Path, fingerprint: Fingerprint, options: CreateOptions) -> ProbeSet:
    """What `create` makes of another owner, with the parameters of the record."""
    manifest = fingerprint.manifest
    made = manifest.making
    assert made is not None  # noqa: S101  (the caller checked)
    format = sniff(path)
    if format is not None and carries_code(format) and not options.allow_code:
        raise CalibrationError(
            f"{path} is of a format that can carry code, and a control set's model is opened in this process",
            remedy="Pass --allow-code if you trust where it is from.",
        )
    digest, _ = model_sha256(path)
    try:
        found = make_probes(
            path,
            CreateOptions(
                name=manifest.name,
                data=options.data if made.data_sha256 is not None else None,
                budget=made.budget,
                families=_families(manifest),
                screen=made.screens,
                integrity=made.integrity,
                factory=options.factory,
                secret=derive(fingerprint.payload.secret.tobytes(), f"control/{digest}", manifest.owner.sha256),
            ),
        )
    except (ModelError, SpecError, CreateError) as error:
        raise CalibrationError(
            f"no control set can be made of {path}: {error.message}", remedy=error.remedy or "Leave it out."
        ) from error
    return found


def _families(manifest: Manifest) -> list[str] | None:
    """The families to ask for: the default depends on what a model's format gives, and all sets are of one make."""
    if manifest.making is not None and manifest.making.families is not None:
        return list(manifest.making.families)
    made = [family.name for family in manifest.families if family.role == "lineage"]
    return None if made == ["characteristic"] else made


def _fit(found: ProbeSet, fingerprint: Fingerprint, path: Path) -> tuple[Images, Labels]:
    """The set in the families and sizes of the true one.

    Raises:
        CalibrationError: other families, images or classes, or fewer probes came out.
    """
    manifest, payload = fingerprint.manifest, fingerprint.payload
    names = [f.name for f in manifest.families]
    if list(found.families) != names or found.images.shape[1:] != payload.probes.shape[1:]:
        raise CalibrationError(
            f"{path} gives {', '.join(found.families)} probes of {found.images.shape[1:]}; the record has "
            f"{', '.join(names)} of {payload.probes.shape[1:]}",
            remedy="Give models of the same task, in formats that give gradients where the owner's does.",
        )
    if found.owner.classes != manifest.outputs:
        raise CalibrationError(f"{path} has {found.owner.classes} classes, the owner's model {manifest.outputs}")
    index = []
    for i, family in enumerate(manifest.families):
        rows = np.nonzero(found.family == i)[0]
        if len(rows) < family.count:
            raise CalibrationError(f"only {len(rows)} of {family.count} {family.name} probes came out of {path}")
        index.append(rows[: family.count])
    chosen = np.concatenate(index)
    return found.images[chosen], found.targets[chosen]
