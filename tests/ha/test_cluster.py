"""Three nats-servers that keep everything three times: the one that leads a stream is killed, again and again."""

import asyncio
import json
import socket
import time

import nats
import pytest
from installation import LEADING, Installation, until
from nats.aio.client import Client
from traffic import Traffic, traffic
from witness import Watched

from taskyard.contracts.subjects import COMMANDS, LEASES_BUCKET, REPORTS, SNAPSHOTS_BUCKET, log_stream
from taskyard.embedded.nats_cluster import NatsCluster
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOG = log_stream("0")
LEASES = f"KV_{LEASES_BUCKET}"
VICTIMS = (LOG, LEASES, COMMANDS, LOG, REPORTS)
"""The streams whose leaders are killed, one after the other."""
TAKEOVERS_PER_KILL_MAX = 2
GAP_SECONDS_MAX = 20.0
"""An election leaves 4 to 9 s without an answer; those of several streams may follow one another."""


def test_the_leaders_of_streams_are_killed_and_nothing_acknowledged_is_lost(trio: Watched) -> None:
    cluster, http = trio.installation.nats, trio.installation.http
    assert isinstance(cluster, NatsCluster)
    for stream in (LOG, COMMANDS, LEASES, SNAPSHOTS_BUCKET, REPORTS):
        assert stream_info(trio.installation, stream)["config"]["num_replicas"] == 3
    gate = trio.installation.folder / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.1; done"
    long = http.post("/tasks", json={"kind": "command", "input": {"script": script}}).json()["id"]
    until(lambda: http.get(f"/tasks/{long}").json()["status"] == "running", "the long command runs")
    took_over = len(takeovers(trio))
    with traffic(trio.installation, again=True) as commands:
        for stream in VICTIMS:
            kill_leader_of(trio, cluster, stream, commands)
        until(lambda: len(trio.witness.leaders()) == len(LEADING), "every service has a leader")
    flaps = len(takeovers(trio)) - took_over
    gate.touch()
    trio.ids.extend([*commands.ids, long])
    run = trio.check()
    print(
        f"{len(VICTIMS)} kills, {len(commands.ids)} acknowledged: {dict(commands.counts)}, again {dict(commands.repeats)}"
    )
    stored = stream_info(trio.installation, COMMANDS)["state"]["messages"]
    print(f"{stored} commands stored, {len(run.lives)} tasks")
    print("longest gap", {door: round(each, 1) for door, each in commands.longest_gap.items()}, f"; {flaps} takeovers")
    assert set(trio.ids) <= run.lives.keys()
    assert run.lives[long].attempt == 1
    assert {run.lives[id].status for id in trio.ids} == {"completed"}
    assert not any("WorkerLost" in types for types in run.types.values())
    # What was sent while its worker had just lost its server is sent again under another number; nothing else is.
    again = {id: run.types[id] for id, life in run.lives.items() if life.attempt > 1}
    assert not {
        id: types for id, types in again.items() if run.lives[id].attempt > 1 + list(types).count("NotDelivered")
    }
    assert flaps <= TAKEOVERS_PER_KILL_MAX * len(VICTIMS) * len(LEADING[:3])
    assert max(commands.longest_gap.values()) < GAP_SECONDS_MAX


def test_a_stranger_is_no_route_of_the_cluster(trio: Watched) -> None:
    cluster = trio.installation.nats
    assert isinstance(cluster, NatsCluster)
    with socket.create_connection(("127.0.0.1", cluster.route_ports[0]), 5) as stranger:
        assert stranger.recv(1 << 16).startswith(b"INFO")
        stranger.sendall(b'CONNECT {"name":"stranger","cluster":"taskyard"}\r\nPING\r\n')
        assert b"Authorization Violation" in stranger.recv(1 << 16)


def kill_leader_of(trio: Watched, cluster: NatsCluster, stream: str, commands: Traffic) -> None:
    """Kill the server that leads a stream, wait until commands are acknowledged and run again, and start it again."""
    server = cluster.named(stream_info(trio.installation, stream)["cluster"]["leader"])
    server.kill()
    killed_at, wall = time.monotonic(), time.time()
    before = dict(commands.counts)
    # Each door has been answered since, so what they waited for is over; and what is accepted runs.
    until(
        lambda: all(commands.counts[door] > before[door] + 3 for door in before), "commands are acknowledged again", 40
    )
    until(lambda: trio.witness.rows_after(wall + 1) is not None, "rows are written again", 40)
    print(f"{stream}: acknowledged at all doors {time.monotonic() - killed_at:.1f} s after the kill")
    server.spawn()
    server.wait_until_ready()
    until(lambda: is_whole(trio.installation), "every stream has three replicas that have caught up", 60)


def takeovers(trio: Watched) -> list[tuple[str, int]]:
    """Every epoch that was begun."""
    return sorted({(seen.writer, seen.epoch) for seen in trio.witness.commits})


def is_whole(installation: Installation) -> bool:
    """Whether every stream has a leader and two followers that have all that it has."""
    infos = [stream_info(installation, stream) for stream in (LOG, COMMANDS, LEASES, SNAPSHOTS_BUCKET, REPORTS)]
    return all(
        info.get("cluster", {}).get("leader")
        and sum(each["current"] for each in info["cluster"].get("replicas", [])) == 2
        for info in infos
    )


def stream_info(installation: Installation, stream: str) -> dict:
    """What JetStream says of a stream; empty if it does not answer."""
    return asyncio.run(_stream_info(installation, stream))


async def _stream_info(installation: Installation, stream: str) -> dict:
    user = AGENTS_KEEPER if stream == REPORTS else CONTROL_KEEPER

    async def ignore(_: Exception) -> None:
        """One of the servers may be away."""

    client = Client()
    try:
        await client.connect(
            installation.nats_urls,
            user=user,
            password=installation.nats.password(user),
            error_cb=ignore,
            allow_reconnect=True,
            max_reconnect_attempts=3,
            reconnect_time_wait=0.1,
        )
        answer = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=3)).data)
        return {} if "error" in answer else answer
    except (nats.errors.Error, TimeoutError, OSError):
        return {}
    finally:
        await client.close()
