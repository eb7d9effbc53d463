"""A reply subject is the sender's word: whatever an agent names there, nobody publishes on it with other rights than its own."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from agents_world import World, connect, heartbeat, services_running, until_joined
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from real_servers import nats_running

from taskyard.contracts.events import WorkerJoined, WorkerLost
from taskyard.contracts.subjects import OUTPUT, REPORTS

ME, OTHER = "worker-1", "worker-2"
INCARNATION = "ab" * 8

REPLY_SUBJECTS = (
    "$JS.API.STREAM.PURGE.TASKYARD_REPORTS",
    "$JS.API.STREAM.DELETE.TASKYARD_REPORTS",
    "$JS.API.STREAM.PURGE.TASKYARD_OUTPUT",
    "$JS.API.STREAM.DELETE.TASKYARD_OUTPUT",
    "$JS.API.STREAM.UPDATE.TASKYARD_REPORTS",
    "$JS.API.STREAM.DELETE.TASKYARD_LOG_0",
    f"taskyard.report.{OTHER}",
    f"taskyard.output.{OTHER}.task",
    f"taskyard.heartbeat.{OTHER}",
    "taskyard.log.0.slot_allocator",
    "taskyard.command.admin.default.submit",
    "$KV.taskyard_leases.slot_allocator",
    "$SYS.REQ.SERVER.PING",
)
STORED = {f"taskyard.report.{ME}": REPORTS, f"taskyard.output.{ME}.task": OUTPUT}
Send = Callable[[Client, str], Awaitable[None]]


async def as_report(agent: Client, reply: str) -> None:
    await agent.publish(f"taskyard.report.{ME}", secrets.token_bytes(), reply=reply)  # one like another is stored once


async def as_output(agent: Client, reply: str) -> None:
    await agent.publish(f"taskyard.output.{ME}.task", secrets.token_bytes(), reply=reply)


async def as_heartbeat(agent: Client, reply: str) -> None:
    await agent.publish(f"taskyard.heartbeat.{ME}", heartbeat(INCARNATION), reply=reply)


async def as_garbage_heartbeat(agent: Client, reply: str) -> None:
    await agent.publish(f"taskyard.heartbeat.{ME}", b"\xff{", reply=reply)


async def as_traced_report(agent: Client, reply: str) -> None:
    """The server tells of what it does with a message on the subject that this header names."""
    await agent.publish(f"taskyard.report.{ME}", secrets.token_bytes(), headers={"Nats-Trace-Dest": reply})


def test_no_reply_subject_of_an_agent_changes_a_stream(tmp_path: Path) -> None:
    async def scenario(world: World, agent: Client) -> None:
        await until_joined(world, agent, ME, INCARNATION)
        for stored in STORED:
            await agent.jetstream().publish(stored, secrets.token_bytes())
        before = await world.streams()
        sent = dict.fromkeys(STORED, 0)
        for send in (as_report, as_output, as_heartbeat, as_garbage_heartbeat, as_traced_report):
            for reply in REPLY_SUBJECTS:
                await send(agent, reply)
                sent[f"taskyard.report.{ME}"] += send is as_report
                sent[f"taskyard.output.{ME}.task"] += send is as_output
            await agent.flush()
        for stored in STORED:  # what was sent before has been stored, and answered
            await agent.jetstream().publish(stored, secrets.token_bytes())
            sent[stored] += 1
        # The services have heard and read it all: what they then decide is behind it.
        await world.fleet.flush()
        await until_heard(world, agent)
        after = await world.streams()
        for subject, stream in STORED.items():
            assert after[stream][1].pop(subject) == before[stream][1].pop(subject) + sent[subject]
        for stream in ("TASKYARD_LOG_0", "KV_taskyard_leases"):  # the services go on writing where they did
            assert set(after.pop(stream)[1]) == set(before.pop(stream)[1])
        assert after == before
        joined = {event.worker for event in await world.events() if isinstance(event, WorkerJoined)}
        assert OTHER not in joined

    run(tmp_path, scenario)


def test_an_agents_answer_to_a_request_may_name_no_reply_subject_that_means_anything(tmp_path: Path) -> None:
    async def scenario(world: World, agent: Client) -> None:
        before = await world.streams()

        async def answer(request: Msg) -> None:
            for reply in REPLY_SUBJECTS:
                await agent.publish(request.reply, b'{"answers":[]}', reply=reply)

        await agent.subscribe(f"taskyard.agent.{ME}.>", cb=answer)
        await agent.flush()
        for _ in REPLY_SUBJECTS:
            assert (await asked(world)).data
        await agent.flush()
        after = await world.streams()
        for found in (before, after):
            found.pop("KV_taskyard_leases")
        assert after == before

    run(tmp_path, scenario)


@pytest.mark.parametrize("reply", [f"taskyard.agent.{OTHER}.assign", f"taskyard.agent.{OTHER}.cancel"])
def test_an_acknowledgement_that_reaches_another_agent_asks_it_for_nothing(tmp_path: Path, reply: str) -> None:
    async def scenario(world: World, agent: Client) -> None:
        other = await connect(world.server, OTHER)
        heard = await other.subscribe(f"taskyard.agent.{OTHER}.>")
        await other.flush()
        await until_joined(world, agent, ME, INCARNATION)
        await agent.publish(f"taskyard.report.{ME}", b"{}", reply=reply)
        message = await heard.next_msg(5)
        assert (b'"stream"' in message.data, message.reply) == (True, "")
        await other.close()

    run(tmp_path, scenario)


async def asked(world: World) -> Msg:
    """What the agent answers to an assignment. Like the dispatcher, this asks again where nobody seems to listen."""
    async with asyncio.timeout(5):
        while True:
            with suppress(NoRespondersError):
                return await world.fleet.request(f"taskyard.agent.{ME}.assign", b"{}", timeout=5)
            await asyncio.sleep(0.1)


async def until_heard(world: World, agent: Client) -> None:
    """Until the allocator has decided on what the agent said last, which is behind all that it said before."""
    async with asyncio.timeout(20):
        while not any(isinstance(event, WorkerLost) for event in await world.events()):
            await agent.publish(f"taskyard.heartbeat.{ME}", heartbeat(INCARNATION, leaving=True))
            await asyncio.sleep(0.3)  # more often than it may speak nobody is heard


def run(folder: Path, scenario: Callable[[World, Client], Awaitable[None]]) -> None:
    async def with_world() -> None:
        with nats_running(folder / "nats", clients=["admin"], agents=[ME, OTHER]) as server:
            async with asyncio.timeout(60), services_running(server) as world:
                agent = await connect(server, ME)
                try:
                    await scenario(world, agent)
                finally:
                    await agent.close()

    asyncio.run(with_world())
