"""What importing the store costs, and that its public names exist."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import store

ROOT = Path(__file__).parents[2]
MODULES = sorted(module.name for module in pkgutil.iter_modules(store.__path__))


def imported(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.split(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


def test_no_module_imports_torch_or_the_command() -> None:
    loaded = imported("\n".join(f"import store.{name}" for name in MODULES))
    assert {f"store.{name}" for name in MODULES} <= loaded
    assert not loaded & {"torch", "cli", "typer", "rich", "onnx", "onnxruntime"}


@pytest.mark.parametrize("readonly", [True, False])
def test_listing_loads_nothing_heavy(tmp_path: Path, readonly: bool) -> None:
    loaded = imported(
        "from pathlib import Path\nimport store, store.database\nfrom store.home import Home\n"
        f"path = Path({str(tmp_path / 'f.db')!r})\n"
        "home = Home(path.parent)\n"
        "store.Database.open(path, home).close()\n"
        "import sys\n"
        "for name in [n for n in sys.modules if n.split('.')[0] in ('sqlite_utils', 'numpy', 'click')]:\n"
        "    del sys.modules[name]\n"
        f"with store.Database.open(path, home, readonly={readonly}) as database:\n"
        "    assert database.list() == database.runs() == []\n"
    )
    assert not loaded & {"torch", "numpy", "pydantic", "cryptography", "sqlite_utils", "safetensors"}


def test_public_names() -> None:
    assert store.__all__ == sorted(store.__all__) == dir(store)
    for name in store.__all__:
        assert getattr(store, name) is not None
    with pytest.raises(AttributeError):
        store.absent  # noqa: B018


def test_every_public_thing_is_documented() -> None:
    from importlib import import_module

    for module_name in MODULES:
        module = import_module(f"store.{module_name}")
        assert module.__doc__, module_name
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
                continue
            assert getattr(value, "__doc__", None), f"{module_name}.{name}"
