"""calibrate: more that a record's error is calibrated on, as an unsealed new version of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fingerprint.api.references import calibrate
from fingerprint.data import CleanImages, load_images, look_for_images
from fingerprint.errors import CalibrationError, DataError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from fingerprint.progress import Progress
from fingerprint.record import Fingerprint
from fingerprint.runtimes.parts import main_file, model_sha256


@dataclass(frozen=True)
class More:
    """What to add. references: files or folders. judged: files that a person judged unrelated in a run, and its id.

    make_references: nets to train from `data`. control_sets: other owners' models. ancestors: public models that the
    owner's was made from.
    """

    references: Sequence[Path] = ()
    judged: Sequence[Path] = ()
    run: str | None = None
    make_references: int = 0
    control_sets: Sequence[Path] = ()
    ancestors: Sequence[Path] = ()
    data: Path | None = None
    allow_code: bool = False
    factory: str | None = None


def recalibrate(fingerprint: Fingerprint, more: More, *, progress: Progress) -> Fingerprint:
    """The same fingerprint with more to calibrate on.

    Raises:
        UsageError, CalibrationError, DataError: nothing to add, or it can't be used (named).
    """
    made = fingerprint
    if more.data is not None:
        used = more.make_references or more.control_sets or more.ancestors
        if not used and (more.references or more.judged):
            raise UsageError(
                "images are of no use for references that are given",
                remedy="--data goes with --make-references, --control-set or --ancestor.",
            )
        look_for_images(more.data)
    opening = {"allow_code": more.allow_code, "factory": more.factory}
    if more.references:
        made = calibrate(made, more.references, progress=progress, **opening)  # type: ignore[arg-type]
    if more.judged:
        origin = f"run {more.run}"
        made = calibrate(made, more.judged, origin=origin, progress=progress, **opening)  # type: ignore[arg-type]
    data = _images(fingerprint, more.data) if more.make_references or more.ancestors else None
    if more.make_references:
        from fingerprint.api.made_references import add_made_references

        made = add_made_references(made, data, more.make_references, progress=progress)
    if more.control_sets:
        from fingerprint.api.control_sets import add_control_sets
        from fingerprint.api.create_options import CreateOptions

        like = CreateOptions(made.manifest.name, data=more.data, allow_code=more.allow_code, factory=more.factory)
        made = add_control_sets(made, more.control_sets, options=like, progress=progress)
    if more.ancestors:
        from fingerprint.api.ancestry import AncestorOptions, add_ancestors

        made = add_ancestors(made, more.ancestors, data, AncestorOptions(factory=more.factory), progress=progress)
    if made is fingerprint:
        raise UsageError(
            "there is nothing to calibrate with",
            remedy="Give --reference, --from-run, --make-references, --control-set or --ancestor.",
        )
    manifest = made.manifest.model_copy(update={"previous": fingerprint.id, "tensors": None})
    made = replace(made, manifest=manifest, id=None)
    made.check()
    return made


def _images(fingerprint: Fingerprint, path: Path | None) -> CleanImages | None:
    if path is None:
        return None
    height, width, depth = fingerprint.manifest.probes.shape
    limit = min(DEFAULT.data_images, 2 * 1024**3 // (height * width * depth))
    data = load_images(path, (height, width, depth), fingerprint.manifest.outputs, limit)
    if data.labels is None:
        raise DataError(f"the images of {path} are unlabelled", remedy="One folder per class, or an .npz with labels.")
    return data


def judged_unrelated(
    rows: Sequence[Mapping[str, object]], unrelated: Sequence[str], related: Sequence[str]
) -> list[Path]:
    """The suspects of a run that a person takes for unrelated: all but those named as related.

    A suspect that the run called derived must be named as one or the other: the tool's own verdict may neither put a
    model among the references nor keep it out, for either would bias the error.

    Args:
        rows: the run's results.
        unrelated: paths or digests (8 digits or more) that a person judged unrelated.
        related: the same, judged related: left out.

    Raises:
        UsageError: a name is no suspect of the run, or a suspect called derived was not judged.
        CalibrationError: a file is not there any more, or is another one.
    """
    suspects: dict[str, tuple[Path, bool]] = {}
    for row in rows:
        suspect, verdict = row.get("suspect"), row.get("verdict")
        if not isinstance(suspect, Mapping) or suspect.get("sha256") is None or row.get("status") != "decided":
            continue
        derived = isinstance(verdict, Mapping) and verdict.get("lineage") == "derived"
        digest, path = str(suspect["sha256"]), Path(str(suspect["path"]))
        suspects[digest] = (path, derived or suspects.get(digest, (path, False))[1])
    yes, no = _named(unrelated, suspects), _named(related, suspects)
    if yes & no:
        raise UsageError(f"{suspects[next(iter(yes & no))][0]} is named as related and as unrelated")
    open_ones = [str(path) for digest, (path, derived) in suspects.items() if derived and digest not in yes | no]
    if open_ones:
        raise UsageError(
            f"the run called these derived: {', '.join(open_ones)}",
            remedy="Judge each yourself: --related PATH leaves it out, --unrelated PATH makes it a reference.",
        )
    chosen = [(digest, path) for digest, (path, _) in suspects.items() if digest not in no]
    if not chosen:
        raise UsageError("the run has no suspect that could be a reference")
    for digest, path in chosen:
        if not path.is_file() or model_sha256(main_file(path))[0] != digest:
            raise CalibrationError(
                f"{path} is not there any more as the run saw it", remedy="Put it back, or give it with --reference."
            )
    return [path for _, path in chosen]


def _named(names: Sequence[str], suspects: Mapping[str, tuple[Path, bool]]) -> set[str]:
    found = set()
    for name in names:
        hits = {
            digest
            for digest, (path, _) in suspects.items()
            if str(path) == name or (len(name) >= 8 and digest.startswith(name))
        }
        if not hits:
            raise UsageError(f"{name} is no suspect that the run decided")
        found |= hits
    return found
