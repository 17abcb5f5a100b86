"""What is compiled keeps to what the compiler gets right; each of these once went wrong without a word."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from waitroom import gate

ROOT = Path(__file__).resolve().parents[2]
COMPILED = not str(gate.__file__).endswith(".py")  # as it is where a wheel was installed
MARKED = 67  # changes with each module that gets the marker or gives it up; never because one was moved


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> dict[str, ast.Module]:
    """The modules that are compiled; the build's own packages needn't be there."""
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))
    return {path: ast.parse((ROOT / path).read_text()) for path in hook["compiled_modules"](ROOT)}


def test_no_module_has_lost_its_marker(trees):
    """It would be left out in silence, and everything would be slower."""
    assert len(trees) == MARKED


def test_the_marked_modules_are_compiled_and_no_others(trees):
    """In an installed wheel; in a checkout none is."""
    sources = [str(path.relative_to(ROOT)) for path in (ROOT / "waitroom").rglob("*.py")]
    found = {path: importlib.util.find_spec(path.removesuffix(".py").replace("/", ".")) for path in sources}
    compiled = {path for path, spec in found.items() if spec and not str(spec.origin).endswith(".py")}
    assert compiled == (set(trees) if COMPILED else set())


def test_no_name_stands_for_errors_of_two_kinds_in_one_function(trees):
    """It has one type there: the second error is refused, and what should handle it doesn't run."""
    found = []
    for path, tree in trees.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                kinds: dict[str, set[str]] = {}
                for handler in ast.walk(function):
                    if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type:
                        kinds.setdefault(handler.name, set()).add(ast.unparse(handler.type))
                found += [f"{path}: {function.name}: {name}" for name, types in kinds.items() if len(types) > 1]
    assert not found


def test_every_base_is_known_where_it_is_compiled(trees):
    """Objects of a class with a base from elsewhere would be laid out over one another."""
    ours = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    known = ours | {"ABC", "Enum", "StrEnum", "Exception", "NamedTuple", "Protocol", "asyncio.Protocol"}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).partition("[")[0] for base in node.bases} - {"Generic"}
                assert bases <= known, f"{path}: {node.name}"
