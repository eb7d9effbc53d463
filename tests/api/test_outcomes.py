"""Waiting for verdicts while the service stops: who waits hears in time that the command is stored."""

import asyncio

import pytest

from taskyard.api.outcomes import Outcomes

COMMAND = "01a3185c-52dd-7ce5-85c6-5b2fc1658618"
SECONDS_MAX = 5.0

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("is_stored_before", [True, False])
async def test_a_service_that_stops_does_not_wait_out_the_time_for_a_verdict(*, is_stored_before: bool) -> None:
    outcomes = Outcomes(answer_seconds=600)
    outcome = outcomes.expect(COMMAND)
    if is_stored_before:
        outcomes.stored(COMMAND, outcome, 7)
    outcomes.hurry(0.01)
    if not is_stored_before:
        outcomes.stored(COMMAND, outcome, 7)
    async with asyncio.timeout(SECONDS_MAX):
        assert await outcome is None
    assert len(outcomes) == 0


async def test_a_verdict_that_comes_before_that_is_given() -> None:
    outcomes = Outcomes(answer_seconds=600)
    outcome = outcomes.expect(COMMAND)
    outcomes.stored(COMMAND, outcome, 7)
    outcomes.hurry(600)
    outcomes.deliver(b'{"outcomes":[{"command":"%s","sequence":7,"answers":[]}]}' % COMMAND.encode())
    async with asyncio.timeout(SECONDS_MAX):
        assert await outcome == ()
