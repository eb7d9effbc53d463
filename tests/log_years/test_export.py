"""Exported slices: byte for byte the log, or anonymised: the same happenings of the same shape, and nobody's names."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from folding import CODEC, Commits, machines, read_history, rows
from log_servers import COMMITS, HISTORY, Server, append, make_log, raw_commits
from shapes import shape, structure

from taskyard.cli.app import main
from taskyard.cli.errors import WrongUsage
from taskyard.cli.export import parse_range
from taskyard.cli.log_files import verify_slice
from taskyard.eventlog.anonymising import KEY_BYTES, Anonymiser
from taskyard.eventlog.commit import StoredCommit
from taskyard.eventlog.errors import CommitUnreadable
from taskyard.eventlog.slices import SliceReader

HISTORIES = sorted(HISTORY.parent.glob("*.taskyard.jsonl"))
DEEP = {"acme": [1, 2.5, True, None, "acme"]}
KEY = bytes(range(KEY_BYTES))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with a log, and the settings by which it is reached."""
    folder = tmp_path_factory.mktemp("export")
    server = Server(folder / "nats")
    server.nats.start()

    async def fill() -> None:
        async with server.connected() as nc:
            await make_log(nc)

    asyncio.run(fill())
    yield server, server.settings_file(folder)
    server.nats.stop()


@pytest.fixture
def run(logged: tuple[Server, Path], capfd: pytest.CaptureFixture[str]) -> Run:
    def run_it(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(("log", *arguments))
        shown = capfd.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run_it


def test_an_exported_log_has_the_bytes_and_the_times_of_the_log(
    run: Run, logged: tuple[Server, Path], tmp_path: Path
) -> None:
    file = tmp_path / "all.taskyard.jsonl"
    status, out, _ = run("export", "..", str(file), "--config", str(logged[1]))
    assert status == 0 and f"wrote commits 1 to {COMMITS}" in out
    assert raw_commits(file) == raw_commits()
    assert run("verify", str(file))[:2] == run("verify", "--config", str(logged[1]))[:2]


@pytest.mark.parametrize(
    ("range_", "whole"),
    [
        ("5..9", (5, 9)),
        ("..3", (1, 3)),
        ("50..", (50, COMMITS)),
        ("7.2..8.0", (7, 8)),
        ("58..9999", (58, COMMITS)),
        ("4..4", (4, 4)),
    ],
)
def test_a_range_of_the_log_is_exported(
    run: Run, logged: tuple[Server, Path], tmp_path: Path, range_: str, whole: tuple[int, int]
) -> None:
    first, last = whole
    file = tmp_path / "some.taskyard.jsonl"
    status, out, _ = run("export", range_, str(file), "--config", str(logged[1]), "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["from"], told["to"], told["bytes"]) == (first, last, file.stat().st_size)
    with file.open("rb") as opened:
        assert [line.sequence for line in SliceReader(opened).lines()] == list(range(first, last + 1))
    found = verify_slice(file, lambda _sequence, _last: None)
    assert (found.found, found.first, found.last) == (0, first, last)


@pytest.mark.parametrize("range_", ["5", "9..5", "x..2", "1..2.x", "9999.."])
def test_what_is_no_range_is_refused_and_leaves_no_file(
    run: Run, logged: tuple[Server, Path], tmp_path: Path, range_: str
) -> None:
    status, _, err = run("export", range_, str(tmp_path / "none"), "--config", str(logged[1]))
    assert status == 2 and "taskyard: " in err
    assert list(tmp_path.iterdir()) == []


def test_a_slice_goes_to_standard_output(run: Run, logged: tuple[Server, Path]) -> None:
    status, out, err = run("export", "1..2", "-", "--config", str(logged[1]))
    assert status == 0 and len(out.splitlines()) == 3 and "wrote commits 1 to 2" in err


def test_positions_and_sequences_make_a_range() -> None:
    assert parse_range("1.0..500.3") == (1, 500)
    assert parse_range("..") == (1, None)
    assert parse_range("0..2") == (1, 2)
    with pytest.raises(WrongUsage, match="is no range"):
        parse_range("12")


def test_an_altered_slice_does_not_verify(run: Run, logged: tuple[Server, Path], tmp_path: Path) -> None:
    file = tmp_path / "altered.taskyard.jsonl"
    run("export", "..", str(file), "--config", str(logged[1]))
    file.write_bytes(file.read_bytes().replace(b'"by":"admin"', b'"by":"other"', 1))
    status, out, _ = run("verify", str(file))
    said = " ".join(out.split())  # whatever the width of the terminal
    assert status == 1 and "names" in said and "altered, lost, or put in by somebody else" in said
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:20]))
    status, _, err = run("verify", str(file))
    assert status == 1 and "ends before commit" in err


# -- anonymised --------------------------------------------------------------------------------------------------------


def anonymised(history: Path) -> tuple[Commits, Commits]:
    """A history and its anonymised form."""
    original = read_history(history)
    anonymiser = Anonymiser(KEY)
    data = map(anonymiser.commit, raw_commits(history))
    return original, [
        StoredCommit(sequence=stored.sequence, at=stored.at, commit=CODEC.decode(each), hash=stored.hash)
        for stored, each in zip(original, data, strict=True)
    ]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name.partition(".")[0])
def test_an_anonymised_history_folds_to_the_same_shape(history: Path) -> None:
    original, hidden = anonymised(history)
    assert shape(hidden) == shape(original)
    for table, found in rows(original).items():
        assert len(rows(hidden)[table]) == len(found), table
    # Every machine's state, names apart, is the same.
    assert structure(machines(hidden)) == structure(machines(original))


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name.partition(".")[0])
def test_an_anonymised_history_is_chained_and_holds_no_name_of_the_original(history: Path, tmp_path: Path) -> None:
    anonymiser = Anonymiser(KEY)
    first, *lines = history.read_bytes().splitlines()
    decoded = [msgspec.json.decode(line) for line in lines]
    hidden = [
        line | {"data": msgspec.Raw(anonymiser.commit(data))}
        for line, data in zip(decoded, raw_commits(history), strict=True)
    ]
    file = tmp_path / "hidden.taskyard.jsonl"
    file.write_bytes(b"\n".join([first, *map(msgspec.json.encode, hidden)]))
    found = verify_slice(file, lambda _sequence, _last: None)
    assert (found.breaks, found.unknown_events) == ([], 0)
    text = file.read_text()
    for name in (
        "admin",
        "worker-1",
        "worker-2",
        "limited",
        "looks right",
        "maintenance",
        "team",
        "/srv",
        "TASKYARD_ATT",
    ):
        assert name not in text
    for commit in map(msgspec.json.decode, raw_commits(history)):
        assert commit["instance"] not in text and (not commit["previous"] or commit["previous"] not in text)


def test_the_same_name_gets_the_same_pseudonym_and_another_key_another_one() -> None:
    _, hidden = anonymised(HISTORY)
    queues = {e.queue for stored in hidden for e in stored.commit.events if hasattr(e, "queue")}
    original = {e.queue for stored in read_history(HISTORY) for e in stored.commit.events if hasattr(e, "queue")}
    assert len(queues) == len(original) > 3
    assert all(re.fullmatch(r"queue-[0-9a-f]{12}", queue) for queue in queues - {"default"})
    other = Anonymiser(bytes(KEY_BYTES))
    assert not any(queue.encode() in other.commit(data) for data in raw_commits() for queue in queues - {"default"})


def test_what_is_not_known_to_be_harmless_is_replaced() -> None:
    commit = {
        "writer": "scheduler", "instance": "host-1", "epoch": 3, "at": 5, "previous": "aa", "cursors": {"S": 1},
        "told": "a secret", "events": [
            {"type": "SomethingNew", "task": "0199f3c2-0000-7000-8000-000000000001", "whose": "acme", "deep": DEEP},
            {
                "type": "TaskSubmitted", "command": "not an id: acme", "traceparent": "00-acme",
                "input": {"argv": ["rm", "/acme"], "acme": -17},
            },
        ],
    }  # fmt: skip
    hidden = msgspec.json.decode(Anonymiser(KEY).commit(msgspec.json.encode(commit)))
    text = json.dumps(hidden)
    assert "acme" not in text and "secret" not in text and "host-1" not in text
    new, submitted = hidden["events"]
    assert (new["type"], new["task"]) == ("SomethingNew", "0199f3c2-0000-7000-8000-000000000001")
    assert structure(new["deep"]) == structure(DEEP)
    assert [len(argument) for argument in submitted["input"]["argv"]] == [2, 5]
    assert submitted["input"]["argv"][1].startswith("/") and "traceparent" not in submitted
    assert (hidden["epoch"], hidden["at"], hidden["cursors"]) == (3, 5, {"S": 1})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"writer":"a"}', b'{"writer":"a","events":5}', b"\xff"])
def test_what_is_no_commit_cannot_be_anonymised(data: bytes) -> None:
    with pytest.raises(CommitUnreadable):
        Anonymiser(KEY).commit(data)


def test_a_log_with_a_hole_of_sense_is_not_exported(logged: tuple[Server, Path], run: Run, tmp_path: Path) -> None:
    """Kept last: it breaks the log."""

    async def spoil() -> None:
        async with logged[0].connected() as nc:
            await nc.jetstream().publish("taskyard.log.0.scheduler", b"no commit")
            await append(nc, HISTORY, first=COMMITS)

    asyncio.run(spoil())
    status, _, err = run("export", "..", str(tmp_path / "all"), "--config", str(logged[1]))
    assert status == 1 and f"commit {COMMITS + 1} is missing or no commit" in err
    assert list(tmp_path.iterdir()) == []
