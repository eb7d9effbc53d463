"""Where the code raises at one item, now and then and wherever it is, services go on, and every task ends."""

import random
from collections import Counter
from typing import Any

import pytest

from taskyard.dispatcher import delivery
from taskyard.dispatcher import state as dispatching
from taskyard.dispatcher.machine import Dispatcher
from taskyard.machine import aside, core
from taskyard.machine.core import LoopCore
from taskyard.machine.deadlines import Deadlines
from taskyard.scheduler import decide as scheduling
from taskyard.simulation.run import run_seed
from taskyard.slot_allocator import decide as allocating
from taskyard.slot_allocator.liveness import Liveness
from taskyard.slot_allocator.placement import IdleSlots

PLACES = (
    (scheduling, "_timer_event"),
    (scheduling, "_own_answer"),
    (allocating, "_on_its_slot"),
    (IdleSlots, "take"),
    (Liveness, "_check"),
    (Deadlines, "after"),
    (delivery, "_assignment"),
    (delivery, "_cancel"),
    (Dispatcher, "effects"),
)
TIMES = 12
"""So often the code raises in one world: then the bug is mended."""
CHANCE = 0.05
ASIDE_SECONDS = 2.0
"""A healed world is given less time to end in than a bug stands aside for."""
SEEDS = range(40)


class Bug(Exception):
    """What nobody thought of."""


def test_bugs_at_single_items_stop_no_service_and_lose_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    chance, left, raised = random.Random(0), [0], Counter[str]()

    def plant(owner: Any, name: str) -> None:
        right = getattr(owner, name)

        def wrong(*given: Any, **named: Any) -> Any:
            if left[0] and chance.random() < CHANCE:
                left[0] -= 1
                raised[name] += 1
                raise Bug(name)
            return right(*given, **named)

        monkeypatch.setattr(owner, name, wrong)

    for owner, name in PLACES:
        plant(owner, name)
    # The simulator stops at whatever was told to stand aside: here only at what was not planted.
    told = LoopCore.take_faults
    monkeypatch.setattr(
        LoopCore, "take_faults", lambda self: [fault for fault in told(self) if not isinstance(fault.error, Bug)]
    )

    for module in (aside, scheduling, dispatching):
        monkeypatch.setattr(module, "ASIDE_SECONDS", ASIDE_SECONDS)
    monkeypatch.setattr(core, "EFFECTS_AGAIN_SECONDS", ASIDE_SECONDS)

    failed: set[tuple[int, str]] = set()
    for seed in SEEDS:
        chance.seed(seed)
        left[0] = TIMES
        failed.update((seed, failure) for failure in run_seed(seed).failures)

    assert not failed, sorted(failed)
    assert len(raised) > len(PLACES) // 2 and raised.total() > len(SEEDS), raised
