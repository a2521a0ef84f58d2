"""State dicts (`.pth`, `.safetensors`) and the factory that builds their network.

Pickles are read with `weights_only=True` always: one that wants more is refused before anything of it runs.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel, UsageError
from fingerprint.runtimes.formats import Format

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "ema")
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_SHOWN = 5  # keys named in a message


def build(path: Path, format: str, factory: str | None) -> torch.nn.Module:
    """The network that `factory` makes, with the file's weights, in eval mode.

    Raises:
        UnsupportedModel: no factory, a refused pickle, or a factory that makes no module.
        UnreadableModel: damaged, or weights of another network.
        UsageError: the factory can't be found.
    """
    if factory is None:
        raise UnsupportedModel(
            "it holds weights only, without the network they belong to",
            remedy="Say how to build the network with --factory module:callable, or give an exported model.",
        )
    state = read_state(path, format)
    module = _make(factory)
    _fill(module, state, factory)
    return module.eval()


def read_state(path: Path, format: str) -> dict[str, torch.Tensor]:
    """Tensors by name, unwrapped from a checkpoint; nothing of the file is executed.

    Raises:
        UnsupportedModel: the pickle wants to run code, or it holds no state dict.
        UnreadableModel: damaged.
    """
    return _unwrapped(_read_safetensors(path) if format == Format.SAFETENSORS else _read_pickle(path))


def arrays(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.generic]]:
    """The tensors as numpy arrays (bfloat16 as float32); kinds that numpy lacks are left out."""
    import torch

    found: dict[str, NDArray[np.generic]] = {}
    for name, tensor in state.items():
        plain = tensor.detach()
        if plain.is_quantized or plain.layout != torch.strided:
            continue
        found[name] = (plain.float() if plain.dtype == torch.bfloat16 else plain).cpu().numpy()
    return found


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path), device="cpu")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UnreadableModel(f"safetensors can't read it: {error}") from error


def _read_pickle(path: Path) -> object:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        if "nsupported" not in text and "blocked" not in text:
            raise UnreadableModel(f"its pickle is damaged: {_line(text)}") from error
        raise UnsupportedModel(
            f"its pickle holds more than tensors and could run code; it was refused and nothing ran ({_wanted(text)})",
            remedy="Save the weights alone: torch.save(model.state_dict(), PATH), or use safetensors.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive or pickle fails anywhere in the reader
        raise UnreadableModel(f"torch can't read it: {_line(str(error)) or type(error).__name__}") from error


def _wanted(text: str) -> str:
    """The line of torch's message that names what the pickle asked for."""
    named = [line for line in text.splitlines() if "nsupported" in line or "GLOBAL" in line or "blocked" in line]
    return _line(named[-1] if named else text)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def _unwrapped(content: object) -> dict[str, torch.Tensor]:
    """The state dict inside a checkpoint, without the prefixes that wrappers add."""
    import torch

    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UnsupportedModel(f"it holds a {type(content).__name__}, not a state dict")
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise UnsupportedModel("it holds no tensor")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _make(factory: str) -> torch.nn.Module:
    """Call `module:callable`; the current folder is importable."""
    import torch

    name, _, attribute = factory.partition(":")
    if not name or not attribute:
        raise UsageError(f"the factory {factory!r} is not of the form module:callable")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        maker = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the factory {factory!r} can't be found: {error}") from error
    try:
        module = maker()
    except Exception as error:  # the user's own code
        raise UsageError(f"the factory {factory!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"the factory {factory!r} made a {type(module).__name__}, not a torch.nn.Module")
    return module


def _fill(module: torch.nn.Module, state: dict[str, torch.Tensor], factory: str) -> None:
    expected = module.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected and not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UnreadableModel(
            f"its weights are not those of the network that {factory} makes:"
            f" missing {_named(missing)}; unexpected {_named(unexpected)}"
        )
    try:
        module.load_state_dict({n: v for n, v in state.items() if n in expected}, strict=False)
    except RuntimeError as error:
        raise UnreadableModel(
            f"its weights do not fit the network that {factory} makes: {_line(str(error))}"
        ) from error


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
