"""Writes down for others what the contracts say: `python -m taskyard.contracts.generate [--check]`.

From the Structs and the table of subjects it makes JSON Schema, an AsyncAPI document and a page of tables, the same
bytes every time. `--check` writes nothing: it shows where the files differ and ends with 1 if they do.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from taskyard.contracts.generate_asyncapi import asyncapi
from taskyard.contracts.generate_page import page
from taskyard.contracts.generate_schema import GROUPS, schema

FOLDER = Path(__file__).parents[2] / "generated"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` compare them; the exit status."""
    parser = argparse.ArgumentParser(prog="taskyard.contracts.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; show differences and end with 1")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are")
    options = parser.parse_args(arguments)
    wanted = render()
    if not options.check:
        for path in write(options.folder, wanted):
            print(f"wrote {path}")
        return 0
    differences = "".join(compare(options.folder, wanted))
    sys.stdout.write(differences)
    return 1 if differences else 0


def render() -> dict[str, str]:
    """The text of each file by its path below the folder."""
    files = {f"schema/{name}.json": _json(schema(name)) for name in GROUPS}
    return {**files, "asyncapi.json": _json(asyncapi()), "subjects.md": page()}


def write(folder: Path, wanted: Mapping[str, str]) -> Iterator[Path]:
    """Write what differs and remove what no longer belongs there; the paths that changed."""
    for path in sorted(_present(folder) - set(wanted)):
        (folder / path).unlink()
        yield folder / path
    for path, text in wanted.items():
        file = folder / path
        if _read(file) != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            yield file


def compare(folder: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    """The lines of a unified diff from the files as they are to the files as they should be."""
    for path in sorted(_present(folder) | set(wanted)):
        found, should = _read(folder / path) or "", wanted.get(path, "")
        yield from difflib.unified_diff(
            found.splitlines(keepends=True), should.splitlines(keepends=True), f"found/{path}", f"generated/{path}"
        )


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _present(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


if __name__ == "__main__":
    sys.exit(main())
