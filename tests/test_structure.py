"""The house: imports go one way, nothing heavy comes early, every public name is declared and documented."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import fingerprint

ROOT = Path(__file__).parents[1]
PACKAGES = ("fingerprint", "store", "cli")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
CHECKER = ROOT / "store" / "checker"
# Who stands above whom inside fingerprint (DESIGN section 3); names on one line do not know each other.
LAYERS = [
    {"bench"},
    {"api"},
    {"report", "sources", "remote"},
    {"probes", "decision", "engine", "transforms"},
    {"spec"},  # a sidecar lies beside the main file of a model in several parts
    {"runtimes", "record", "data"},
    {"model"},
    {"errors", "limits", "progress", "canonical"},
    {"frozen"},
]
SIDEWAYS = {("engine", "decision"), ("probes", "decision")}  # distributions and statistics: pure functions

# Clients of the network, and who may use one: what docs/security.md lists as the places that anything goes out to.
NETWORK = ("urllib.request", "urllib3", "http.client", "httpx", "requests", "aiohttp", "mlflow", "ray")
NETWORK += ("huggingface_hub", "grpc", "ftplib", "smtplib", "telnetlib", "websockets", "xmlrpc")
CONNECTING = {
    "fingerprint.remote.channel",
    "fingerprint.remote.replies",
    "fingerprint.sources.mlflow",
    "fingerprint.engine.executors.ray",
    "store.timestamps",
}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of everything imported, also inside functions; not what only type checkers see."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.dump(outer.test)
        for inner in outer.body
        for node in ast.walk(inner)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level and path.parent == CHECKER:
                continue  # a program of its own, that lies in evidence packs: it knows its own parts only
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(part: str) -> int | None:
    return next((i for i, names in enumerate(LAYERS) if part in names), None)


def wrong_imports(path: Path) -> Iterator[str]:
    """Imports that go up or sideways."""
    name = module_name(path)
    package, here = name.split(".")[0], name.split(".")[1] if "." in name else ""
    for imported in imports_of(path):
        parts = imported.split(".")
        if parts[0] in PACKAGES and PACKAGES.index(parts[0]) > PACKAGES.index(package):
            yield f"{name} imports {imported}"
        if package != "fingerprint" or not here or parts[0] != "fingerprint" or len(parts) < 2 or parts[1] == here:
            continue
        mine, other = layer(here), layer(parts[1])
        if other is None:  # a name of the root package, such as __version__
            continue
        if mine is None or not (mine < other or (here, parts[1]) in SIDEWAYS):
            yield f"{name} imports {imported}"


def test_imports_go_one_way() -> None:
    assert len(MODULES) > 100
    assert [wrong for path in MODULES for wrong in wrong_imports(path)] == []


def test_every_part_has_its_layer() -> None:
    parts = {p.stem if p.suffix else p.name for p in (ROOT / "fingerprint").iterdir() if not p.name.startswith("_")}
    assert parts - {"py"} - set().union(*LAYERS) == set()


def test_import_linter_contracts() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-500:]


# -- nothing heavy early ---------------------------------------------------------------------------------------------

HEAVY = ("torch", "onnx", "onnxruntime", "ai_edge_litert", "sklearn", "scipy")


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted(m for m in sys.modules if '.' not in m)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("what", "more"),
    [
        ("fingerprint", ("numpy", "pydantic", "PIL", "safetensors", "cryptography")),
        ("fingerprint.errors, fingerprint.limits", ("numpy", "pydantic")),
        ("fingerprint.model", ("pydantic", "PIL")),
        ("fingerprint.record, fingerprint.spec, fingerprint.data", ("PIL",)),
        ("fingerprint.decision.lineage, fingerprint.decision.correction", ()),
        ("fingerprint.engine.session, fingerprint.engine.settle, fingerprint.engine.local", ()),
        ("fingerprint.api.verify, fingerprint.api.audit, fingerprint.api.results", ("PIL",)),
        ("fingerprint.sources.directory, fingerprint.runtimes.registry", ()),
    ],
)
def test_what_an_import_loads(what: str, more: tuple[str, ...]) -> None:
    loaded = modules_after(f"import {what}")
    assert not loaded & {*HEAVY, *more}


def test_public_names_resolve_without_torch_where_they_can() -> None:
    names = ("verify", "audit", "Fingerprint", "Verdict", "Model", "InputSpec")
    loaded = modules_after("import fingerprint\n" + "\n".join(f"fingerprint.{name}" for name in names))
    assert "torch" not in loaded


# -- the public API --------------------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert set(fingerprint.__all__) == {*fingerprint._HOMES, "__version__"}
    assert fingerprint.__all__ == sorted(fingerprint.__all__)
    for name in fingerprint.__all__:
        value = getattr(fingerprint, name)
        if name != "__version__":
            assert value.__name__ == name
            assert value.__module__ == fingerprint._HOMES[name]
    assert dir(fingerprint) == fingerprint.__all__
    with pytest.raises(AttributeError, match="no_such_name"):
        fingerprint.no_such_name  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "fingerprint" / "__init__.py").read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: f"{statement.module}"
        for statement in guarded.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == fingerprint._HOMES


def test_version_is_that_of_the_distribution() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{fingerprint.__version__}"' in text


def declared_names(path: Path) -> list[str] | None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return None


def test_declared_names_exist_and_are_sorted() -> None:
    for path in MODULES:
        names = declared_names(path)
        if names is not None:
            constants_first = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
            assert names == constants_first, path
            module = importlib.import_module(module_name(path))
            assert [name for name in names if not hasattr(module, name)] == [], path


@pytest.mark.parametrize("kind", ["runtimes", "probes", "transforms", "sources", "reports"])
def test_entry_points_load(kind: str) -> None:
    found = entry_points(group=f"fingerprint.{kind}")
    assert found
    for point in found:
        if point.value.startswith("fingerprint."):
            assert point.load().name == point.name


# -- documentation in the code ---------------------------------------------------------------------------------------


def undocumented(path: Path) -> Iterator[str]:
    """Public functions, methods and classes without a docstring; and the module itself."""
    tree = ast.parse(path.read_text())
    if tree.body and not ast.get_docstring(tree):
        yield "module"

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_"):
                continue
            stub = ast.unparse(node.body[-1]) == "..."  # of a protocol that describes another package
            if not ast.get_docstring(node) and not stub:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    yield from walk(tree.body, "")


def test_every_public_name_has_a_docstring() -> None:
    assert {str(p.relative_to(ROOT)): list(undocumented(p)) for p in MODULES if list(undocumented(p))} == {}


def test_only_the_command_line_prints_and_nothing_evaluates() -> None:
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] == "cli" or path.name.startswith("_"):
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        named = {c.func.id for c in calls if isinstance(c.func, ast.Name)}
        allowed = {"exec"} if path.name == "frozen.py" else set()  # it writes `__init__`, from names of fields
        assert not named & {"print", "eval", "exec", "breakpoint", "input"} - allowed, path


def test_only_what_is_documented_opens_connections() -> None:
    using = {
        module_name(path)
        for path in MODULES
        for name in imports_of(path)
        if any(name == client or name.startswith(f"{client}.") for client in NETWORK)
    }
    assert using == CONNECTING
