"""What holds for every file of the project, whoever changes it: format, lint, types, import rules, generated files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
"""The programs that set-up installs beside this interpreter."""
RULES = {
    "files are formatted": (TOOLS / "ruff", "format", "--check", "--quiet"),
    "lint finds nothing": (TOOLS / "ruff", "check", "--quiet"),
    "imports run one way, and what chooses stays pure": (TOOLS / "lint-imports", "--no-cache"),
    "schemas are those that the contracts give": (sys.executable, "-m", "taskyard.contracts.generate", "--check"),
    "NATS users are those of the table": (sys.executable, "-m", "taskyard.embedded.deployment", "--check"),
}


def run(*argv: str | Path) -> tuple[int, str]:
    """The exit status of a tool in the project's folder, and what it said."""
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("argv", RULES.values(), ids=RULES)
def test_a_rule_of_the_house_holds(argv: tuple[str | Path, ...]) -> None:
    status, told = run(*argv)
    assert status == 0, told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_types_are_right() -> None:
    status, told = run(TOOLS / "pyright")
    assert status == 0, told
