"""Whether commands are decided, told from what is seen of the leaders again and again. A lease period is 3 s here."""

import asyncio
import time

import httpx
import pytest
from running_api import led

from taskyard.api.clock import now
from taskyard.api.leader_watch import look_back, watch_leaders
from taskyard.api.leaders import BEGINNINGS_MAX, LATELY_SECONDS, Leaders, Look
from taskyard.contracts.events import DECIDERS, SCHEDULER, AnyEvent, decode_event
from taskyard.contracts.values import Instant, seconds
from taskyard.eventlog.commit import Commit, CommitCodec
from taskyard.eventlog.memory import MemoryLog, MemoryStream

LEASE_SECONDS = 3.0
UNKNOWN = "unknown"


class Watch:
    """Looks once a second from 0 on, as long as it is told, at what a story says of the scheduler; others are led.

    Whoever leads has an epoch of its own.
    """

    def __init__(self) -> None:
        self.leaders = Leaders(LEASE_SECONDS, 0.0)
        self.now = 0.0
        self.epoch = 0
        self.leader: str | None = None
        self.unwell: list[float] = []

    def see(self, leader: str | None, for_seconds: float) -> "Watch":
        if leader not in (None, UNKNOWN, self.leader):
            self.epoch, self.leader = self.epoch + 1, leader
        end = self.now + for_seconds
        while self.now < end:
            for writer in DECIDERS:
                look = Look(leader=leader if writer == SCHEDULER else "one", epoch=self.epoch)
                self.leaders.saw(writer, None if leader == UNKNOWN and writer == SCHEDULER else look, self.now)
            if not self.leaders.health(self.now).healthy:
                self.unwell.append(self.now)
            self.now += 1.0
        return self

    def reason(self) -> str:
        return self.leaders.health(self.now).reasons.get(SCHEDULER, "")


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


@pytest.mark.parametrize("life_seconds", [5, 6, 10, 20])
def test_a_service_that_leads_for_a_while_and_dies_again_and_again_is_named(life_seconds: float) -> None:
    watch = Watch().see("one", 60)
    for life in range(15):
        watch.see(f"life-{life}", life_seconds).see(None, 3)
    assert watch.unwell and watch.unwell[0] <= 60 + (BEGINNINGS_MAX + 1) * (life_seconds + 3)
    last = watch.now - 1
    assert watch.unwell[-10:] == [last - 9 + second for second in range(10)], "it stays so, and does not flicker"
    assert "times in the last 120 s: it restarts in a loop" in watch.reason()
    watch.see("cured", LATELY_SECONDS)
    assert watch.reason() == ""


def test_one_that_steps_down_and_leads_again_under_its_name_is_named_by_its_epochs() -> None:
    watch = Watch().see("one", 60)
    for _ in range(BEGINNINGS_MAX + 1):
        watch.epoch += 1
        watch.see("one", 10)
    assert f"leadership began {BEGINNINGS_MAX + 1} times" in watch.reason()


def test_beginnings_between_two_looks_count() -> None:
    watch = Watch().see("one", 60)
    watch.epoch += BEGINNINGS_MAX + 1
    assert watch.see("one", 1).unwell


@pytest.mark.parametrize("instances", [2, 3])
def test_a_rolling_restart_and_a_hand_over_are_healthy(instances: int) -> None:
    watch = Watch().see("one", 60)
    for instance in range(instances):
        watch.see(f"restarted-{instance}", 15)
    watch.see("handed over", 120)
    assert watch.unwell == []


def test_that_who_leads_was_not_learnt_is_not_that_nobody_leads() -> None:
    watch = Watch().see("one", 60)
    for _ in range(20):
        watch.see(UNKNOWN, 5).see("one", 1)
    assert watch.unwell == [] and watch.leaders.lacking_seconds(SCHEDULER, watch.now) == 0
    watch.see(UNKNOWN, 5)
    health = watch.leaders.health(watch.now)
    assert (health.leaders[SCHEDULER], health.unknown) == ("one", [SCHEDULER])

    watch.see(UNKNOWN, 20)
    assert watch.reason() == "who leads has not been learnt for 25 s: look at nats-server"
    assert watch.see("one", 1).reason() == ""
    assert watch.see(None, 20).reason().startswith("no leader has been seen for 20 s")


def test_one_that_begins_gives_the_others_time() -> None:
    assert Watch().see(None, 6).unwell == []
    assert Watch().see(None, 12).unwell


@pytest.mark.anyio
async def test_a_look_that_gives_no_answer_ends_nothing() -> None:
    leaders, looks = Leaders(0.03, 0.0), asyncio.Event()
    asked: list[str] = []

    async def ask(writer: str) -> Look | None:
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
async def test_a_look_that_raises_ends_nothing() -> None:
    leaders, asked = Leaders(LEASE_SECONDS, 0.0), 0

    async def ask(writer: str) -> Look | None:
        nonlocal asked
        asked += writer == SCHEDULER
        if writer == SCHEDULER and asked == 1:
            raise ZeroDivisionError("a bug")
        return Look(leader="one", epoch=1)

    watching = asyncio.create_task(watch_leaders(leaders, ask, 0.03))
    async with asyncio.timeout(10):
        while leaders.health(time.monotonic()).leaders.get(SCHEDULER) != "one":
            await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()


@pytest.mark.anyio
async def test_one_that_ends_with_what_it_watches_knows_how_often_leadership_began_before() -> None:
    codec = CommitCodec(AnyEvent, decode_event)
    log = MemoryLog(MemoryStream("log", now), "log.", codec)
    for epoch in range(BEGINNINGS_MAX + 2):
        commit = Commit(writer=SCHEDULER, instance=f"life-{epoch}", epoch=epoch, at=0)
        await log.append(codec.encode(commit), writer=SCHEDULER, expected=epoch)

    late, later = Leaders(LEASE_SECONDS, 0.0), Leaders(LEASE_SECONDS, 0.0)
    await look_back(late, log, now)
    await look_back(later, log, lambda: Instant(now() + seconds(LATELY_SECONDS + 60)))

    assert late.beginnings(SCHEDULER, time.monotonic()) == BEGINNINGS_MAX + 1
    assert later.beginnings(SCHEDULER, time.monotonic()) == 0


async def until(http: httpx.AsyncClient, status: int) -> httpx.Response:
    async with asyncio.timeout(30):
        while (answer := await http.get("/api/v1/health")).status_code != status:
            await asyncio.sleep(0.1)
        return answer


@pytest.mark.anyio
async def test_health_is_503_and_names_the_writer_while_readiness_stays_about_the_instance(world) -> None:
    async with world.http("") as anybody:
        lost = await until(anybody, 503)
        assert set(lost.json()["reasons"]) == set(DECIDERS)
        assert (await anybody.get("/readyz")).status_code == 200
        text = (await anybody.get("/metrics")).text
        assert 'taskyard_writer_leaderless_seconds{service="scheduler"}' in text
        assert 'taskyard_writer_healthy{service="scheduler"} 0.0' in text

        async with led(world, *DECIDERS):
            well = await until(anybody, 200)
        text = (await anybody.get("/metrics")).text
        assert 'taskyard_writer_healthy{service="scheduler"} 1.0' in text
    leaders = dict.fromkeys(DECIDERS, "one")
    assert well.json() == {"healthy": True, "reasons": {}, "leaders": leaders, "unknown": [], "warnings": {}}
    assert "/api/v1/health" in (await _schema(world))


async def _schema(world) -> str:
    async with world.http() as http:
        return (await http.get("/docs/openapi.json")).text
