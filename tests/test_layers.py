"""One direction: every module imports only what stands above it, and nobody imports an engine but its adapter."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "nudge_vdb"
ADAPTERS = sorted(path for path in (ROOT / "adapters").iterdir() if (path / "__init__.py").exists())

LAYERS = [
    ["errors", "secret", "phases", "mapped", "columns", "printable", "streams", "foreign"],
    ["address", "budget", "paths"],
    ["durable", "metrics", "interruption", "ahead"],
    ["contract", "journal", "hold"],
    ["keys", "nudge", "judgements", "formats", "beir", "lines", "records", "retry", "returned", "scanning", "backends"],
    ["given", "pages", "snapshot", "seen", "merging", "exam", "rivals", "options", "ridge", "pace"],
    ["state", "dropped", "ties", "ranking", "contenders", "gather"],
    ["lineage", "tracing", "scoring", "notes"],
    ["selection", "carrying"],
    ["ground", "hubs", "matching", "planning", "writeback"],
    ["candidates", "live", "verify", "aftermath", "price", "survey"],
    ["verdict", "choice"],
    ["placing"],
    ["proposal"],
    ["report"],
    ["standing"],
    ["run", "evaluate", "render", "progress", "prune", "diff", "adopt", "doctor"],
    ["newcomers", "exporting"],
    [""],
    ["demo"],
    ["terminal"],
    ["arguments"],
    ["cli"],
    ["__main__"],
]
"""The modules of the core; each may import those of its own layer and of the layers above. "" is the package itself."""

KIT_MAY_IMPORT = {"contract", "errors"}
ADAPTER_MAY_IMPORT = {"address", "contract", "errors", "foreign", "secret"}
CLIENTS = {"qdrant_client", "pymilvus", "milvus_lite", "grpc"}

LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}


def module_of(path, package):
    """Return the dotted name of *path* below *package*, "" for the package itself."""
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imported(path):
    """Return the full name of everything that *path* imports, at any depth; relative imports are refused."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} line {node.lineno} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def of_the_core(names):
    """Return the modules of the core among *names*, such as "contract" for nudge_vdb.contract.Page."""
    inside = [name.split(".")[1] if "." in name else "" for name in names if name.split(".")[0] == "nudge_vdb"]
    return {name if name in LAYER_OF or name == "testing" else "" for name in inside}


def is_kit(path):
    return path.is_relative_to(CORE / "testing")


MODULES = {module_of(path, CORE): path for path in sorted(CORE.rglob("*.py")) if not is_kit(path)}
KIT = sorted((CORE / "testing").rglob("*.py"))
ADAPTER_FILES = [path for adapter in ADAPTERS for path in sorted(adapter.rglob("*.py"))]


def name_of(path):
    return str(path.relative_to(ROOT))


def test_every_module_has_its_layer_and_every_layer_its_modules():
    assert MODULES.keys() == LAYER_OF.keys()
    assert sum(map(len, LAYERS)) == len(LAYER_OF)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_beside_or_above_it(module):
    needed = of_the_core(imported(MODULES[module])) - {module}
    below = {name for name in needed if name == "testing" or LAYER_OF[name] > LAYER_OF[module]}
    assert not below


@pytest.mark.parametrize("path", [*MODULES.values(), *KIT], ids=name_of)
def test_the_core_imports_no_adapter_and_no_client_at_any_depth(path):
    forbidden = CLIENTS | {adapter.name for adapter in ADAPTERS}
    assert not forbidden & {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", KIT, ids=name_of)
def test_the_kit_imports_of_the_core_what_a_stranger_may(path):
    assert of_the_core(imported(path)) <= KIT_MAY_IMPORT | {"testing"}


@pytest.mark.parametrize("path", ADAPTER_FILES, ids=name_of)
def test_an_adapter_imports_of_the_core_what_it_may_and_no_other_adapter(path):
    names = imported(path)
    assert of_the_core(names) <= ADAPTER_MAY_IMPORT
    others = {adapter.name for adapter in ADAPTERS if not path.is_relative_to(adapter)}
    assert not others & {name.split(".")[0] for name in names}


def test_there_are_adapters_to_look_at():
    assert {adapter.name for adapter in ADAPTERS} >= {"nudge_vdb_milvus", "nudge_vdb_qdrant"}
    assert ADAPTER_FILES
