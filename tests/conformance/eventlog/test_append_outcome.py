"""An append without an answer: stored, lost, or overtaken by another instance."""

import asyncio

import pytest

from taskyard.eventlog.append import AppendRejected, append_resolved
from taskyard.eventlog.errors import FenceMoved, LogUnavailable, Unanswered
from taskyard.eventlog.jetstream import JetStreamLog

pytestmark = pytest.mark.anyio


class Silent:
    """Passes tries on to a real place or loses them, and swallows as many answers as it is told."""

    def __init__(self, place, *outcomes: str) -> None:
        self.place = place
        self.outcomes = list(outcomes)
        self.tries = 0

    async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
        self.tries += 1
        outcome = self.outcomes.pop(0) if self.outcomes else "answered"
        if outcome == "lost":
            raise Unanswered("lost")
        sequence = await self.place.try_append(data, writer=writer, expected=expected)
        if outcome == "stored":
            raise Unanswered("stored without an answer")
        return sequence

    async def read_last(self, writer: str) -> tuple[int, bytes] | None:
        return await self.place.read_last(writer)


@pytest.mark.parametrize(("outcomes", "tries"), [(["stored"], 1), (["lost"], 2), (["lost", "lost", "stored"], 3)])
async def test_a_try_without_an_answer_is_resolved_by_looking(site, kit, outcomes, tries):
    silent = Silent(site.log(), *outcomes)
    data = kit.make_commit("w", kit.Opened("x"))

    assert await append_resolved(silent, data, writer="w", expected=0) == 1

    assert silent.tries == tries
    assert await site.log().head() == 1


@pytest.mark.parametrize("outcome", ["stored", "lost"])
async def test_a_later_commit_without_an_answer_is_resolved_too(site, kit, outcome):
    first = await site.log().append(kit.make_commit(), writer="w", expected=0)
    other = await site.log().append(kit.make_commit("v"), writer="v", expected=0)
    silent = Silent(site.log(), outcome)
    data = kit.make_commit("w", kit.Opened("x"))
    assert await append_resolved(silent, data, writer="w", expected=first) == other + 1


async def test_a_lost_try_does_not_overwrite_another_instance(site, kit):
    log = site.log()

    class Overtaken(Silent):
        async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
            await log.append(kit.make_commit(instance="two", epoch=2), writer="w", expected=0)
            raise Unanswered("lost while another took over")

    with pytest.raises(FenceMoved) as caught:
        await append_resolved(Overtaken(log), kit.make_commit(instance="one"), writer="w", expected=0)
    assert caught.value.actual == 1
    assert (await log.last("w")).commit.instance == "two"


async def test_a_stored_try_that_was_overtaken_meanwhile_counts_as_fenced(site, kit):
    log = site.log()

    class StoredThenOvertaken(Silent):
        async def try_append(self, data: bytes, *, writer: str, expected: int) -> int:
            stored = await self.place.try_append(data, writer=writer, expected=expected)
            await log.append(kit.make_commit(instance="two", epoch=2), writer="w", expected=stored)
            raise Unanswered("stored")

    # The outcome is in the log for whoever folds it; what matters here is that this instance stops.
    with pytest.raises(FenceMoved):
        await append_resolved(StoredThenOvertaken(log), kit.make_commit(instance="one"), writer="w", expected=0)


async def test_a_late_copy_of_an_earlier_try_is_refused_by_the_fence(site, kit):
    log = site.log()
    data = kit.make_commit("w", kit.Opened("x"))
    sequence = await append_resolved(Silent(log, "lost"), data, writer="w", expected=0)
    with pytest.raises(AppendRejected):
        await log.try_append(data, writer="w", expected=0)
    assert await log.head() == sequence


async def test_silence_beyond_the_limit_leaves_the_outcome_open(site, kit):
    silent = Silent(site.log(), *["lost"] * 1000)
    with pytest.raises(LogUnavailable):
        await append_resolved(silent, kit.make_commit(), writer="w", expected=0, seconds_max=0.3)


async def test_the_twin_injects_both_kinds_of_silence(kit):
    site = kit.MemorySite()
    log = site.log()
    log.fail_next_append(stored=True)
    first = await log.append(kit.make_commit(), writer="w", expected=0)
    log.fail_next_append(stored=False)
    second = await log.append(kit.make_commit(epoch=2), writer="w", expected=first)
    assert (first, second, site.log_stream.head) == (1, 2, 2)


async def test_a_cancellation_that_meets_the_answer_is_not_lost(nats_site, kit, monkeypatch):
    request, asked = nats_site.nc.request, asyncio.Event()

    async def answer_a_cancelled_request(*arguments, **options):
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await request(*arguments, **options)

    monkeypatch.setattr(nats_site.nc, "request", answer_a_cancelled_request)
    appending = asyncio.ensure_future(nats_site.log().append(kit.make_commit(), writer="w", expected=0))
    await asked.wait()
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending


async def test_an_append_waits_for_a_server_that_restarts(own_server, own_site, kit):
    log = own_site.log()
    first = await log.append(kit.make_commit(), writer="w", expected=0)
    own_server.kill()
    await kit.until(lambda: not own_site.nc.is_connected)
    appending = asyncio.ensure_future(log.append(kit.make_commit(epoch=2), writer="w", expected=first))
    await asyncio.sleep(0)
    own_server.start()
    async with asyncio.timeout(20):
        assert await appending == 2
    assert await log.head() == 2


async def test_an_append_gives_up_when_no_server_comes_back(own_server, own_site, kit):
    log = JetStreamLog(own_site.nc, own_site.stream, own_site.prefix, kit.codec, append_seconds_max=1.0)
    own_server.kill()
    with pytest.raises(LogUnavailable):
        await log.append(kit.make_commit(), writer="w", expected=0)


async def test_appends_through_kills_of_the_server_are_stored_exactly_once(own_server, own_site, kit):
    log = own_site.log()
    stopped = asyncio.Event()

    async def write() -> list[tuple[int, int]]:
        acknowledged: list[tuple[int, int]] = []
        expected = number = 0
        while not stopped.is_set():
            data = kit.make_commit("w", kit.Opened(str(number)))
            expected = await log.append(data, writer="w", expected=expected)
            acknowledged.append((expected, number))
            number += 1
        return acknowledged

    writing = asyncio.ensure_future(write())
    for _ in range(3):
        head = await log.head()
        async with asyncio.timeout(20):
            while await log.head() < head + 20:
                await asyncio.sleep(0.01)
        own_server.kill()
        own_server.start()
    stopped.set()
    acknowledged = await writing
    stored = [(item.sequence, int(item.commit.events[0].door)) async for item in log.read(1, await log.head())]
    assert stored == acknowledged
