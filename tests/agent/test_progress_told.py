"""Of progress that comes too fast, the newest is told."""

import asyncio

from taskyard.agent.progress import ProgressTold


def test_the_last_progress_is_told_when_the_attempt_ends_however_early() -> None:
    async def scenario() -> list[tuple[int, str]]:
        told: list[tuple[int, str]] = []
        progress = ProgressTold(lambda percent, text: told.append((percent, text)), seconds_min=60.0)
        progress.tell(10, "initialised")
        progress.tell(40, "")
        progress.tell(50, "planned")
        progress.end()
        return told

    assert asyncio.run(scenario()) == [(10, "initialised"), (50, "planned")]


def test_the_newest_progress_is_told_when_the_time_since_the_last_is_over() -> None:
    async def scenario() -> list[int]:
        told: list[int] = []
        is_told = asyncio.Event()

        def send(percent: int, _: str) -> None:
            told.append(percent)
            if len(told) == 2:
                is_told.set()

        progress = ProgressTold(send, seconds_min=0.01)
        for percent in (1, 2, 3):
            progress.tell(percent, "")
        await asyncio.wait_for(is_told.wait(), 10.0)
        progress.end()
        return told

    assert asyncio.run(scenario()) == [1, 3]


def test_an_attempt_that_told_all_its_progress_tells_nothing_at_its_end() -> None:
    async def scenario() -> list[int]:
        told: list[int] = []
        progress = ProgressTold(lambda percent, _: told.append(percent), seconds_min=60.0)
        progress.end()
        progress.tell(30, "")
        progress.end()
        progress.end()
        return told

    assert asyncio.run(scenario()) == [30]
