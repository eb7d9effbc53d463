"""Every instance is stopped in order and started again, one after the other, and no client notices."""

import signal
import time
from itertools import pairwise

import httpx
import pytest
from installation import LEADING, LEASE_SECONDS, SERVICES, Instance, until
from traffic import traffic
from witness import Watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HANDOVER_SECONDS_MAX = LEASE_SECONDS / 2
"""It takes some hundredths of a second; what is stated is that nobody waits for a lease to expire, on a busy machine too."""


def test_a_rolling_restart_of_everything_fails_no_command(pair: Watched) -> None:
    handovers: dict[str, list[float]] = {service: [] for service in LEADING}
    with traffic(pair.installation, again=False) as commands:
        for service in SERVICES:
            for instance in in_order(pair, service):
                leads = service in LEADING and pair.installation.of(pair.witness.holder(service) or "x-0-x") is instance
                stopped_at = time.time()
                instance.signal(signal.SIGTERM)
                if leads:
                    handovers[service].append(measure_handover(pair, service, stopped_at))
                assert instance.ended() == 0, instance.log[-3000:]
                instance.restart()
    pair.ids.extend(commands.ids)
    print(f"{len(commands.ids)} commands:", dict(commands.counts))
    print("handed over after", {service: [round(each, 3) for each in found] for service, found in handovers.items()})
    print("longest answer", {door: round(each, 2) for door, each in commands.longest_answer.items()})
    assert not commands.failures
    assert min(commands.counts.values()) > 20
    assert all(handovers.values())
    assert max(max(found) for found in handovers.values()) < HANDOVER_SECONDS_MAX


def in_order(pair: Watched, service: str) -> list[Instance]:
    """Both instances of a service, the one that leads first."""
    both = pair.installation.pair(service)
    if service not in LEADING:
        return both
    until(lambda: pair.witness.holder(service) is not None, f"{service} has a leader")
    return sorted(both, key=lambda each: pair.installation.of(pair.witness.holder(service) or "x-0-x") is not each)


def measure_handover(pair: Watched, service: str, stopped_at: float) -> float:
    """How long after the signal another instance was at work."""
    if service == "state_projector":
        until(lambda: pair.witness.rows_after(stopped_at + HANDOVER_SECONDS_MAX) is not None, "rows are written on")
        moments = [stopped_at, *(at for at, _ in pair.witness.positions if at > stopped_at)]
        return max(later - earlier for earlier, later in pairwise(moments))
    until(lambda: pair.witness.takeover(service, stopped_at) is not None, f"{service} is led again")
    seen = pair.witness.takeover(service, stopped_at)
    assert seen is not None
    return seen.at - stopped_at


def test_an_api_that_is_told_to_stop_says_so_before_it_takes_no_more_requests(pair: Watched) -> None:
    instance = pair.installation.pair("api")[1]
    with httpx.Client(base_url=instance.http_url, trust_env=False, timeout=5) as client:
        assert client.get("/readyz").status_code == 200
        instance.signal(signal.SIGTERM)
        answer = client.get("/readyz")
        while answer.status_code == 200:
            answer = client.get("/readyz")
        assert answer.json()["reasons"]["service"] == "it stops"
        assert answer.headers["connection"] == "close"
        taken = client.get("/healthz")
        assert taken.status_code == 200
    assert instance.ended() == 0
    instance.start()
