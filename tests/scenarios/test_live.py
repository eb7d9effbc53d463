"""Reading while it happens: output that is followed, events that are streamed and resumed."""

import time
from collections.abc import Iterator

import httpx
from system import System

Event = tuple[str, str]
"""Its id, which is the position, and its type."""


def streamed(answer: httpx.Response) -> Iterator[Event]:
    """The events of a stream of server-sent events; comments that keep it alive are left out."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        else:
            if "event" in fields:
                yield fields["id"], fields["event"]
            fields = {}


def until_end(answer: httpx.Response) -> list[Event]:
    """The events up to the successful end of a task."""
    seen: list[Event] = []
    for event in streamed(answer):
        seen.append(event)
        if event[1] == "AttemptSucceeded":
            return seen
    raise AssertionError(f"the stream ended after {seen}")


def test_output_is_followed_while_the_task_runs(system: System) -> None:
    gate = system.gate("followed")
    id = system.command(f"echo one; {gate.wait}; echo two; echo three >&2")
    system.wait(id, "running")
    seen = ""
    with system.http.stream("GET", f"/tasks/{id}/output", params={"follow": 1}) as answer:
        for text in answer.iter_text():
            seen += text
            if seen == "one\n":
                assert system.task(id)["status"] == "running"
                gate.open()
    assert sorted(seen.split()) == ["one", "three", "two"]
    system.wait(id, "completed")
    assert system.output(id, stream="stdout") == "one\ntwo\n"
    assert system.output(id, stream="stderr") == "three\n"
    assert system.output(id, **{"stream": "stdout", "from": 4}) == "two\n"


def test_following_goes_on_over_a_retry_and_ends_with_the_task(system: System) -> None:
    id = system.command('echo "$TASKYARD_ATTEMPT"; test "$TASKYARD_ATTEMPT" = 2', max_attempts=2)
    system.wait(id, "pending", "running")
    with system.http.stream("GET", f"/tasks/{id}/output", params={"follow": 1}) as answer:
        assert "".join(answer.iter_text()) == "1\n2\n"
    assert system.task(id)["status"] == "completed"


def test_the_output_of_terraform_is_kept_for_each_attempt(system: System) -> None:
    id = system.terraform("plan_and_apply", system.configuration("shown"), "shown", auto_confirm=True)
    system.wait(id, "completed")
    assert "Plan: 1 to add" in system.output(id, attempt=1)
    assert "Apply complete! Resources: 1 added" in system.output(id)


def test_the_events_of_a_task_are_streamed_in_the_order_of_the_log_and_resumed(system: System) -> None:
    gate = system.gate("streamed")
    submitted = system.http.post("/tasks", json={"kind": "command", "input": {"script": gate.wait}}).json()
    id = submitted["id"]
    seen: list[Event] = []
    from_the_beginning = {"Last-Event-ID": submitted["position"]}
    with system.http.stream("GET", "/events", params={"task": id}, headers=from_the_beginning) as answer:
        events = streamed(answer)
        while not seen or seen[-1][1] != "TaskStarted":
            seen.append(next(events))
        gate.open()  # what follows is live
        seen.append(next(events))
    system.wait(id, "completed")
    history = [(item["position"], item["type"]) for item in system.history(id)]
    assert history[0] == (submitted["position"], "TaskSubmitted")
    assert seen == history[1:]
    middle = next(position for position, type in seen if type == "SlotAssigned")
    with system.http.stream("GET", "/events", params={"task": id}, headers={"Last-Event-ID": middle}) as answer:
        assert until_end(answer) == history[[position for position, _ in history].index(middle) + 1 :]


def test_events_are_filtered_by_queue_and_type(system: System) -> None:
    first = system.http.post("/tasks", json={"kind": "noop", "input": {}, "queue": "filtered"}).json()
    system.wait(first["id"], "completed")
    system.wait(system.submit("noop", input={}), "completed")
    second = system.submit("noop", input={}, queue="filtered")
    system.wait(second, "completed")
    wanted = {"queue": "filtered", "type": "TaskSubmitted,AttemptSucceeded"}
    expected = [
        (item["position"], item["type"])
        for id in (first["id"], second)
        for item in system.history(id)
        if item["type"] in wanted["type"].split(",")
    ][1:]
    with system.http.stream("GET", "/events", params=wanted, headers={"Last-Event-ID": first["position"]}) as answer:
        events = streamed(answer)
        assert [next(events) for _ in expected] == expected


def test_an_event_reaches_a_reader_soon(system: System) -> None:
    with system.http.stream("GET", "/events", params={"type": "TaskSubmitted"}) as answer:
        begun = time.monotonic()
        submitted = system.http.post("/tasks", json={"kind": "noop", "input": {}}).json()
        assert next(streamed(answer))[0] == submitted["position"]
        assert time.monotonic() - begun < 5
    system.wait(submitted["id"], "completed")
