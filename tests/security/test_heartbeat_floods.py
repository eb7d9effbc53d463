"""One agent that calls without end costs the others nothing: what it says too much is dropped unread, and it is cut off."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from agents_world import connect, heartbeat, services_running, start_flood, until_joined
from nats.aio.msg import Msg
from real_servers import nats_running, service_settings

from taskyard.contracts.events import WorkerJoined, WorkerLost, WorkerRecovered, WorkerSuspected
from taskyard.contracts.subjects import HEARTBEAT_SUBJECTS
from taskyard.embedded.nats_server import NatsServer
from taskyard.machine.ears import (
    AT_ONCE_MAX,
    DROPPED_MAX,
    PER_SECOND_MAX,
    QUIET_SECONDS,
    SENDERS_MAX,
    Allowance,
    Ear,
    Limits,
)
from taskyard.service import linked

FLOODER, HONEST = "worker-1", "worker-2"
HEAR_SECONDS_MAX = 20.0
FLOOD_SECONDS = 8.0


def test_the_others_live_on_while_one_agent_floods_and_that_one_is_cut_off(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with services_running(server, suspect_seconds=2.0, worker_lost_seconds=4.0) as world:
            flooder, honest = await connect(server, FLOODER), await connect(server, HONEST)
            await until_joined(world, flooder, FLOODER, "ab" * 8)
            await until_joined(world, honest, HONEST, "cd" * 8)
            flood = start_flood(server, FLOODER, "heartbeat", heartbeat("ab" * 8), FLOOD_SECONDS)
            while flood.poll() is None:
                await honest.publish(f"taskyard.heartbeat.{HONEST}", heartbeat("cd" * 8))
                await asyncio.sleep(0.5)
            sent = int(flood.communicate()[0])
            assert sent > 50 * FLOOD_SECONDS * PER_SECOND_MAX, "no flood"
            # It speaks as it should from now on, and is heard no more: so it is silent like any other that says nothing.
            async with asyncio.timeout(QUIET_SECONDS - 5):
                while not any(isinstance(event, WorkerLost) for event in await world.events()):
                    await flooder.publish(f"taskyard.heartbeat.{FLOODER}", heartbeat("ab" * 8))
                    await honest.publish(f"taskyard.heartbeat.{HONEST}", heartbeat("cd" * 8))
                    await asyncio.sleep(0.5)
            events = await world.events()
            harmed = [e for e in events if isinstance(e, WorkerSuspected | WorkerLost) and e.worker == HONEST]
            assert not harmed
            assert [e.reason for e in events if isinstance(e, WorkerLost) and e.worker == FLOODER] == ["silent for 4 s"]
            joins = [e for e in events if isinstance(e, WorkerJoined | WorkerRecovered) and e.worker == FLOODER]
            assert len(joins) == 1
            await flooder.close()
            await honest.close()

    _with_server(tmp_path, scenario)


def test_a_message_at_which_hearing_raises_is_counted_and_what_comes_behind_it_is_heard(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(_: str, message: Msg) -> None:
            if message.data == b"bad":
                raise ZeroDivisionError("a bug")
            heard.put_nowait(message.data)

        async with (
            linked("slot_allocator", service_settings(server)) as links,
            Ear(links, HEARTBEAT_SUBJECTS, hear) as ear,
        ):
            agent = await connect(server, HONEST)
            for data in (b"bad", b"good"):
                await agent.publish(f"taskyard.heartbeat.{HONEST}", data)
            async with asyncio.timeout(HEAR_SECONDS_MAX):
                assert await heard.get() == b"good"
            assert ear.failed == 1
            await agent.close()

    _with_server(tmp_path, scenario)


def test_who_keeps_floods_away_goes_on_when_it_cannot_be_told_who_is_there(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        asked = asyncio.Event()
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(_: str, message: Msg) -> None:
            heard.put_nowait(message.data)

        def known() -> dict[str, None]:
            if not asked.is_set():
                asked.set()
                raise RuntimeError("dictionary changed size during iteration")
            return {HONEST: None}

        async with (
            linked("dispatcher", service_settings(server)) as links,
            Ear(links, HEARTBEAT_SUBJECTS, hear, known=known) as ear,
            asyncio.timeout(HEAR_SECONDS_MAX),
        ):
            while not ear._some:  # pyright: ignore[reportPrivateUsage]
                ear._overrun.set()  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.05)
            assert asked.is_set()
            assert ear.failed == 1

    _with_server(tmp_path, scenario)


def _with_server(tmp_path: Path, scenario: Callable[[NatsServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        with nats_running(tmp_path / "nats", clients=[], agents=[FLOODER, HONEST]) as server:
            async with asyncio.timeout(90):
                await scenario(server)

    asyncio.run(with_server())


def test_an_agent_that_keeps_to_its_rhythm_is_always_heard() -> None:
    allowance = Allowance()
    assert all(allowance.allows("a", beat * 2.0) for beat in range(1_000))
    assert (allowance.dropped, allowance.cut) == (0, 0)


def test_beyond_its_rate_an_agent_is_heard_at_its_rate() -> None:
    allowance = Allowance()
    seconds = 4
    heard = sum(allowance.allows("a", now / 40) for now in range(seconds * 40))
    assert heard == AT_ONCE_MAX + (seconds - 1 / 40) * PER_SECOND_MAX // 1
    assert allowance.dropped == seconds * 40 - heard


def test_whoever_goes_on_is_cut_off_told_and_counted_until_it_was_quiet() -> None:
    allowance = Allowance()
    with structlog.testing.capture_logs() as logs:
        for now in range(10 * DROPPED_MAX):
            allowance.allows("a", now / 1_000)
    assert [(log["log_level"], log["agent"]) for log in logs] == [("warning", "a")]
    assert allowance.cut == 1
    end = 10 * DROPPED_MAX / 1_000
    quiet = [allowance.allows("a", end + second) for second in range(1, int(QUIET_SECONDS))]
    assert not any(quiet)
    assert allowance.allows("a", end + QUIET_SECONDS + 1)
    assert allowance.allows("b", 0.001)


def test_what_counts_as_several_takes_as_much_of_what_a_sender_may_say() -> None:
    allowance = Allowance(Limits(name="reports", per_second=10.0, at_once=100))
    assert [allowance.allows("a", 0.0, cost=30.0) for _ in range(4)] == [True, True, True, False]
    assert allowance.allows("a", 0.0, cost=10.0)
    assert allowance.allows("a", 3.0, cost=30.0)


def test_no_number_of_names_fills_the_memory() -> None:
    allowance = Allowance()
    assert all(allowance.allows(f"a{number}", 0.0) for number in range(SENDERS_MAX))
    assert not allowance.allows("one more", 0.0)
    assert allowance.allows("a1", 1.0)


def test_a_message_too_much_costs_next_to_nothing() -> None:
    allowance = Allowance()
    begun = time.process_time()
    for now in range(100_000):
        allowance.allows("a", now / 100_000)
    assert time.process_time() - begun < 2.0
