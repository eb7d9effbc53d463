"""Looking back at a real system: what stood at a moment, why it waited, what if, and a slice that others may have."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats_doors import command
from system import System

from taskyard.cli.app import main
from taskyard.replay.reading import read_slice
from taskyard.replay.running import WhatIf, replay

QUEUE = "looking/back"
SECRET = "only-we-know-this"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What happened: two changes of one workspace, of which the second one had to wait for the first."""

    first: str
    second: str
    submitted: str
    planned: str
    confirmed: str
    ended: str

    @property
    def before_confirm(self) -> str:
        """The position just before the confirmation."""
        sequence, _, index = self.confirmed.partition(".")
        return f"{sequence}.{int(index) - 1}" if int(index) else str(int(sequence) - 1)


Cli = Callable[..., Any]


@pytest.fixture
def cli(system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line: with `--json` the values that it writes, otherwise its text."""
    monkeypatch.setenv("TASKYARD_CONNECTION", str(system.data / "connection.json"))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, status: int = 0) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        assert int(ended.value.code or 0) == status, shown.err
        if status:
            return shown.err
        return [json.loads(line) for line in shown.out.splitlines()] if "--json" in arguments else shown.out

    return run


def happen(system: System, cli: Cli) -> Told:
    """Let it happen; on the way, what is said while the second one waits."""
    directory = system.configuration("looking-back")
    first = system.terraform("plan_and_apply", directory, QUEUE, labels={"secret": SECRET})
    system.wait(first, "apply_pending")
    second = system.terraform("plan_and_apply", directory, QUEUE)
    system.waits(second, "workspace_busy")
    [why] = cli("why", second, "--json")
    assert (why["blocker"]["id"], why["blocker"]["status"]) == (first, "apply_pending")
    assert f"taskyard confirm {first}" in cli("why", second), "what to do about it is said of the blocker"
    command(system, "configure-pool", approval_timeout_seconds=7200)
    assert system.act(first, "confirm", comment="looks right").status_code == 202
    system.wait(first, "completed")
    system.wait(second, "apply_pending")
    command(system, "configure-pool", approval_timeout_seconds=86_400)
    assert system.act(second, "discard").status_code == 202
    system.wait(second, "cancelled")
    events = {id: {item["type"]: item["position"] for item in system.history(id)} for id in (first, second)}
    return Told(
        first=first,
        second=second,
        submitted=events[first]["TaskSubmitted"],
        planned=events[first]["TaskPlanned"],
        confirmed=events[first]["ApplyConfirmed"],
        ended=events[second]["ApplyDiscarded"],
    )


def test_what_happened_is_told_as_it_was_explained_replayed_and_given_away(
    system: System, cli: Cli, tmp_path: Path
) -> None:
    told = happen(system, cli)
    _is_shown_as_it_was(told, cli)
    _is_listed_as_it_was(told, system, cli)
    _is_explained(told, cli)
    _is_replayed(told, cli)
    _is_given_away(told, cli, tmp_path)


def _is_shown_as_it_was(told: Told, cli: Cli) -> None:
    def status(at: str, id: str = told.first) -> tuple[str, str | None]:
        [task] = cli("show", id, "--at", at, "--json")
        return task["status"], (task["pending_reason"] or {}).get("blocker")

    assert status(told.before_confirm) == ("apply_pending", None)
    assert status(told.confirmed)[0] == "apply_pending"  # and waits to be scheduled
    assert status(told.ended)[0] == "completed"
    assert status(told.before_confirm, told.second) == ("pending", told.first)
    assert status(told.ended, told.second)[0] == "cancelled"
    assert "submitted later" in cli("show", told.second, "--at", told.planned, status=3)
    shown = cli("show", told.first, "--at", told.before_confirm)
    assert shown.startswith("as of ") and "apply_pending" in shown and "the plan waits" in shown


def _is_listed_as_it_was(told: Told, system: System, cli: Cli) -> None:
    tasks = cli("tasks", "--queue", QUEUE, "--at", told.before_confirm, "--json")
    assert [(task["id"], task["status"]) for task in tasks] == [
        (told.second, "pending"),
        (told.first, "apply_pending"),
    ]
    of_now = cli("tasks", "--queue", QUEUE, "--json")
    assert [task["status"] for task in of_now] == ["cancelled", "completed"]
    at_the_end = cli("tasks", "--queue", QUEUE, "--at", told.ended, "--json")
    assert [{**task, "as_of": None} for task in at_the_end] == [{**task, "as_of": None} for task in of_now]
    [worker] = cli("workers", "--at", told.before_confirm, "--json")
    slot = worker["slots"][0]
    assert (slot["status"], slot["task"]) == ("reserved", told.first)

    def queue(at: str) -> tuple[int, int]:
        [found] = [each for each in cli("queues", "--at", at, "--json") if each["queue"] == QUEUE]
        return found["depth"], found["running"]

    assert [queue(at) for at in (told.submitted, told.before_confirm, told.ended)] == [(1, 0), (1, 1), (0, 0)]

    def approval(at: str) -> float:
        [pool] = [each for each in cli("pools", "--at", at, "--json") if each["pool"] == "default"]
        return pool["approval_timeout_seconds"]

    assert approval(told.before_confirm) == 7200 and approval(told.ended) == 86_400

    by_position = system.http.get("/tasks", params={"at": told.before_confirm, "queue": QUEUE, "limit": 1}).json()
    moment = by_position["as_of"]["at"].replace("Z", "999+00:00")
    by_time = system.http.get(f"/tasks/{told.first}", params={"at": moment}).json()
    assert (by_time["status"], by_time["as_of"]) == ("apply_pending", by_position["as_of"])
    following = {"at": told.before_confirm, "queue": QUEUE, "limit": 1, "cursor": by_position["next_cursor"]}
    [item] = system.http.get("/tasks", params=following).json()["items"]
    assert item["id"] == told.first
    for path in ("tasks", "pools", "queues", "workers", f"tasks/{told.first}"):
        refused = system.http.get(f"/{path}", params={"at": "2999-01-01T00:00:00Z"})
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "at"), path


def _is_explained(told: Told, cli: Cli) -> None:
    [why] = cli("why", told.second, "--json")
    busy = [wait for wait in why["waits"] if wait["code"] == "workspace_busy"]
    assert [wait["blocker"] for wait in busy] == [told.first] and busy[0]["until"] is not None
    assert why["complete"] and "discarded" in why["summary"]
    text = cli("why", told.second)
    assert f"for workspace {QUEUE}, held by {told.first}" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    [of_first] = cli("why", told.first, "--json")
    types = [line["type"] for line in of_first["decisions"]]
    assert types.index("TaskPlanned") < types.index("waited") < types.index("ApplyConfirmed")


def _is_replayed(told: Told, cli: Cli) -> None:
    stretch = f"{told.submitted}..{told.ended}"
    [report] = cli("replay", stretch, "--policy", "keep-slot-0", "--slots", "any,plan", "--json")
    assert report["what_if"]["policy"] == "keep-slot-0"
    for measures in (report["recorded"], report["replayed"]):
        assert measures["by_status"] == {"completed": 1, "cancelled": 1}
        assert list(measures["waiting_by_queue"]) == [f"default/{QUEUE}"]
    assert (report["order"]["compared"], report["order"]["moved"]) == (2, 0), "one after the other, with any slots"
    assert max(map(len, cli("replay", stretch).splitlines())) <= 80


def _is_given_away(told: Told, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "case.taskyard.jsonl"
    cli("log", "export", f"{told.submitted}..{told.ended}", "--anonymise", str(file))
    text = file.read_text()
    for name in (QUEUE, "looking-back", SECRET, "looks right"):
        assert name not in text
    # A pseudonym keeps "worker-" and goes on in hex digits, which may well begin with 1.
    assert not re.search(r"worker-1(?![0-9a-f])", text)
    [found] = cli("log", "verify", str(file), "--json")
    assert found["ok"]
    before, commits, header = read_slice(file)
    assert header.anonymised
    report = replay(before, commits, WhatIf(workers=1, slots=(("any",), ("plan",))))
    assert report.replayed.by_status == report.recorded.by_status == {"completed": 1, "cancelled": 1}
