"""SECURITY.md names the tests that hold its promises, and all of them are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_each_test_that_the_document_names_is_there() -> None:
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"\b(test_\w+)(?![\w.])", TEXT))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_each_file_that_the_document_names_is_there() -> None:
    named = set(re.findall(r"([\w/]*test_\w+\.py)", TEXT))
    assert len(named) > 5
    places = (ROOT, ROOT / "tests" / "security")
    assert {name for name in named if not any((place / name).is_file() for place in places)} == set()


def test_the_readme_names_the_document() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
