"""Golden histories: recorded real logs of every released version, folded by today's code to what they meant then.

They break when the fold's meaning changes, and are then right: logs that were written before mean what they meant. New
fields may appear beside those that are fixed here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from folding import CODEC, meaning, new_machines, read_history

from taskyard.cli.log_files import verify_slice
from taskyard.contracts.events import AnyEvent, LogVersionActivated, UnknownEvent
from taskyard.contracts.lifecycle import Phase
from taskyard.eventlog.commit import Commit

GOLDEN = Path(__file__).parent / "golden"
HISTORIES = sorted(GOLDEN.glob("*/*.taskyard.jsonl"))
IDS = [f"{path.parent.name} {path.name.partition('.')[0]}" for path in HISTORIES]


@pytest.mark.parametrize("history", HISTORIES, ids=IDS)
def test_a_history_means_what_it_meant(history: Path) -> None:
    expected = msgspec.json.decode(
        history.with_name(history.name.replace(".taskyard.jsonl", ".expected.json")).read_bytes()
    )
    assert list(differences(expected, meaning(read_history(history)))) == []


@pytest.mark.parametrize("history", HISTORIES, ids=IDS)
def test_snapshots_of_that_version_are_read_and_mean_the_same(history: Path) -> None:
    """Who takes another form gives its snapshots another version; until then a new program begins from the old ones."""
    kept = msgspec.json.decode(
        history.with_name(history.name.replace(".taskyard.jsonl", ".expected.json")).read_bytes()
    )["machines"]
    for machine in new_machines():
        machine.restore(msgspec.json.encode(kept[machine.writer]))
        assert list(differences(kept[machine.writer], msgspec.json.decode(machine.snapshot()))) == []


@pytest.mark.parametrize("history", HISTORIES, ids=IDS)
def test_a_history_is_whole_and_has_no_event_that_is_unknown(history: Path) -> None:
    found = verify_slice(history, lambda _sequence, _last: None)
    assert (found.breaks, found.unknown_events) == ([], 0)
    assert found.commits >= 20


def test_the_histories_of_this_version_show_every_event_and_every_phase() -> None:
    events: set[str] = set()
    phases: set[str] = set()
    for history in (GOLDEN / "0.1").glob("*.taskyard.jsonl"):
        commits = read_history(history)
        events |= {type(event).__name__ for stored in commits for event in stored.commit.events}
        phases |= {event.rpartition(", ")[2] for task in meaning(commits)["tasks"].values() for event in task["events"]}
    # What no short run shows: an approval that a day passed over, an agent that forgot, and what this version never appends.
    rare = {"ApprovalExpired", "AttemptLost", "TaskProgressed", "WorkerRecovered", LogVersionActivated.__name__}
    rare |= {"SlotCleared", "RefusalsCounted", "PlacingFailed", "PlacingResumed"}  # which are younger
    assert {kind.__name__ for kind in AnyEvent.__args__} - events <= rare
    assert phases == {phase.value for phase in Phase}


@pytest.mark.parametrize("history", HISTORIES, ids=IDS)
def test_a_changed_meaning_shows(history: Path) -> None:
    """The comparison bites: a history in which one event less is folded means something else."""
    commits = read_history(history)
    last = next(i for i in reversed(range(len(commits))) if any(hasattr(e, "task") for e in commits[i].commit.events))
    without = [*commits[:last], *commits[last + 1 :]]
    assert list(differences(meaning(commits), meaning(without)))


@pytest.mark.parametrize("history", HISTORIES, ids=IDS)
def test_stored_bytes_are_made_again_as_they_were(history: Path) -> None:
    """An old commit that is decoded and encoded keeps every field, and every default."""
    for stored in read_history(history):
        again: Commit[AnyEvent | UnknownEvent] = CODEC.decode(CODEC.encode(stored.commit))
        assert again == stored.commit


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where what was found is not what is expected. Fields that are not expected may be there."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name not in found:
                # A stored form may leave out what is empty, or begin to write it.
                if value not in (None, "", 0, False, [], {}):
                    yield f"{where}.{name} is missing"
            else:
                yield from differences(value, found[name], f"{where}.{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif expected != found:
        yield f"{where}: {found!r:.200} instead of {expected!r:.200}"
