"""Requests outlast an election: what servers cannot do now is asked again, what they refuse is not."""

from collections.abc import Callable
from typing import Any

import pytest

from taskyard.contracts.subjects import StreamSpec
from taskyard.eventlog import answers, copying
from taskyard.eventlog.answers import find_stream, state_of, until_answered
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.errors import ApiRefused, CopyRefused, LogUnavailable, StreamMissing, Unanswered
from taskyard.eventlog.jetstream_api import STREAM_NOT_FOUND, StreamInfo, StreamState

pytestmark = pytest.mark.anyio

NO_LEADER = ApiRefused(subject="s", code=503, error_code=10008, description="JetStream system temporarily unavailable")
MISSING = ApiRefused(subject="s", code=404, error_code=STREAM_NOT_FOUND, description="stream not found")
NO_PEERS = ApiRefused(subject="s", code=400, error_code=10005, description="no suitable peers for placement")
SILENCE = Unanswered("no answer")
NOBODY: Any = None


def info(last: int) -> StreamInfo:
    return StreamInfo(config={}, state=StreamState(messages=last, first_seq=1, last_seq=last))


def one_by_one(*outcomes: object) -> Callable[..., Any]:
    """Gives these outcomes, the errors among them by raising, and the last one again and again."""
    left = list(outcomes)

    async def ask(*_: object, **__: object) -> Any:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return ask


async def test_silence_and_servers_without_a_leader_are_asked_again() -> None:
    assert await until_answered(one_by_one(SILENCE, NO_LEADER, SILENCE, 7)) == 7


async def test_a_refusal_is_an_answer_unless_it_may_pass() -> None:
    with pytest.raises(ApiRefused, match="no suitable peers"):
        await until_answered(one_by_one(NO_PEERS, 7))
    assert await until_answered(one_by_one(NO_PEERS, 7), passing=(10005,)) == 7


@pytest.mark.parametrize("error", [SILENCE, NO_LEADER])
async def test_nobody_is_asked_for_longer_than_the_limit(error: Exception) -> None:
    with pytest.raises(LogUnavailable):
        await until_answered(one_by_one(error), 0.05)


async def test_a_stream_that_is_not_there_is_told_from_one_that_nobody_answers_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "stream_info", one_by_one(NO_LEADER, MISSING))
    assert await find_stream(NOBODY, "LOG") is None
    with pytest.raises(StreamMissing):
        await state_of(NOBODY, "LOG")


async def test_a_new_leader_that_still_applies_what_it_has_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = StreamSpec(name="LOG", account="control", subjects=("log.*",), owner="tests", readers=())
    copy = LogCopy(NOBODY, spec)
    monkeypatch.setattr(LogCopy, "_find", one_by_one(info(3), info(5)))
    assert await copy._end(5) == 5
    monkeypatch.setattr(copying, "BEHIND_SECONDS_MAX", 0.05)
    monkeypatch.setattr(LogCopy, "_find", one_by_one(info(3)))
    with pytest.raises(CopyRefused, match="ends with commit 3, before what was copied already"):
        await copy._end(5)
