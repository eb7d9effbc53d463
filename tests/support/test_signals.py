"""Whoever runs the tests by `nohup` sees what others see."""

import subprocess
import sys
from pathlib import Path

import pytest

START = """
import signal, subprocess, sys
from signals import pass_on_no_ignored_signals
signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.argv[1:] == ["passed on"]:
    pass_on_no_ignored_signals()
show = "import signal; print(*(signal.getsignal(one) is signal.SIG_IGN for one in (signal.SIGHUP, signal.SIGINT)))"
subprocess.run([sys.executable, "-c", show], check=True)
"""


@pytest.mark.parametrize(("how", "ignored"), [("passed on", "False False"), ("as it was", "True True")])
def test_what_tests_start_ignores_no_signal_that_pytest_ignores(how: str, ignored: str) -> None:
    ran = subprocess.run(
        ["nohup", sys.executable, "-c", START, how],
        cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.strip() == ignored
