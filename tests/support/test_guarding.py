"""A run that is killed leaves nothing behind, and kills nobody else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from guarding import MARK, bearers
from host_processes import is_running

SECONDS_MAX = 20.0

RUN = """
import json, os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from guarding import MARK, guard_what_is_started
guard_what_is_started()
SHELL = "sleep 60 & echo $!; wait"
child = subprocess.Popen(["sh", "-c", SHELL], stdout=subprocess.PIPE, start_new_session=True)
grandchild = int(child.stdout.readline())
print(json.dumps({"mark": os.environ[MARK], "started": [child.pid, grandchild]}), flush=True)
time.sleep(60)
"""
"""What pytest is to the guard: it starts something that has a session of its own and starts something too."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_killed_run_has_started_ends_with_it_and_nothing_else(number: int) -> None:
    here = str(Path(__file__).parent)
    argv = [sys.executable, "-c", RUN, here]
    with (
        subprocess.Popen(["sleep", "60"]) as ours,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run,
    ):
        try:
            assert run.stdout is not None
            told = json.loads(run.stdout.readline())
            assert sorted(bearers(f"{MARK}={told['mark']}")) == sorted(told["started"])
            run.send_signal(number)
            deadline = time.monotonic() + SECONDS_MAX
            while any(map(is_running, told["started"])):
                assert time.monotonic() < deadline, "they live on"
                time.sleep(0.02)
            assert is_running(ours.pid)
            assert ours.pid in bearers(f"{MARK}={os.environ[MARK]}")
        finally:
            for process in (ours, run):
                process.kill()
