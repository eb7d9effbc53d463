"""A lease picks one instance, lets another in when it is over, and survives a restart of the server."""

import asyncio

import pytest

from taskyard.eventlog.leases import ensure_leases

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


async def test_a_lease_that_expired_is_not_renewed_even_when_nobody_took_it(site):
    one = site.lease("w")
    assert await one.try_acquire("one")
    await site.lease_time_passes()
    assert not await one.renew()
    assert not await one.renew()
    assert await one.try_acquire("one")


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
        assert not await lease.renew()
        await lease.release()


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
