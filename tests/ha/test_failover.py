"""Two instances of each service: the standby takes over whatever becomes of the leader, and a stale leader writes nothing."""

import signal
import time
from collections.abc import Callable

import pytest
from installation import LEADING, LEASE_SECONDS, Instance, until
from traffic import traffic
from witness import Watched

from taskyard.contracts.subjects import COMMANDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TAKEOVER_SECONDS_MAX = 2 * LEASE_SECONDS
BUSY_SECONDS = 2.0
"""What a takeover may take longer because many processes share few processors."""
STOP_SECONDS = 30.0


def leaders(pair: Watched) -> dict[str, Instance]:
    """The instance that leads each service."""

    def all_lead() -> bool:
        return len(pair.witness.leaders()) == len(LEADING) and None not in found().values()

    def found() -> dict[str, Instance | None]:
        return {service: pair.installation.of(holder) for service, holder in pair.witness.leaders().items()}

    until(all_lead, "every service has a leader")
    return {service: instance for service, instance in found().items() if instance is not None}


def measure_takeovers(pair: Watched, failed_at: float) -> dict[str, float]:
    """How long after a failure each service had another leader: one that commits, or that writes rows."""

    def taken_over() -> dict[str, float]:
        moments = {service: pair.witness.takeover(service, failed_at) for service in LEADING[:3]}
        seconds = {service: seen.at - failed_at for service, seen in moments.items() if seen is not None}
        rows_at = pair.witness.rows_after(failed_at + 0.2)  # what was on its way is written by then
        return seconds | ({"state_projector": rows_at - failed_at} if rows_at is not None else {})

    until(lambda: len(taken_over()) == len(LEADING), lambda: f"each has a new leader: {taken_over()}")
    return taken_over()


def fails(pair: Watched, fail: Callable[[dict[str, Instance]], None]) -> tuple[dict[str, Instance], float]:
    """Let the leaders fail under load; who they were, and when."""
    before = leaders(pair)
    failed_at = time.time()
    fail(before)
    seconds = measure_takeovers(pair, failed_at)
    print("takeover after", {service: round(each, 2) for service, each in seconds.items()})
    assert max(seconds.values()) < TAKEOVER_SECONDS_MAX + BUSY_SECONDS, seconds
    return before, failed_at


def until_standing_by(pair: Watched, instances: dict[str, Instance]) -> None:
    """Wait until former leaders are well, and stand by."""
    for service, instance in instances.items():
        until(instance.is_ready, lambda each=instance: f"{each.name} is ready\n{each.log[-2000:]}")
        holder = pair.witness.holder(service)
        assert holder is not None and pair.installation.of(holder) is not instance


def no_stale_commit(pair: Watched, failed_at: float) -> None:
    """No commit of an old epoch follows the first one of a new epoch."""
    highest: dict[str, int] = {}
    for seen in pair.witness.commits:
        assert seen.epoch >= highest.get(seen.writer, 0), seen
        highest[seen.writer] = seen.epoch
    assert pair.witness.commits[-1].at > failed_at


def test_the_standby_takes_over_from_a_leader_that_was_killed(pair: Watched) -> None:
    with traffic(pair.installation, again=True) as commands:

        def kill(leading: dict[str, Instance]) -> None:
            for instance in leading.values():
                instance.signal(signal.SIGKILL)
                instance.ended()

        before, failed_at = fails(pair, kill)
        for instance in before.values():
            instance.start()
        until_standing_by(pair, before)
    no_stale_commit(pair, failed_at)
    pair.ids.extend(commands.ids)


def test_the_standby_takes_over_from_a_leader_that_stands_still_and_wakes_up_later(pair: Watched) -> None:
    with traffic(pair.installation, again=True) as commands:

        def stop(leading: dict[str, Instance]) -> None:
            for instance in leading.values():
                instance.signal(signal.SIGSTOP)

        before, failed_at = fails(pair, stop)
        dispatcher = before.pop("dispatcher")
        for instance in before.values():
            instance.signal(signal.SIGCONT)
        until_standing_by(pair, before)
    # What it sleeps through has been asked for: nobody need command all the while.
    until(lambda: time.time() > failed_at + STOP_SECONDS, "the dispatcher has stood still for long", STOP_SECONDS + 1)
    with traffic(pair.installation, again=True) as later:
        until(lambda: min(later.counts.values(), default=0) > 5, "commands are under way again")
        dispatcher.signal(signal.SIGCONT)
        until_standing_by(pair, {"dispatcher": dispatcher})
    no_stale_commit(pair, failed_at)
    pair.ids.extend([*commands.ids, *later.ids])


@pytest.mark.parametrize("frozen", [("scheduler", "state_projector"), ("slot_allocator", "dispatcher")])
def test_the_standby_takes_over_from_a_leader_that_nats_is_out_of_reach_of(
    pair: Watched, frozen: tuple[str, ...]
) -> None:
    """Some leaders lose their connections; those of the others stay, and nothing arrives any more."""
    with traffic(pair.installation, again=True) as commands:

        def cut_off(leading: dict[str, Instance]) -> None:
            for service, instance in leading.items():
                assert instance.proxy is not None
                (instance.proxy.freeze if service in frozen else instance.proxy.cut)()

        before, failed_at = fails(pair, cut_off)
        for instance in before.values():
            until(lambda each=instance: not each.is_ready(), f"{instance.name} says that it is not ready")
        for instance in before.values():
            assert instance.proxy is not None
            instance.proxy.mend()
        until_standing_by(pair, before)
    no_stale_commit(pair, failed_at)
    pair.ids.extend(commands.ids)


def test_a_stream_of_commands_that_was_deleted_and_made_anew_is_read_from_its_start_and_said_aloud(
    pair: Watched,
) -> None:
    with traffic(pair.installation, again=True) as commands:
        until(lambda: min(commands.counts.values(), default=0) > 5, "commands were stored")
    pair.ids.extend(commands.ids)
    # What the stream still held and nobody had read would be lost with it.
    pair.until_ended()
    stored = pair.witness.make_anew(COMMANDS)
    with traffic(pair.installation, again=True) as since:
        until(lambda: min(since.counts.values(), default=0) > 2, "commands are decided")
    assert sum(since.counts.values()) < stored, (
        "the new stream has passed the cursor of the former one, which shows nothing"
    )
    assert "an input stream was made anew" in "".join(each.log for each in pair.installation.pair("scheduler"))
    pair.ids.extend(since.ids)
