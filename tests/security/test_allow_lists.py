"""Each user of nats-server against each class of subjects: what it may publish and hear, tried on the real server.

The table below is told once more, from what each service is for, so that a mistake in the one of the server is a difference.
"""

import asyncio
from typing import Any

import pytest
from agents_world import connect
from nats.aio.client import Client
from real_servers import nats_running

from taskyard.api.past import checkpoints
from taskyard.contracts.subjects import AUDIT, COMMANDS, OUTPUT, REPORTS, log_stream
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER, SERVICES, SNAPSHOTS, SYSTEM_USER, fixed_users

AGENTS, PRINCIPALS, VIEWERS = ["worker-1", "worker-2"], ["admin", "bob"], ["vera"]
ALMIGHTY = {SYSTEM_USER, CONTROL_KEEPER, AGENTS_KEEPER}
"""Nobody works as one of them: the server's own account, and who makes streams."""
OTHERS = {user.name for user in fixed_users()} - ALMIGHTY | {*AGENTS, *PRINCIPALS, *VIEWERS}
LOG = log_stream("0")
STREAMS = (LOG, COMMANDS, REPORTS, OUTPUT, AUDIT, "KV_taskyard_leases", "taskyard_snapshots", f"{LOG}_EXCHANGE")
WRITERS = ("scheduler", "slot_allocator", "dispatcher")

READERS = {
    LOG: {"control.reader", *(f"control.{service}" for service in SERVICES)},
    COMMANDS: {"control.scheduler"},
    REPORTS: {"agents.dispatcher"},
    OUTPUT: {"agents.api"},
    AUDIT: {"control.reader"},
}
LOOKERS = {
    **READERS,
    "KV_taskyard_leases": {f"control.{service}" for service in SERVICES},
    "taskyard_snapshots": {f"control.{service}" for service in (*WRITERS, "api", "reader")},
    f"{LOG}_EXCHANGE": {f"control.{service}" for service in SERVICES},
}
MAY_PUBLISH: dict[str, set[str]] = {
    **{f"taskyard.log.0.{writer}": {f"control.{writer}"} for writer in WRITERS},
    "taskyard.log.0.log_keeper": set(),
    "taskyard.audit.http": {"control.api"},
    "taskyard.command.admin.default.submit": {"admin", "control.api"},
    "taskyard.command.bob.default.submit": {"bob", "control.api"},
    "taskyard.request.admin.default.submit": {"admin"},
    "taskyard.request.vera.default.submit": {"vera"},
    "taskyard.commanded.admin.default.submit": set(),
    "taskyard.answer.api-1": {"control.scheduler"},
    "_R_.abc.def": {"control.api", "agents.dispatcher"},
    "taskyard.reported.worker-1": set(),
    **{f"taskyard_snapshots.{writer}.0.0": {f"control.{writer}"} for writer in WRITERS},
    "taskyard_snapshots.past.0.0": {"control.api"},
    **{f"$KV.taskyard_leases.{name}": {f"control.{name}"} for name in (*WRITERS, "state_projector")},
    **{f"taskyard.heartbeat.{agent}": {agent} for agent in AGENTS},
    **{f"taskyard.report.{agent}": {agent, "agents.dispatcher"} for agent in AGENTS},
    **{f"taskyard.output.{agent}.task": {agent, "agents.dispatcher"} for agent in AGENTS},
    "taskyard.printed.worker-1.task": set(),
    "taskyard.agent.worker-1.assign": {"agents.dispatcher"},
    "taskyard.agent.worker-1.cancel": {"agents.dispatcher"},
    "taskyard.agent.worker-1.anything": set(),
    **{f"$JS.API.STREAM.{verb}.{stream}": set() for stream in STREAMS for verb in ("DELETE", "PURGE", "UPDATE")},
    **{f"$JS.API.STREAM.{verb}.{stream}": set() for stream in STREAMS for verb in ("CREATE", "MSG.DELETE", "RESTORE")},
    **{f"$JS.API.STREAM.MSG.GET.{stream}": LOOKERS[stream] for stream in STREAMS},
    **{f"$JS.API.CONSUMER.CREATE.{stream}.mine": READERS.get(stream, set()) for stream in STREAMS},
    **{f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine": set() for stream in STREAMS},
    **{f"$JS.API.CONSUMER.DELETE.{stream}.mine": READERS.get(stream, set()) for stream in STREAMS},
    "$JS.API.STREAM.CREATE.MINE": set(),
    "$JS.API.STREAM.LEADER.STEPDOWN.TASKYARD_LOG_0": set(),
    "$JS.API.META.LEADER.STEPDOWN": set(),
    "$JS.ACK.TASKYARD_COMMANDS.c.1.1.1.1.0": set(),
    "$SYS.REQ.SERVER.PING": set(),
    **{f"_INBOX_{user}.x": set() for user in ("control.scheduler", "agents.api", "worker-1", "admin")},
    "_INBOX.x": set(),
    "anything.else": set(),
}
MAY_HEAR: dict[str, set[str]] = {
    "taskyard.heartbeat.*": {"agents.slot_allocator", "agents.dispatcher"},
    "taskyard.heartbeat.worker-1": {"agents.slot_allocator", "agents.dispatcher"},
    "taskyard.reported.*": {"agents.dispatcher"},
    "taskyard.printed.*.*": {"agents.dispatcher"},
    "taskyard.agent.worker-1.>": {"worker-1"},
    "taskyard.agent.*.assign": set(),
    "taskyard.request.>": {"control.api"},
    "taskyard.commanded.>": {"control.api"},
    "taskyard.commanded.admin.>": {"control.api"},
    "taskyard.answer.*": {"control.api"},
    **{f"$KV.taskyard_leases.{name}": {f"control.{name}"} for name in (*WRITERS, "state_projector")},
    **{subject: set() for subject in ("taskyard.command.>", "taskyard.log.0.*", "taskyard.report.*", "_R_.>", "$JS.>")},
    **{f"_INBOX_{user}.>": {user} for user in OTHERS},
    **{subject: set() for subject in (">", "_INBOX.>", "$SYS.>", "*.>")},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("nats")
    with nats_running(folder / "nats", clients=PRINCIPALS, viewers=VIEWERS, agents=AGENTS) as running:
        yield running


@pytest.mark.parametrize("user", sorted(OTHERS))
def test_a_user_publishes_what_it_is_for_and_nothing_else(server: NatsServer, user: str) -> None:
    async def publish(client: Client) -> None:
        for subject in MAY_PUBLISH:
            await client.publish(subject, b"")

    denied = asyncio.run(denials(server, user, publish))
    assert denied == {subject.lower() for subject, users in MAY_PUBLISH.items() if user not in users}


@pytest.mark.parametrize("user", sorted(OTHERS))
def test_a_user_hears_what_it_is_for_and_nothing_else(server: NatsServer, user: str) -> None:
    async def subscribe(client: Client) -> None:
        for subject in MAY_HEAR:
            await client.subscribe(subject)

    denied = asyncio.run(denials(server, user, subscribe))
    assert denied == {subject.lower() for subject, users in MAY_HEAR.items() if user not in users}


def test_who_hears_heartbeats_for_the_slots_publishes_nothing_at_all() -> None:
    (hearing,) = (user for user in fixed_users() if user.name == "agents.slot_allocator")
    assert hearing.publish == ()
    assert hearing.permissions["publish"] == {"deny": [">"]}


def test_no_user_of_a_service_has_a_wildcard_over_what_changes_streams() -> None:
    for user in fixed_users():
        if user.name not in ALMIGHTY:
            assert not [one for one in user.publish if one in (">", "$JS.>", "$JS.API.>", "$JS.API.STREAM.>")]
            assert not [
                one for one in user.publish for verb in ("DELETE", "PURGE", "UPDATE") if f"STREAM.{verb}" in one
            ]


def test_the_api_may_keep_as_many_states_of_the_past_as_it_does() -> None:
    places = (checkpoints._place_name(place) for place in range(checkpoints.CHECKPOINTS_MAX + 1))
    assert SNAPSHOTS["api"] == (checkpoints._NAME, *places)


async def denials(server: NatsServer, user: str, act: Any) -> set[str]:
    """The subjects that the server denied."""
    denied: set[str] = set()

    async def note(error: Exception) -> None:
        text = str(error).lower()
        assert "permissions violation" in text
        denied.add(text.split('"')[1])

    client = await connect(server, user, error_cb=note, allow_reconnect=False)
    try:
        await act(client)
        for _ in "12":  # nats-py sends its ping before what was published
            await client.flush(10)
        return denied
    finally:
        await client.close()
