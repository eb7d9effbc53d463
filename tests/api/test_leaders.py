"""Whether commands are decided, told from what is seen of the leaders again and again. A lease period is 3 s here."""

import asyncio

import httpx
import pytest

from taskyard.api.leaders import DECIDERS, Leaders, watch_leaders
from taskyard.contracts.subjects import LEASES_BUCKET
from taskyard.eventlog.leases import JetStreamLease

LEASE_SECONDS = 3.0


class Watch:
    """Looks once a second from 0 on, as long as it is told, at what a story says of the scheduler; others are led."""

    def __init__(self) -> None:
        self.leaders = Leaders(LEASE_SECONDS, 0.0)
        self.now = 0.0
        self.unwell: list[float] = []

    def see(self, leader: str | None, for_seconds: float) -> "Watch":
        end = self.now + for_seconds
        while self.now < end:
            for writer in DECIDERS:
                self.leaders.saw(writer, leader if writer == "scheduler" else "one", self.now)
            if not self.leaders.health(self.now).healthy:
                self.unwell.append(self.now)
            self.now += 1.0
        return self


def test_an_installation_whose_leaders_stay_is_well() -> None:
    watch = Watch().see("one", 600)
    assert watch.unwell == []
    assert watch.leaders.health(watch.now).leaders == dict.fromkeys(DECIDERS, "one")
    assert watch.leaders.lacking_seconds("scheduler", watch.now) == 0


@pytest.mark.parametrize("lacking_seconds", [0, 1, 3, 6])
def test_a_takeover_is_no_fault(lacking_seconds: float) -> None:
    watch = Watch().see("one", 60).see(None, lacking_seconds).see("two", 60)
    assert watch.unwell == []


def test_a_writer_without_a_leader_for_longer_than_a_takeover_takes_is_named() -> None:
    watch = Watch().see("one", 60).see(None, 30)
    assert watch.unwell == [float(second) for second in range(67, 90)]
    health = watch.leaders.health(watch.now)
    assert not health.healthy
    assert list(health.reasons) == ["scheduler"] and "30 s" in health.reasons["scheduler"]
    assert health.leaders == {**dict.fromkeys(DECIDERS, "one"), "scheduler": None}


def test_it_is_well_again_once_a_leader_has_stayed() -> None:
    watch = Watch().see("one", 60).see(None, 30).see("two", 6)
    assert watch.leaders.health(watch.now).healthy


@pytest.mark.parametrize("away_seconds", [0, 2], ids=["at once", "after 2 s"])
def test_a_service_that_fails_whenever_it_leads_is_named_though_its_lease_is_held_most_of_the_time(
    away_seconds: float,
) -> None:
    watch = Watch().see("one", 60)
    for life in range(20):
        watch.see(f"life-{life}", 4).see(None, away_seconds)
    assert watch.unwell and watch.unwell[0] <= 60 + 4 * LEASE_SECONDS
    last = watch.now - 1
    assert watch.unwell[-10:] == [last - 9 + second for second in range(10)], "it stays so, and does not flicker"
    assert "scheduler" in watch.leaders.health(watch.now).reasons


def test_one_that_begins_gives_the_others_time() -> None:
    assert Watch().see(None, 6).unwell == []
    assert Watch().see(None, 12).unwell


@pytest.mark.anyio
async def test_a_look_that_gives_no_answer_ends_nothing() -> None:
    leaders, looks = Leaders(0.03, 0.0), asyncio.Event()
    asked: list[str] = []

    async def ask(writer: str) -> str | None:
        asked.append(writer)
        if len(asked) > 3 * len(DECIDERS):
            looks.set()
        return None

    watching = asyncio.create_task(watch_leaders(leaders, ask, 0.03))
    await asyncio.wait_for(looks.wait(), 10)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert set(asked) == set(DECIDERS)


@pytest.mark.anyio
async def test_health_is_503_and_names_the_writer_while_readiness_stays_about_the_instance(world) -> None:
    async def until(http: httpx.AsyncClient, status: int) -> httpx.Response:
        async with asyncio.timeout(30):
            while (answer := await http.get("/api/v1/health")).status_code != status:
                await asyncio.sleep(0.1)
            return answer

    async with world.http("") as anybody:
        lost = await until(anybody, 503)
        assert set(lost.json()["reasons"]) == set(DECIDERS)
        assert (await anybody.get("/readyz")).status_code == 200
        text = (await anybody.get("/metrics")).text
        assert 'taskyard_writer_leaderless_seconds{service="scheduler"}' in text

        leases = [JetStreamLease(world.control, LEASES_BUCKET, writer) for writer in DECIDERS]
        for lease in leases:
            assert await lease.try_acquire("one")

        async def renew() -> None:
            while True:
                await asyncio.gather(*(lease.renew() for lease in leases))
                await asyncio.sleep(0.2)

        renewing = asyncio.create_task(renew())
        well = await until(anybody, 200)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
    assert well.json() == {"healthy": True, "reasons": {}, "leaders": dict.fromkeys(DECIDERS, "one")}
    assert "/api/v1/health" in (await _schema(world))


async def _schema(world) -> str:
    async with world.http() as http:
        return (await http.get("/docs/openapi.json")).text
