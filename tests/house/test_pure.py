"""A file that says of itself that it is pure is held to it by the import rules."""

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = tuple(ROOT / name for name in ("contracts", "libs", "services"))
SAYS = re.compile(r"\bPure\b|: pure,|\bwithout I/O\b")


def documented() -> Iterator[tuple[str, str, str]]:
    """Every module, function and class: its module, its name within that, and what it says of itself.

    What a package says of itself is about its modules.
    """
    for source in SOURCES:
        for path in sorted((source / "taskyard").rglob("*.py")):
            if path.name == "__init__.py":
                continue
            module = ".".join(path.relative_to(source).with_suffix("").parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield module, getattr(node, "name", ""), ast.get_docstring(node) or ""


def held() -> list[str]:
    """The modules that the rule holds, as patterns."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (rule,) = (each for each in config["tool"]["importlinter"]["contracts"] if each["id"] == "pure")
    return list(rule["source_modules"])


def is_held(module: str, pattern: str) -> bool:
    """Whether a pattern names the module, or a package that it is in."""
    return fnmatchcase(module, pattern) or module.startswith(f"{pattern}.")


def test_what_says_that_it_is_pure_is_held_to_it() -> None:
    patterns = held()
    loose = [
        f"{module}.{name}" if name else module
        for module, name, says in documented()
        if SAYS.search(says) and not any(is_held(module, pattern) for pattern in patterns)
    ]
    assert not loose, "put these under the import rule `pure`, or do not say it"


def test_what_the_rule_holds_is_there() -> None:
    modules = {module for module, name, _ in documented() if not name}
    assert not [pattern for pattern in held() if not any(is_held(module, pattern) for module in modules)]
