"""Submitting and reading: ids, batches, positions, filters."""

from system import System

from taskyard.client import make_id


def test_the_same_submission_again_is_answered_again_and_runs_once(system: System) -> None:
    witness = system.folder / "once"
    task = {"id": make_id(), "kind": "command", "input": {"script": f"echo ran >> {witness}"}}
    first = system.http.post("/tasks", json=task)
    system.wait(task["id"], "completed")
    second = system.http.post("/tasks", json=task)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert witness.read_text() == "ran\n"
    other = system.http.post("/tasks", json={**task, "priority": 1})
    assert other.status_code == 409
    assert other.headers["content-type"].startswith("application/problem+json")
    assert [error["path"] for error in other.json()["errors"]] == ["id"]


def test_each_task_of_a_batch_is_accepted_or_refused_by_itself(system: System) -> None:
    taken = system.submit("noop", input={})
    tasks = [
        {"kind": "noop", "input": {}},
        {"kind": "no-such-kind", "input": {}},
        {"kind": "command", "input": {"argv": ["true"], "script": "true"}},
        {"kind": "plan", "input": {"directory": "/srv"}},
        {"id": taken, "kind": "noop", "input": {"other": "content"}},
        {"kind": "command", "input": {"argv": ["true"]}},
    ]
    answer = system.http.post("/tasks", json={"tasks": tasks})
    assert answer.status_code == 202
    entries = answer.json()["tasks"]
    assert ["error" in entry for entry in entries] == [False, True, True, True, True, False]
    assert all(entry["position"] for entry in (entries[0], entries[5]))
    for entry in (entries[0], entries[5]):
        system.wait(entry["id"], "completed")


def test_a_position_given_as_after_shows_what_was_just_done(system: System) -> None:
    for _ in range(5):
        answer = system.http.post("/tasks", json={"kind": "noop", "input": {}}).json()
        seen = system.http.get(f"/tasks/{answer['id']}", params={"after": answer["position"]})
        assert seen.status_code == 200
        assert seen.headers["taskyard-position"]
        system.wait(answer["id"], "completed")


def test_tasks_are_found_by_what_they_are(system: System) -> None:
    labels = {"team": "net", "run": "filters"}
    completed = system.command("true", queue="found", labels=labels, priority=2)
    system.wait(completed, "completed")
    failed = system.command("false", queue="found", labels={**labels, "team": "db"})
    system.wait(failed, "failed")
    cancelled = system.command("true", pool="nobody-here", labels=labels)
    assert system.act(cancelled, "cancel").status_code == 202
    system.wait(cancelled, "cancelled")

    def found(**parameters: str | list[str]) -> set[str]:
        label = [parameters.pop("label"), "run:filters"] if "label" in parameters else ["run:filters"]
        answer = system.http.get("/tasks", params={**parameters, "label": label})
        assert answer.status_code == 200, answer.text
        return {item["id"] for item in answer.json()["items"]}

    assert found() == {completed, failed, cancelled}
    assert found(label="team:net") == {completed, cancelled}
    assert found(status="failed") == {failed}
    assert found(status="canceled") == {cancelled}
    assert found(status=["failed", "completed"]) == {completed, failed}
    assert found(queue="found") == {completed, failed}
    assert found(pool="nobody-here") == {cancelled}
    assert found(worker="worker-1") == {completed, failed}
    assert found(submitted_by="admin", kind="command") == {completed, failed, cancelled}
    assert found(kind="noop") == set()


def test_a_list_is_read_page_by_page(system: System) -> None:
    answer = system.http.post("/tasks", json={"tasks": [{"kind": "noop", "input": {}, "queue": "pages"}] * 7})
    ids = [entry["id"] for entry in answer.json()["tasks"]]
    for id in ids:
        system.wait(id, "completed")
    pages: list[list[str]] = []
    cursor = None
    while cursor is not None or not pages:
        parameters = {"queue": "pages", "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = system.http.get("/tasks", params=parameters).json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sorted(id for page in pages for id in page) == sorted(ids)


def test_numbers_and_pools_agree_with_what_ran(system: System) -> None:
    before = system.http.get("/stats").json()["by_status"].get("completed", 0)
    system.wait(system.command("true"), "completed")
    assert system.http.get("/stats").json()["by_status"]["completed"] == before + 1
    (pool,) = [item for item in system.http.get("/pools").json()["items"] if item["pool"] == "default"]
    assert (pool["workers"], pool["running"], pool["depth"]) == (1, 0, 0)
