"""Submitting and reading tasks, sentence by sentence as it is promised."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from forms import fits, is_history, is_id, is_position, is_problem, is_task
from system import System

NOOP = {"kind": "noop", "input": {}}
KIBI = 1 << 10
CLIENTS = 60


def fresh_id(seconds_ahead: float = 0) -> str:
    """A UUIDv7 of another time, as a client may make it."""
    digits = f"{int((time.time() + seconds_ahead) * 1000):012x}7{os.urandom(2).hex()[:3]}8{os.urandom(8).hex()[:15]}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def listed(yard: System, **parameters: Any) -> list[dict[str, Any]]:
    """The tasks that fit, by one page; each has the form of a task."""
    answer = yard.http.get("/tasks", params={"limit": 500, **parameters})
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    for item in items:
        is_task(item)
    return items


def test_a_task_has_its_form_in_every_status(yard: System) -> None:
    gate = yard.gate("forms")
    labels = {"tëam": "nétz 😀", "a:b": "c,d:e"}
    running = yard.command(gate.wait, labels=labels, priority=1)
    task = yard.wait(running, "running")
    is_task(task)
    assert (task["labels"], task["worker"], task["slot"], task["attempt"]) == (labels, "worker-1", 0, 1)
    first = yard.terraform("plan_and_apply", yard.configuration("forms"), "forms")
    second = yard.terraform("plan_and_apply", yard.folder / "terraform/forms", "forms")
    waits = yard.waits(first, "no_free_slot")
    is_task(waits)
    gate.open()
    planned = yard.wait(first, "apply_pending")
    is_task(planned)
    assert planned["result"]["changes"] == {"add": 1, "change": 0, "destroy": 0}
    busy = yard.waits(second, "workspace_busy")
    is_task(busy)
    assert busy["pending_reason"]["blocker"] == first
    assert busy["pending_reason"]["queue_position"] == 1
    assert yard.act(second, "cancel").status_code == 202
    assert yard.act(first, "discard", comment="no").status_code == 202
    assert yard.wait(first, "cancelled")["error"]["code"] == "discarded"
    failed = yard.wait(yard.command("echo why >&2; exit 3"), "failed")
    assert (failed["error"]["code"], failed["result"]["exit_code"]) == ("exit_status", 3)
    late = yard.wait(yard.command("sleep 60", timeout_seconds=0.2), "timeout")
    applied = yard.wait(
        yard.terraform("plan_and_apply", yard.folder / "terraform/forms", "forms", auto_confirm=True), "completed"
    )
    assert applied["result"]["exit_code"] == 0
    assert "outputs" in applied["result"]
    for id in (running, first, second, failed["id"], late["id"], applied["id"]):
        is_task(yard.ended(id))
        is_history(yard.history(id))
    assert yard.types(applied["id"]).count("TaskStarted") == 2  # each attempt that starts shows one


def test_ids_are_taken_by_their_age(yard: System) -> None:
    for seconds, status in ((-23.9 * 3600, 202), (-24 * 3600 - 60, 422), (4.5 * 60, 202), (6 * 60, 422)):
        answer = yard.http.post("/tasks", json={**NOOP, "id": fresh_id(seconds)})
        assert answer.status_code == status, (seconds, answer.text)
        if status == 422:
            is_problem(answer, 422, "id")
    refused = is_problem(yard.http.post("/tasks", json={**NOOP, "id": "no-uuid"}), 422, "id")
    assert "UUIDv7" in refused["detail"]


def test_a_task_that_bears_no_id_gets_one(yard: System) -> None:
    made = yard.http.post("/tasks", json=NOOP).json()
    assert made.keys() == {"id", "position"}
    assert is_id(made["id"])
    assert is_position(made["position"])


def test_many_who_send_the_same_at_once_get_one_task_and_one_answer(yard: System) -> None:
    witness = yard.folder / "crowd"
    task = {"id": fresh_id(), "kind": "command", "input": {"script": f"echo ran >> {witness}"}}

    def send(number: int) -> tuple[int, str]:
        body = task if number % 2 else {**task, "labels": {"another": "content"}}
        answer = yard.http.post("/tasks", json=body)
        return answer.status_code, answer.json().get("position", "")

    with ThreadPoolExecutor(16) as senders:
        answers = list(senders.map(send, range(CLIENTS)))
    yard.wait(task["id"], "completed")
    # Whichever came first holds; all others of its kind are answered the same, and the rest is refused.
    assert sorted(status for status, _ in answers) == [202] * (CLIENTS // 2) + [409] * (CLIENTS // 2)
    assert len({position for status, position in answers if status == 202}) == 1
    assert witness.read_text() == "ran\n"


def test_a_batch_may_name_a_task_twice(yard: System) -> None:
    id = fresh_id()
    same = {**NOOP, "id": id}
    answer = yard.http.post("/tasks", json={"tasks": [same, same, {**same, "priority": 1}, {**same, "id": "x"}]})
    assert answer.status_code == 202
    first, again, other, wrong = answer.json()["tasks"]
    assert first == again == {"id": id, "position": first["position"]}
    assert (other["id"], other["error"]["status"]) == (id, 409)
    assert wrong["error"]["status"] == 422
    assert [error["path"] for error in wrong["error"]["errors"]] == ["id"]
    yard.wait(id, "completed")


def test_a_large_body_is_split_and_each_task_is_accepted(yard: System) -> None:
    tasks = [{**NOOP, "pool": "nobody", "labels": {"n": str(number), "text": "é" * 80}} for number in range(2_400)]
    tasks[7] = {**tasks[7], "kind": "nothing"}
    body = json.dumps({"tasks": tasks}, ensure_ascii=False).encode()
    assert 512 * KIBI < len(body) < 1024 * KIBI
    answer = yard.http.post("/tasks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202
    entries = answer.json()["tasks"]
    assert len(entries) == len(tasks)
    assert [number for number, entry in enumerate(entries) if "error" in entry] == [7]
    accepted = [entry for entry in entries if "error" not in entry]
    assert len({entry["id"] for entry in accepted}) == len(tasks) - 1
    assert all(is_position(entry["position"]) for entry in accepted)
    seen = yard.http.get(f"/tasks/{entries[-1]['id']}", params={"after": answer.headers["taskyard-position"]}).json()
    assert seen["labels"]["n"] == str(len(tasks) - 1)


def test_a_body_may_be_a_mebibyte_and_no_more(yard: System) -> None:
    exact = json.dumps({"tasks": [{**NOOP, "pool": "nobody", "queue": "mebibyte"}]}).encode()
    padded = exact + b" " * ((1 << 20) - len(exact))
    assert yard.http.post("/tasks", content=padded).status_code == 202
    is_problem(yard.http.post("/tasks", content=padded + b" "), 413)


def test_the_input_of_a_noop_may_be_a_kibibyte(yard: System) -> None:
    assert yard.http.post("/tasks", json={**NOOP, "input": "x" * (KIBI - 2)}).status_code == 202
    is_problem(yard.http.post("/tasks", json={**NOOP, "input": "x" * (KIBI - 1)}), 422, "input")


def test_a_pool_that_is_full_says_when_to_come_again(yard: System) -> None:
    pool = {"pool": "full"}
    assert yard.http.post("/pools/full/configure", json={"max_waiting": 2}).status_code == 202
    waiting = [yard.submit("noop", input={}, **pool) for _ in range(2)]
    answer = yard.http.post("/tasks", json={**NOOP, **pool})
    is_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    entries = yard.http.post("/tasks", json={"tasks": [{**NOOP, **pool}, NOOP]}).json()["tasks"]
    assert entries[0]["error"]["status"] == 429
    assert is_position(entries[1]["position"])
    assert yard.act(waiting[0], "cancel").status_code == 202
    assert yard.http.post("/tasks", json={**NOOP, **pool}).status_code == 202


@pytest.mark.parametrize("sort", [None, "submitted_at", "-submitted_at", "priority", "-priority", "-finished_at"])
def test_pages_hold_each_task_once_in_any_order_while_more_come(yard: System, sort: str | None) -> None:
    queue = f"paged/{sort}".lower()
    tasks = [{**NOOP, "pool": "nobody", "queue": queue, "priority": 1 + number % 10} for number in range(25)]
    ids = {entry["id"] for entry in yard.http.post("/tasks", json={"tasks": tasks}).json()["tasks"]}
    parameters: dict[str, Any] = {"queue": queue, "limit": 4, **({"sort": sort} if sort else {})}
    yard.until(lambda: len(listed(yard, queue=queue)) == len(ids), "all are listed")
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        page = yard.http.get("/tasks", params={**parameters, **({"cursor": cursor} if cursor else {})}).json()
        assert page.keys() == {"items", "next_cursor"}
        assert len(page["items"]) <= 4
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        yard.submit("noop", pool="nobody", queue=queue, input={})
    assert len(seen) == len(set(seen))
    assert ids <= set(seen)


def test_filters_take_several_values_and_are_combined(yard: System) -> None:
    label = {"deep": "é,ü"}
    ids = [yard.submit("noop", pool="nobody", queue=f"deep/{n}", priority=n, labels=label, input={}) for n in (1, 2, 3)]
    assert yard.act(ids[2], "cancel").status_code == 202
    yard.wait(ids[2], "cancelled")

    def found(**parameters: Any) -> list[str]:
        return [item["id"] for item in listed(yard, label="deep:é,ü", sort="priority", **parameters)]

    assert found() == ids
    assert found(queue="deep/1,deep/3") == found(queue=["deep/1", "deep/3"]) == [ids[0], ids[2]]
    assert found(status="canceled") == found(status="cancelled") == [ids[2]]
    assert found(status="pending", queue="deep/2", pool="nobody", kind="noop", submitted_by="admin") == [ids[1]]
    assert found(worker="worker-1") == found(queue="deep/4") == found(kind="plan") == []
    is_problem(yard.http.get("/tasks", params={"kind": "nonsense"}), 422, "kind")
    assert found(queue=[f"deep/{number}" for number in range(32)]) == ids
    is_problem(yard.http.get("/tasks", params={"queue": [f"q{number}" for number in range(33)]}), 422, "queue")


def test_a_cursor_is_of_the_list_that_gave_it(yard: System) -> None:
    for _ in range(3):
        yard.submit("noop", pool="nobody", queue="cursors", input={})
    yard.until(lambda: len(listed(yard, queue="cursors")) == 3, "all are listed")
    cursor = yard.http.get("/tasks", params={"queue": "cursors", "limit": 1}).json()["next_cursor"]
    is_problem(yard.http.get("/tasks", params={"sort": "priority", "cursor": cursor}), 422, "cursor")
    for garbage in (cursor[:-3], cursor + "A", cursor[::-1], "e30", "bnVsbA=="):
        answer = yard.http.get("/tasks", params={"queue": "cursors", "cursor": garbage})
        assert answer.status_code in {200, 422}, (garbage, answer.text)


def test_history_shows_what_came_too_late_as_void(yard: System) -> None:
    id = yard.command("true")
    yard.wait(id, "completed")
    assert yard.act(id, "cancel").status_code == 409
    yard.until(lambda: len(yard.history(id)) > len(yard.types(id)), "the late cancel is shown")
    history = yard.history(id)
    is_history(history)
    assert [item["type"] for item in history if item["void"]] == ["TaskStopRequested"]
    assert history[-1]["by"] == "admin"
    assert yard.task(id)["status"] == "completed"


def test_output_is_the_bytes_that_were_written(yard: System) -> None:
    id = yard.command(r"printf 'a\000\377\nb'; printf 'ünï' >&2")
    yard.wait(id, "completed")

    def read(**parameters: Any) -> bytes:
        answer = yard.http.get(f"/tasks/{id}/output", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.content

    assert read(stream="stdout") == b"a\0\xff\nb"
    assert read(stream="stderr") == "ünï".encode()
    assert sorted(read()) == sorted(read(stream="stdout") + read(stream="stderr"))
    assert read(stream="stdout", **{"from": 3}) == b"\nb"
    assert read(stream="stdout", **{"from": 5}) == read(attempt=2) == b""
    assert read(follow=1, stream="stdout", **{"from": 4}) == b"b"
    assert read(attempt=1, follow=1, stream="stderr") == "ünï".encode()


def test_output_of_a_task_that_has_not_begun_is_empty_and_can_be_followed(yard: System) -> None:
    id = yard.command("echo later", pool="nobody")
    yard.wait(id, "pending")
    assert yard.output(id) == ""
    with yard.http.stream("GET", f"/tasks/{id}/output", params={"follow": 1}) as following:
        assert yard.act(id, "cancel").status_code == 202
        assert following.read() == b""


def test_workers_queues_pools_and_numbers_have_their_forms(yard: System) -> None:
    from forms import SLOT, is_labels, is_name, is_queue, is_text, number, or_null

    (worker,) = yard.http.get("/workers").json()["items"]
    fits(worker, {"id": is_name, "status": is_text, "labels": is_labels})
    assert [slot["id"] for slot in worker["slots"]] == [0, 1, 2]
    assert [slot["accepts"] for slot in worker["slots"]] == [["any"], ["plan"], ["plan"]]
    assert all(fits(slot, SLOT) for slot in worker["slots"])
    count = number(0)
    for queue in yard.http.get("/queues").json()["items"]:
        fits(
            queue, {"pool": is_name, "queue": is_queue, "depth": count, "running": count, "max_running": or_null(count)}
        )
    for pool in yard.http.get("/pools").json()["items"]:
        fits(pool, {"pool": is_name, "depth": count, "running": count, "workers": count, "max_waiting": or_null(count)})
    stats = yard.http.get("/stats").json()
    assert sum(stats["by_status"].values()) == stats["tasks"]
    assert stats["tasks"] == sum(sum(counts.values()) for counts in stats["by_kind"].values())
    for times in ("waiting_seconds", "execution_seconds"):
        fits(stats[times], dict.fromkeys(("mean", "p50", "p95"), count))
