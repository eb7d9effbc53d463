"""A slice from the middle of a log bears what stood before it, also anonymised: so it can be folded, and replayed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from folding import CODEC, Commits, read_history
from log_servers import HISTORY, SPEC, Server, raw_commits
from shapes import shape

from taskyard.api.past.state import PastState, end_of
from taskyard.cli.app import main
from taskyard.contracts.events import AttemptSucceeded, TaskSubmitted
from taskyard.contracts.lifecycle import TaskRecord
from taskyard.contracts.subjects import log_subject
from taskyard.eventlog.anonymising import KEY_BYTES, Anonymiser
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.copying import LogCopy
from taskyard.eventlog.log import StreamMessage
from taskyard.replay.reading import read_slice

HISTORIES = sorted(HISTORY.parent.glob("*.taskyard.jsonl"))
RECORDED = HISTORY.parents[3] / "replay" / "recorded.taskyard.jsonl"
MIDDLE = 140
KEY = bytes(range(KEY_BYTES))
CUT_EVERY = 3
NAMES = ("admin", "worker-1", "worker-2", "limited", "looks right", "maintenance", "team", "/srv", "TASKYARD_ATT")


def folded(commits: Commits, state: PastState | None = None) -> PastState:
    state = state or PastState()
    for stored in commits:
        state.fold(stored, end_of(stored.sequence))
    return state


def plain(state: PastState) -> Any:
    return msgspec.json.decode(state.save())


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name.partition(".")[0])
def test_the_rest_of_a_history_means_the_same_behind_an_anonymised_state(history: Path) -> None:
    original, data = read_history(history), raw_commits(history)
    for cut in range(1, len(original), CUT_EVERY):
        before = folded(original[:cut]).save()
        anonymiser = Anonymiser(KEY)
        hidden_before = anonymiser.state(before)
        assert not [name for name in NAMES if name.encode() in hidden_before]
        state, hidden_state = PastState.restored(before), PastState.restored(hidden_before)
        assert numbers(plain(hidden_state)) == numbers(plain(state))
        rest = original[cut:]
        hidden = [
            StoredCommit(sequence=stored.sequence, at=stored.at, commit=CODEC.decode(anonymiser.commit(each)), hash="")
            for stored, each in zip(rest, data[cut:], strict=True)
        ]
        assert shape(hidden, hidden_state.tasks) == shape(rest, state.tasks)
        end, hidden_end = folded(rest, PastState.restored(before)), folded(hidden, PastState.restored(hidden_before))
        assert numbers(plain(hidden_end)) == numbers(plain(end))
        assert [t.phase for t in hidden_end.tasks.live.values()] == [t.phase for t in end.tasks.live.values()]


def numbers(value: Any) -> Any:
    """A JSON value without its texts, and without what a task gave back: what is left is nobody's name, and must stay."""
    match value:
        case dict():
            return [numbers(each) for key, each in value.items() if key != "result"]
        case list():
            return [numbers(each) for each in value]
        case str():
            return "text"
        case _:
            return value


def test_what_a_state_says_and_is_not_known_to_be_harmless_is_replaced() -> None:
    held = {"by": "acme", "reason": "acme moves", "at": 7}
    task = {
        "id": "0199f3c2-0000-7000-8000-000000000001", "submitted_by": "acme", "queue": "acme", "worker": "acme",
        "input": {"argv": ["acme"]}, "result": {"out": "acme"}, "labels": {"acme": "acme"}, "traceparent": "00-acme",
        "stop_error": {"code": "cancelled", "message": "acme"}, "error": {"code": "acme!", "message": "acme"},
        "phase": "running", "attempt": 3, "something_new": ["acme"],
    }  # fmt: skip
    state = {
        "reached": 5, "hash": "acme", "tasks": [task], "queues": [{"pool": "acme", "name": "acme", "locked": held}],
        "pools": [{"name": "acme", "paused": held}], "workers": [{"name": "acme", "reason": "acme"}], "new": "acme",
        "newer": ["acme", {"name": "acme"}],
    }  # fmt: skip
    hidden = Anonymiser(KEY).state(msgspec.json.encode(state))
    assert b"acme" not in hidden
    told = msgspec.json.decode(hidden)
    [found], [queue], [pool], [worker] = told["tasks"], told["queues"], told["pools"], told["workers"]
    assert (found["id"], found["phase"], found["attempt"]) == (task["id"], "running", 3)
    assert found["stop_error"]["code"] == "cancelled" and "traceparent" not in found
    # One name for one thing, wherever it stands: in the state and in the commits behind it.
    assert found["queue"] == queue["name"] and pool["name"] == queue["pool"] and worker["name"] == found["worker"]
    assert found["submitted_by"] == pool["paused"]["by"] and pool["paused"]["at"] == 7
    commit = {"writer": "scheduler", "events": [{"type": "QueuePaused", "by": "acme", "pool": "acme", "queue": "acme"}]}
    [event] = msgspec.json.decode(Anonymiser(KEY).commit(msgspec.json.encode(commit)))["events"]
    assert (event["by"], event["pool"], event["queue"]) == (found["submitted_by"], pool["name"], queue["name"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The settings that reach a log of a real system, with its times."""
    folder = tmp_path_factory.mktemp("middle")
    server = Server(folder / "nats")
    server.nats.start()

    async def fill() -> None:
        recorded = zip(read_history(RECORDED), raw_commits(RECORDED), strict=True)
        async with server.connected() as nc:
            copy = LogCopy(nc, SPEC)
            await copy.prepare(1)
            await copy.store(
                [
                    StreamMessage(sequence=c.sequence, at=c.at, subject=log_subject("0", c.commit.writer), data=data)
                    for c, data in recorded
                ]
            )

    asyncio.run(fill())
    yield server.settings_file(folder)
    server.nats.stop()


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main((*arguments, "--json"))
    assert not ended.value.code
    return json.loads(capfd.readouterr().out)


def test_an_anonymised_slice_from_the_middle_of_a_log_is_replayed_as_the_log_is(
    settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "middle.taskyard.jsonl")
    config = ("--config", str(settings))
    told = run(capfd, "log", "export", f"{MIDDLE}..", file, "--anonymise", *config)
    assert told["from"] == MIDDLE and told["knows_before"] and told["anonymised"]
    assert run(capfd, "log", "verify", file)["ok"]
    state, commits, _ = read_slice(Path(file))
    # The cut is a hard one: tasks that ran, and whose end alone stands in the slice, are known.
    ended = [e.task for c in commits for e in c.commit.events if isinstance(e, AttemptSucceeded)]
    submitted = {e.task for c in commits for e in c.commit.events if isinstance(e, TaskSubmitted)}
    carried: list[TaskRecord] = [state.tasks.live[id] for id in ended if id not in submitted]
    assert carried and all(record.worker in state.workers for record in carried if record.holds_slot)
    sliced, live = run(capfd, "replay", file), run(capfd, "replay", f"{MIDDLE}..", *config)
    for which in ("recorded", "replayed"):
        assert nameless(sliced[which]) == nameless(live[which])
    assert sliced["recorded"]["tasks"] > 5 and sliced["recorded"]["slots"] and sliced["recorded"]["use"] > 0
    assert sliced["notes"] == live["notes"] and sliced["estimated"] == live["estimated"]


def nameless(measures: dict[str, Any]) -> Any:
    """Measures without names of workers and queues."""
    queues = sorted(measures["waiting_by_queue"].values(), key=str)
    slots = sorted(([v for v in use.values() if not isinstance(v, str)] for use in measures["slots"]), key=str)
    return {**measures, "waiting_by_queue": queues, "slots": slots}
