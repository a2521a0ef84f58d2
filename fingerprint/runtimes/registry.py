"""Which runtime executes which format.

Runtimes are entry points of the group `fingerprint.runtimes`. Reading all installed metadata costs more than opening a
small model, so the built-in ones are also listed here; a test holds the two lists equal. The entry points are read
when a format or a name is none of theirs.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from fingerprint.errors import UnreadableModel, UnsupportedModel, UsageError
from fingerprint.runtimes.formats import Format, title
from fingerprint.runtimes.interface import Runtime

GROUP = "fingerprint.runtimes"
BUILTIN = {
    "torch": "fingerprint.runtimes.torch:TorchRuntime",
    "onnx": "fingerprint.runtimes.onnx:OnnxRuntime",
    "litert": "fingerprint.runtimes.litert:LiteRtRuntime",
    "openvino": "fingerprint.runtimes.openvino:OpenVinoRuntime",
    "ncnn": "fingerprint.runtimes.ncnn:NcnnRuntime",
    "mnn": "fingerprint.runtimes.mnn:MnnRuntime",
    "executorch": "fingerprint.runtimes.executorch:ExecuTorchRuntime",
    "tvm": "fingerprint.runtimes.tvm:TvmRuntime",
    "coreml": "fingerprint.runtimes.coreml:CoreMlRuntime",
}
_BUILTIN_FORMATS: dict[str, str] = {
    Format.PT2: "torch",
    Format.TORCHSCRIPT: "torch",
    Format.STATE_DICT: "torch",
    Format.PICKLE: "torch",
    Format.SAFETENSORS: "torch",
    Format.AOTINDUCTOR: "torch",
    Format.ONNX: "onnx",
    Format.TFLITE: "litert",
    Format.OPENVINO: "openvino",
    Format.NCNN: "ncnn",
    Format.NCNN_BINARY: "ncnn",
    Format.MNN: "mnn",
    Format.EXECUTORCH: "executorch",
    Format.TVM: "tvm",
    Format.COREML: "coreml",
}
_REMEDIES = {
    Format.LFS_POINTER: "Fetch the file itself with: git lfs pull",
    Format.APK: "Give the archive as a source to `fingerprint audit`, or unpack it and give the model inside.",
    Format.IPA: "Unpack it and give the model inside.",
    Format.ZIP: "Unpack it and give the model inside.",
    Format.ARCHIVE: "Unpack it and give the model inside.",
}


def runtime_name(format: str) -> str:
    """Name of the runtime that executes a format.

    Raises:
        UnreadableModel: a damaged archive.
        UnsupportedModel: no runtime executes this format.
    """
    if format in _BUILTIN_FORMATS:
        return _BUILTIN_FORMATS[format]
    if format == Format.DAMAGED_ZIP:
        raise UnreadableModel("the archive is cut or damaged", remedy="Download or copy the file again.")
    for name in _plugins():
        if format in runtime_named(name).formats:
            return name
    known = Format(format) if format in set(Format) else None
    raise UnsupportedModel(
        f"it is {title(format)}, which no runtime of this release executes",
        remedy=_REMEDIES.get(known, "") if known else "",
    )


def runtime_for(format: str) -> Runtime:
    """The runtime that executes a format, its package being there.

    Raises:
        UnreadableModel, UnsupportedModel: as `runtime_name`.
        MissingExtra: the runtime's package is not installed.
    """
    runtime = runtime_named(runtime_name(format))
    runtime.check()
    return runtime


@cache
def runtime_named(name: str) -> Runtime:
    """A runtime by its name.

    Raises:
        UsageError: no such runtime, or it can't be imported.
    """
    target = BUILTIN.get(name) or _plugins().get(name)
    if target is None:
        raise UsageError(f"no runtime is named {name!r}", remedy="List them with: fingerprint plugins")
    module, _, attribute = target.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the runtime {name!r} can't be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Runtime)):
        raise UsageError(f"the runtime {name!r} ({target}) is no subclass of Runtime")
    return kind()


def runtime_names() -> list[str]:
    """Names of all runtimes: built in, then plug-ins."""
    return [*BUILTIN, *_plugins()]


@cache
def _plugins() -> dict[str, str]:
    """Entry points beyond the built-in ones, name -> module:attribute."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP) if point.name not in BUILTIN}
