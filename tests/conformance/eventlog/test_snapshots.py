"""Snapshots are kept by twos, read newest first, and passed over when they cannot be trusted."""

import random

import pytest

pytestmark = pytest.mark.anyio


async def test_there_is_no_snapshot_at_first(site):
    assert await site.snapshots().load("w", 1) is None


async def test_the_newest_snapshot_is_loaded(site):
    for sequence in (10, 20, 30, 40):
        await site.snapshots().save("w", 1, sequence, f"state {sequence}".encode())
    await site.snapshots().save("v", 1, 99, b"another writer")
    assert await site.snapshots().load("w", 1) == (40, b"state 40")
    assert await site.snapshots().load("v", 1) == (99, b"another writer")


async def test_a_snapshot_of_several_megabytes_comes_back_whole(site):
    data = random.Random(1).randbytes(3_333_333)
    await site.snapshots().save("w", 1, 10, data)
    await site.snapshots().save("w", 1, 20, b"")
    assert await site.snapshots().load("w", 1) == (20, b"")
    await site.snapshots().save("w", 1, 30, data[:1_000_000])
    assert await site.snapshots().load("w", 1) == (30, data[:1_000_000])


async def test_a_damaged_snapshot_is_passed_over(site):
    await site.snapshots().save("w", 1, 10, b"older")
    await site.snapshots().save("w", 1, 20, b"newer")
    await site.damage_newest_snapshot("w")
    assert await site.snapshots().load("w", 1) == (10, b"older")


async def test_a_snapshot_of_another_version_is_passed_over(site):
    await site.snapshots().save("w", 1, 10, b"old form")
    await site.snapshots().save("w", 2, 20, b"new form")
    assert await site.snapshots().load("w", 1) == (10, b"old form")
    assert await site.snapshots().load("w", 2) == (20, b"new form")
    assert await site.snapshots().load("w", 3) is None


async def test_a_snapshot_that_was_not_written_to_its_end_is_passed_over(nats_site):
    store = nats_site.snapshots()
    await store.save("w", 1, 10, b"a" * 600_000)
    await store.save("w", 1, 20, b"b" * 600_000)

    published = 0
    publish = store._publish

    async def die_in_the_middle(subject, data, headers):
        nonlocal published
        published += 1
        if published == 3:
            raise ConnectionResetError("died")
        await publish(subject, data, headers)

    store._publish = die_in_the_middle
    with pytest.raises(ConnectionResetError):
        await store.save("w", 1, 30, b"c" * 600_000)

    assert await nats_site.snapshots().load("w", 1) == (20, b"b" * 600_000)
    await nats_site.snapshots().save("w", 1, 40, b"d" * 600_000)
    assert await nats_site.snapshots().load("w", 1) == (40, b"d" * 600_000)


async def test_who_cannot_use_a_snapshot_asks_for_the_one_before(site):
    await site.snapshots().save("w", 1, 10, b"older")
    await site.snapshots().save("w", 1, 20, b"newer")
    assert await site.snapshots().load("w", 1, below=20) == (10, b"older")
    assert await site.snapshots().load("w", 1, below=10) is None


@pytest.mark.parametrize("chunks", ["", "x", "0", "-1", "99999999", "2"])
async def test_a_snapshot_that_lies_of_its_length_is_passed_over(nats_site, chunks, caplog):
    store = nats_site.snapshots()
    await store.save("w", 1, 10, b"older")
    headers = {
        f"Taskyard-Snapshot-{name}": value for name, value in (("Version", "1"), ("Sequence", "20"), ("Id", "x"))
    }
    await store._publish(store._subject("w", 1, 0), b"newer", headers | {"Taskyard-Snapshot-Chunks": chunks})

    assert await nats_site.snapshots().load("w", 1) == (10, b"older")
    assert "skipped a damaged snapshot" in caplog.text
