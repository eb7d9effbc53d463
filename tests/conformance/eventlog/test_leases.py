"""A lease picks one instance, lets another in when it is over, and survives a restart of the server."""

import asyncio
import time
from contextlib import suppress

import pytest

from taskyard.eventlog.errors import EventLogError, LeaseLost
from taskyard.eventlog.leases import ensure_leases, work_with_lease

pytestmark = pytest.mark.anyio


async def test_one_instance_at_a_time_holds_a_lease(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    assert not await two.try_acquire("two")
    assert await one.renew()
    assert await site.lease("v").try_acquire("two")


async def test_a_lease_that_expired_lets_another_in_and_is_not_renewed(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    await site.lease_time_passes()
    assert await two.try_acquire("two")
    assert not await one.renew()
    assert not await one.try_acquire("one")
    assert await two.renew()


async def test_a_lease_that_expired_is_renewed_when_nobody_took_it(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    await site.lease_time_passes()
    assert await one.renew()
    assert not await two.try_acquire("two")


async def test_a_lease_that_was_lost_stays_lost_after_its_new_holder_has_gone(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    await site.lease_time_passes()
    assert await two.try_acquire("two")
    assert not await one.renew()
    await two.release()
    assert not await one.renew()


async def test_who_waits_for_a_lease_hears_at_once_that_it_was_given_up(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    assert not await two.try_acquire("two")
    waiting = asyncio.create_task(two.until_free(seconds_max=20))
    await asyncio.sleep(0.05)  # not for luck: who comes too late waits for nothing, and this fails below
    await one.release()
    began = time.monotonic()
    await waiting
    while not await two.try_acquire("two"):
        await two.until_free(seconds_max=20)
    assert time.monotonic() - began < 2


async def test_waiting_for_a_lease_that_nobody_gives_up_ends(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    await two.until_free(seconds_max=0.05)
    assert not await two.try_acquire("two")


async def test_a_renewal_that_was_cut_off_does_not_keep_a_lease_from_being_given_up(nats_site):
    one, two = nats_site.lease("w"), nats_site.lease("w")
    assert await one.try_acquire("one")
    renewal = asyncio.create_task(one.renew())
    await asyncio.sleep(0)  # it is sent, and its answer never read
    renewal.cancel()
    await asyncio.gather(renewal, return_exceptions=True)
    await one.release()
    assert await two.try_acquire("two")


async def test_a_lease_is_kept_until_another_has_it(site, kit):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    keeping = asyncio.create_task(work_with_lease(one, 0.3, asyncio.Event().wait()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(keeping), 0.5)
    await one.release()
    assert await two.try_acquire("two")
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(keeping, kit.lease_seconds)


async def test_work_ends_with_its_lease(site, kit):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    is_over = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_over.set()

    working = asyncio.create_task(work_with_lease(one, 0.3, work()))
    await asyncio.sleep(0)
    await one.release()
    assert await two.try_acquire("two")
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(working, kit.lease_seconds)
    assert is_over.is_set()


async def test_what_fails_in_the_work_is_told(site):
    lease = site.lease("w")
    assert await lease.try_acquire("one")

    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work_with_lease(lease, 3.0, work())


async def test_work_that_ends_is_all(site):
    lease = site.lease("w")
    assert await lease.try_acquire("one")

    async def work() -> None:
        await asyncio.sleep(0)

    await work_with_lease(lease, 3.0, work())
    assert await lease.renew()


async def test_renewing_keeps_a_lease(site, kit):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    for _ in range(4):
        await asyncio.sleep(kit.lease_seconds / 3)
        assert await one.renew()
        assert not await two.try_acquire("two")


async def test_a_released_lease_is_free_at_once(site):
    one, two = site.lease("w"), site.lease("w")
    assert await one.try_acquire("one")
    await one.release()
    assert not await one.renew()
    assert await two.try_acquire("two")
    await one.release()
    assert await two.renew()
    assert not await one.try_acquire("one")


async def test_acquiring_again_is_renewing(site):
    one = site.lease("w")
    assert await one.try_acquire("one")
    assert await one.try_acquire("one")
    assert await site.lease("w").try_acquire("one")
    assert await one.renew()


async def test_without_a_server_nothing_is_confirmed_and_nothing_hangs(own_server, own_site):
    lease = own_site.lease("w")
    assert await lease.try_acquire("one")
    own_server.kill()
    async with asyncio.timeout(3):
        with pytest.raises(EventLogError):
            await lease.renew()
        assert not await lease.try_acquire("one")
        await lease.release()


async def test_a_lease_about_which_nobody_answers_for_a_while_is_kept(own_server, own_site):
    lease = own_site.lease("w")
    assert await lease.try_acquire("one")
    keeping = asyncio.create_task(work_with_lease(lease, 1.0, asyncio.Event().wait()))
    own_server.kill()
    with pytest.raises(TimeoutError):  # longer than the lease
        await asyncio.wait_for(asyncio.shield(keeping), 2)
    own_server.start()
    other = own_site.lease("w")
    async with asyncio.timeout(15):
        while True:
            with suppress(EventLogError):
                assert await lease.renew()
                break
            await asyncio.sleep(0.05)
    assert not await other.try_acquire("two")
    assert not keeping.done()
    keeping.cancel()


async def test_leases_work_again_after_a_restart_of_the_server(own_server, own_site, kit):
    lease = own_site.lease("w")
    assert await lease.try_acquire("one")
    own_server.kill()
    own_server.start()
    async with asyncio.timeout(15):
        while not await lease.try_acquire("one"):
            await asyncio.sleep(0.05)


async def test_the_lease_time_of_a_bucket_can_be_changed(nats_site):
    for lease_seconds in (7.0, 3.0, 3.0):
        await ensure_leases(nats_site.nc, nats_site.bucket, lease_seconds=lease_seconds)
        info = await nats_site.nc.jetstream().stream_info(f"KV_{nats_site.bucket}")
        assert info.config.max_age == lease_seconds
