"""Settings of pools and queues folded from the log: what was set last holds, and who paused or locked is known."""

from typing import Any

from taskyard.contracts.events import (
    OWNERS,
    SCHEDULER,
    PoolConfigured,
    QueueConfigured,
    QueueLocked,
    QueuePaused,
    QueueResumed,
    QueueUnlocked,
)
from taskyard.contracts.queues import SETTINGS_EVENTS, Hold, PoolSettings, QueueSettings, SettingsTable
from taskyard.contracts.values import Instant

POOL: dict[str, Any] = {"pool": "gpu", "by": "ann"}
QUEUE: dict[str, Any] = {**POOL, "queue": "net"}


def folded(*events: Any) -> SettingsTable[PoolSettings, QueueSettings]:
    """The settings after these events, of which the first was stored at 1."""
    table = SettingsTable(PoolSettings, QueueSettings)
    for at, event in enumerate(events, 1):
        table.apply(event, Instant(at))
    return table


def test_a_setting_that_is_not_named_stays_as_it_was() -> None:
    table = folded(
        PoolConfigured(**POOL, max_waiting=5, placement="keep-slot-0"),
        PoolConfigured(**POOL, max_waiting=0),
        PoolConfigured(**POOL, approval_timeout_seconds=60.0),
    )
    assert table.pools == {
        "gpu": PoolSettings(name="gpu", max_waiting=0, approval_timeout_seconds=60.0, placement="keep-slot-0")
    }


def test_zero_lifts_the_limit_of_a_queue_and_nothing_leaves_it() -> None:
    limited = QueueConfigured(**QUEUE, max_running=3)
    assert folded(limited, QueueConfigured(**QUEUE)).queue("gpu", "net").max_running == 3
    assert folded(limited, QueueConfigured(**QUEUE, max_running=0)).queue("gpu", "net").max_running is None


def test_a_pause_and_a_lock_know_by_whom_why_and_since_when() -> None:
    table = folded(QueuePaused(**POOL, reason="upgrade"), QueuePaused(**QUEUE), QueueLocked(**QUEUE, reason="incident"))
    pool, queue = table.pool("gpu"), table.queue("gpu", "net")
    assert pool.paused == Hold(by="ann", reason="upgrade", at=Instant(1))
    assert queue.paused == Hold(by="ann", reason="", at=Instant(2))
    assert queue.locked == Hold(by="ann", reason="incident", at=Instant(3))
    assert (pool.is_paused, queue.is_paused, queue.is_locked) == (True, True, True)


def test_the_pause_of_a_pool_the_pause_of_a_queue_and_its_lock_end_each_by_itself() -> None:
    held = (QueuePaused(**POOL), QueuePaused(**QUEUE), QueueLocked(**QUEUE))

    def after(end: Any) -> tuple[bool, bool, bool]:
        table = folded(*held, end)
        queue = table.queue("gpu", "net")
        return table.pool("gpu").is_paused, queue.is_paused, queue.is_locked

    assert after(QueueResumed(**POOL)) == (False, True, True)
    assert after(QueueResumed(**QUEUE)) == (True, False, True)
    assert after(QueueUnlocked(**QUEUE)) == (True, True, False)


def test_naming_a_queue_makes_it_and_its_pool_even_where_nothing_is_set() -> None:
    table = folded(QueueConfigured(**QUEUE))
    assert table.pools == {"gpu": PoolSettings(name="gpu")}
    assert table.queues == {("gpu", "net"): QueueSettings(pool="gpu", name="net")}


def test_pools_and_queues_that_count_something_keep_it() -> None:
    class Counted(QueueSettings, kw_only=True):
        tasks: int = 0

    table = SettingsTable(PoolSettings, Counted, queues=[Counted(pool="gpu", name="net", tasks=7)])
    table.apply(QueuePaused(**QUEUE), Instant(1))
    assert (table.queue("gpu", "net").tasks, table.queue("gpu", "net").is_paused) == (7, True)


def test_every_event_of_the_scheduler_about_pools_and_queues_and_no_task_is_a_setting() -> None:
    """One that is new must be folded here, or be told apart in this test."""
    others = {"CommandRejected", "WorkerDrainRequested"}
    about = {event for event in OWNERS[SCHEDULER] if {"pool", "task"} & set(event.__struct_fields__) == {"pool"}}
    assert {event.__name__ for event in about} - others == {event.__name__ for event in SETTINGS_EVENTS}
