"""A window of ids: what is remembered is answered again, what was forgotten is refused, and nothing is both forgotten and
accepted.
"""

import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_story import START, A, joined, submitted, task_id
from scheduler_story import Commands

from taskyard.contracts.commands import ID_AGE_SECONDS_MAX, ID_AHEAD_SECONDS_MAX, Answer
from taskyard.contracts.values import CommandId, Instant, Position, Status, TaskId, make_uuid7, seconds, uuid7_instant
from taskyard.scheduler import id_window, known_tasks
from taskyard.scheduler.id_window import SHARED_SECONDS, Window, id_bytes
from taskyard.scheduler.known import KnownIds, SavedCommands, SavedIds
from taskyard.scheduler.known_tasks import KnownTask, KnownTasks, SavedTasks

DAY = seconds(ID_AGE_SECONDS_MAX)


def later(duration_seconds: float) -> Instant:
    return Instant(START + seconds(duration_seconds))


def remember(known: KnownTasks, task: TaskId, at: Instant = START, number: int = 1) -> None:
    known.remember(task, digest="0123456789abcdef", by="alice", position=Position(number), at=at)


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_window, "IDS_MAX", 2)


@pytest.fixture
def blocks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_tasks, "BLOCK_ROWS", 2)


def test_all_that_is_said_of_a_task_is_remembered() -> None:
    known = KnownTasks()
    remember(known, A)
    known.plan_confirmed(A, 3)
    known.ended(A, Status.CANCELLED, was_discarded=True)

    assert known.get(A) == KnownTask(
        digest="0123456789abcdef",
        by="alice",
        position=Position(1),
        ended=Status.CANCELLED,
        was_discarded=True,
        plan_confirmed=3,
    )
    assert known.get(task_id(9)) is None


@pytest.mark.usefixtures("room_for_two")
def test_a_task_that_is_forgotten_for_want_of_room_is_refused_from_then_on() -> None:
    known = KnownTasks()
    for number in range(3):
        remember(known, task_id(number, later(number)), later(number))

    assert len(known) == 2
    assert known.get(task_id(0, START)) is None
    assert known.window.age_fault(task_id(0, START), "alice", later(3)) is not None
    assert known.window.age_fault(task_id(7, later(0.5)), "alice", later(3)) is None, "a new one of after it is not"


@pytest.mark.usefixtures("room_for_two")
def test_the_earliest_ids_go_first_whenever_they_came() -> None:
    """A client whose clock is ahead must not have its task run twice when later ones push it out."""
    known = KnownTasks()
    ahead = task_id(1, later(ID_AHEAD_SECONDS_MAX))
    remember(known, ahead)
    for number in range(2, 5):
        remember(known, task_id(number, later(number)), later(number))

    assert known.get(ahead) is not None


def test_an_id_is_remembered_for_a_day_of_its_own_time() -> None:
    known = KnownTasks()
    remember(known, A)
    remember(known, task_id(2, later(ID_AGE_SECONDS_MAX)), Instant(START + DAY))
    assert known.get(A) is not None

    remember(known, task_id(3, later(ID_AGE_SECONDS_MAX + 1)), Instant(START + DAY + seconds(1)))

    assert known.get(A) is None
    # Also a command that lay in its stream since before is refused: its task may have run.
    assert known.window.age_fault(A, "alice", START) is not None


@pytest.mark.usefixtures("room_for_two")
def test_a_command_that_is_forgotten_for_want_of_room_is_refused_and_not_decided_again() -> None:
    story = Commands().given()
    pauses = [story.said("pause", {"id": make_uuid7(later(number), number)}, by="root") for number in range(3)]
    for number, pause in enumerate(pauses):
        story.after(1).when(msgspec.structs.replace(pause, at=later(number)))
    story.answers()

    again = msgspec.structs.replace(pauses[0], sequence=99)
    story.when(again)

    assert [(answer.code, answer.errors[0].path) for answer in story.answers()] == [(422, "id")]
    assert [event.status for event in story.chosen] == [422]
    story.when(msgspec.structs.replace(pauses[2], sequence=100)).then_nothing()
    assert story.codes() == [202]


def test_the_outcome_of_a_command_with_an_impossible_id_is_not_kept() -> None:
    """An id of the far future would be the last to be forgotten, and nothing could be told from it."""
    known = KnownIds()
    for id in ("abc", "", "0" * 36, make_uuid7(later(ID_AHEAD_SECONDS_MAX + 1), 1)):
        known.commands.remember_rejected(CommandId(id), Answer(code=422), START, by="alice", asked=None)

    assert len(known.commands) == 0


@pytest.mark.parametrize("task", ["", "x", "00", "not-an-id"])
def test_a_task_with_an_id_that_is_none_is_folded_and_not_remembered(task: str) -> None:
    known = KnownTasks()
    remember(known, TaskId(task))
    known.ended(TaskId(task), Status.FAILED, was_discarded=False)

    assert known.get(TaskId(task)) is None


@pytest.mark.parametrize("digest", ["", "zz", "0123", "0" * 64])
def test_a_digest_of_another_form_is_folded_and_equal_to_none_of_ours(digest: str) -> None:
    known = KnownTasks()
    known.remember(A, digest=digest, by="alice", position=Position(1), at=START)

    found = known.get(A)
    assert found is not None and len(found.digest) == 16 and found.digest != digest


@pytest.mark.usefixtures("blocks_of_two")
def test_a_block_goes_with_its_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownTasks()
    for number in range(5):
        remember(known, task_id(number, later(number)), later(number), number)
    assert len(known.saved().blocks) == 3
    monkeypatch.setattr(id_window, "IDS_MAX", 2)

    remember(known, task_id(5, later(5)), later(5), 5)

    assert len(known.saved().blocks) == 1
    assert [known.get(task_id(number, later(number))) is not None for number in range(6)] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("blocks", [[b"x"], [b"\0" * 41], [b"\0" * 42 * 4097], [b"\1" * 42, b"\2" * 42]])
def test_blocks_that_are_none_are_no_snapshot(blocks: list[bytes]) -> None:
    with pytest.raises(ValueError, match="none of ours"):
        KnownTasks.restored(SavedTasks(blocks=blocks, authors=["a"], horizon=START))


def test_many_ids_of_one_principal_that_are_ahead_make_nobody_elses_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_window, "IDS_MAX", 100)
    known, ahead = KnownTasks(), later(240)
    for number in range(1_000):
        task = task_id(number, Instant(ahead + number * 1_000))
        known.remember(task, digest="0" * 16, by="bob", position=Position(number), at=later(number / 1_000))

    for number in range(50):
        task = task_id(number, later(2 + number / 1_000))
        assert known.window.age_fault(task, "alice", later(2)) is None
        remember(known, task, later(2), number)
    assert all(known.get(task_id(number, later(2 + number / 1_000))) is not None for number in range(50))
    assert len(known) == 100
    assert known.window.age_fault(task_id(0, ahead), "bob", later(2)) is not None, "what was forgotten is refused"
    restored = KnownTasks.restored(known.saved())
    assert restored.window.age_fault(task_id(0, ahead), "bob", later(2)) is not None
    assert restored.window.age_fault(task_id(7, later(2)), "alice", later(2)) is None


def test_what_one_principal_has_forgotten_some_time_ago_is_refused_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_window, "IDS_MAX", 2)
    known = KnownTasks()
    for number in range(3):
        remember(known, task_id(number, later(number)), later(number))

    assert known.window.age_fault(task_id(0, START), "bob", later(SHARED_SECONDS)) is not None


@pytest.mark.usefixtures("room_for_two")
def test_a_live_task_that_was_forgotten_keeps_its_id_whoever_sends_it() -> None:
    story = Commands().given(joined())
    for number in range(3):
        story.given(submitted(task_id(number, later(number)), not_before=later(9_999)))

    story.when(story.said("submit", {"id": task_id(0, START), "kind": "noop", "input": {}}, "bob"))

    assert story.codes() == [409]


def test_a_snapshot_of_an_earlier_version_is_read_and_what_it_forgot_is_refused_to_all() -> None:
    known, answer = KnownIds(), Answer(code=202)
    remember(known.tasks, A)
    old = SavedIds(
        tasks=SavedTasks(blocks=known.tasks.saved().blocks, authors=["alice"], horizon=later(-5)),
        commands=SavedCommands(answers=[(CommandId(A), answer)], horizon=later(-5)),
    )

    restored = KnownIds.restored(msgspec.json.decode(msgspec.json.encode(old), type=SavedIds))

    assert restored.tasks.get(A) is not None
    found = restored.commands.get(CommandId(A))
    assert found is not None and (found.answer, found.asked) == (answer, "")
    for by in ("alice", "bob"):
        assert restored.tasks.window.age_fault(task_id(1, later(-6)), by, START) is not None


def test_an_id_that_is_ahead_says_by_how_much_the_clock_is() -> None:
    story = Commands()

    story.when(story.said("cancel", {"task": A, "id": make_uuid7(later(400), 1)}))

    (answer,) = story.answers()
    assert (answer.code, answer.errors[0].path) == (422, "id")
    assert "your clock is ahead by 400 s" in answer.errors[0].message


@dataclasses.dataclass(frozen=True)
class Arrival:
    """An id of `own` seconds beside the time when it comes, `wait` seconds after the one before."""

    own: int
    wait: int


ARRIVALS = st.lists(
    st.builds(Arrival, own=st.integers(-30, 6), wait=st.integers(0, 8)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(ARRIVALS, st.integers(1, 6), st.integers(1, 4))
def test_no_id_is_both_forgotten_and_accepted(arrivals: list[Arrival], room: int, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_window, "IDS_MAX", room)
        patch.setattr(id_window, "_AGE", seconds(20))
        patch.setattr(id_window, "_AHEAD", seconds(5))
        patch.setattr(known_tasks, "BLOCK_ROWS", rows)
        known, accepted, now = KnownTasks(), list[TaskId](), START
        for number, arrival in enumerate(arrivals):
            now = Instant(now + seconds(arrival.wait))
            task = task_id(number, Instant(now + seconds(arrival.own)))
            if known.window.age_fault(task, "alice", now) is None:
                accepted.append(task)
                remember(known, task, now, number)
            for earlier in accepted:
                # Whenever its command is read again: when it was stored may be long ago.
                assert known.get(earlier) is not None or uuid7_instant(earlier) <= known.window.horizons["alice"]
            assert len(known) <= room
        restored = KnownTasks.restored(known.saved())
        assert restored.saved() == known.saved()
        later_one = task_id(999, Instant(now + seconds(1)))
        for each in (known, restored):
            remember(each, later_one, Instant(now + seconds(1)))
        assert restored.saved() == known.saved()
        assert [restored.get(task) for task in accepted] == [known.get(task) for task in accepted]


def test_ids_are_ordered_as_their_times() -> None:
    window = Window([("alice", id_bytes(task_id(1, later(number)))) for number in (3, 1, 2)])

    assert window.add(id_bytes(task_id(2, later(4))), "bob", Instant(START + DAY + seconds(3))) == [
        id_bytes(task_id(1, later(1))),
        id_bytes(task_id(1, later(2))),
    ]
