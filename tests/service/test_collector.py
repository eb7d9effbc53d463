"""A service must not stand still for the garbage collector: see `calm_collector`."""

import subprocess
import sys

import pytest

SECONDS_MAX = 60


@pytest.mark.parametrize("service", ["scheduler", "slot_allocator", "dispatcher", "state_projector", "api"])
def test_what_a_service_imports_is_not_looked_through_again(service: str) -> None:
    code = (
        f"import gc, taskyard.{service}.app, taskyard.service\n"
        "before = len(gc.get_objects())\n"
        "taskyard.service.calm_collector()\n"
        "print(before, gc.get_freeze_count(), len(gc.get_objects()), gc.get_threshold()[0])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS_MAX, check=True)

    before, frozen, left, threshold = map(int, run.stdout.split())
    assert before > 30_000, "what makes a full collection long"
    assert frozen >= before
    assert left < 1_000
    assert threshold > 700
