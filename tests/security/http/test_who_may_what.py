"""Role by route by object, and role by verb by object, at the doors of a running system.

What is expected stands here and nowhere else: a viewer reads everything and commands nothing, an operator reads and commands
own tasks and what concerns all, an admin may do everything. That no route is forgotten is told by the OpenAPI document.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import nats
import pytest
from nats.aio.client import Client
from system import System

from taskyard.api.clock import make_id
from taskyard.contracts.verbs import VERBS

POOL, QUEUE, WORKER = "matrix", "matrix", "nobody"
OBJECTS = ("own", "foreign", "missing")
ROLES = ("nobody", "viewer", "operator", "admin")

IN, UNKNOWN, FORBIDDEN, HIDDEN = "let in", "401", "403", "404"
LET_IN = frozenset((200, 202, 409, 422))
"""Also a conflict and a wrong body: who is not let in hears of neither."""

# For each kind of route what a viewer, an operator and an admin are told, for own, foreign and missing tasks where it has one.
ALL_READ = {"viewer": IN, "operator": IN, "admin": IN}
ADMINS = {"viewer": FORBIDDEN, "operator": FORBIDDEN, "admin": IN}
SUBMITTERS = {"viewer": FORBIDDEN, "operator": IN, "admin": IN}
READ_TASK = {"viewer": (IN, IN, HIDDEN), "operator": (IN, HIDDEN, HIDDEN), "admin": (IN, IN, HIDDEN)}
COMMAND_TASK = {"viewer": (FORBIDDEN,) * 3, "operator": (IN, HIDDEN, HIDDEN), "admin": (IN, IN, HIDDEN)}
FORCE_TASK = {"viewer": (FORBIDDEN,) * 3, "operator": (FORBIDDEN,) * 3, "admin": (IN, IN, HIDDEN)}
NO_SUCH_WORKER = {"viewer": FORBIDDEN, "operator": FORBIDDEN, "admin": HIDDEN}

ROUTES: dict[str, dict[str, Any]] = {
    "GET /api/v1/tasks": ALL_READ,
    "GET /api/v1/workers": ALL_READ,
    "GET /api/v1/queues": ALL_READ,
    "GET /api/v1/pools": ALL_READ,
    "GET /api/v1/stats": ALL_READ,
    "GET /api/v1/events": ALL_READ,
    "GET /api/v1/log": ADMINS,
    "GET /api/v1/tasks/{task_id}": READ_TASK,
    "GET /api/v1/tasks/{task_id}/history": READ_TASK,
    "GET /api/v1/tasks/{task_id}/why": READ_TASK,
    "GET /api/v1/tasks/{task_id}/output": READ_TASK,
    "POST /api/v1/tasks": SUBMITTERS,
    "POST /api/v1/tasks/{task_id}/cancel": COMMAND_TASK,
    "POST /api/v1/tasks/{task_id}/confirm": COMMAND_TASK,
    "POST /api/v1/tasks/{task_id}/discard": COMMAND_TASK,
    "POST /api/v1/tasks/{task_id}/retry": COMMAND_TASK,
    "POST /api/v1/tasks/{task_id}/reprioritise": COMMAND_TASK,
    "POST /api/v1/tasks/{task_id}/force-stop": FORCE_TASK,
    "POST /api/v1/tasks/{task_id}/release": FORCE_TASK,
    "POST /api/v1/pools/{pool}/configure": ADMINS,
    "POST /api/v1/pools/{pool}/pause": ADMINS,
    "POST /api/v1/pools/{pool}/resume": ADMINS,
    "POST /api/v1/queues/{pool}/configure": ADMINS,
    "POST /api/v1/queues/{pool}/pause": ADMINS,
    "POST /api/v1/queues/{pool}/resume": ADMINS,
    "POST /api/v1/queues/{pool}/lock": ADMINS,
    "POST /api/v1/queues/{pool}/unlock": ADMINS,
    "POST /api/v1/workers/{worker}/drain": NO_SUCH_WORKER,
}
FOR_EVERYBODY = {"GET /healthz", "GET /readyz", "GET /api/v1/health"}

VERBS_OVER_NATS: dict[str, dict[str, Any]] = {
    "submit": SUBMITTERS,
    **dict.fromkeys(("cancel", "confirm", "discard", "retry", "reprioritise"), COMMAND_TASK),
    **dict.fromkeys(("force-stop", "release"), FORCE_TASK),
    **dict.fromkeys(("configure-pool", "configure-queue", "pause", "resume", "lock", "unlock"), ADMINS),
    "drain": NO_SUCH_WORKER,
}


@pytest.fixture(scope="module")
def tasks(yard: System) -> Iterator[dict[tuple[str, str], str]]:
    """Whose task is meant by which word of which role: all wait, in a pool where nothing runs."""
    assert yard.http.post(f"/pools/{POOL}/configure", json={}).status_code == 202
    operator = yard.as_operator()
    ids: dict[str, str] = {}
    for name, client in (("operator", operator), ("admin", yard.http)):
        answer = client.post("/tasks", json={"kind": "noop", "input": {}, "pool": POOL, "queue": QUEUE})
        assert answer.status_code == 202, answer.text
        ids[name] = answer.json()["id"]
        yard.until(lambda id=ids[name]: bool(yard.task(id)), "the task is known")
    operator.close()
    missing = make_id()
    yield {
        (role, word): missing if word == "missing" else ids[owner]
        for role in ROLES
        for word in OBJECTS
        for owner in [("operator", "admin")[(role == "operator") == (word == "foreign")]]
    }
    yard.http.post(f"/queues/{POOL}/unlock", json={"queue": QUEUE})


def body_of(verb: str) -> dict[str, Any]:
    """A body that is right for the verb, without the task."""
    if verb in {"submit", "tasks"}:
        return {"kind": "noop", "input": {}}
    if verb == "reprioritise":
        return {"priority": 3}
    return (
        {} if verb in {"confirm", "discard", "configure", "configure-pool", "configure-queue"} else {"reason": "matrix"}
    )


def told(status: int) -> str:
    """The word of the table for a status; anything else is what it is."""
    return IN if status in LET_IN else str(status)


def expected(row: dict[str, Any], role: str, word: str | None) -> str:
    if role == "nobody":
        return UNKNOWN
    return row[role] if word is None else row[role][OBJECTS.index(word)]


def client_of(yard: System, role: str) -> httpx.Client:
    if role == "nobody":
        return httpx.Client(base_url=f"{yard.connection['http_url']}/api/v1", trust_env=False, verify=False, timeout=15)
    return yard.as_principal(role)


def test_every_route_of_the_document_has_its_row(yard: System):
    document = httpx.get(f"{yard.connection['http_url']}/docs/openapi.json", trust_env=False).json()
    routes = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert routes == ROUTES.keys() | FOR_EVERYBODY


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_let_in_where_the_table_says_so_and_nowhere_else(
    yard: System, tasks: dict[tuple[str, str], str], role: str
):
    wrong = []
    with client_of(yard, role) as http:
        for route, row in ROUTES.items():
            method, path = route.split(" ")
            verb = path.rpartition("/")[2]
            words: tuple[str | None, ...] = OBJECTS if "{task_id}" in path else (None,)
            for word in words:
                task = tasks[role, word] if word else ""
                address = path.removeprefix("/api/v1").format(task_id=task, pool=POOL, worker=WORKER)
                body = body_of(verb) | ({"queue": QUEUE} if "/queues/{pool}" in path else {})
                with http.stream(method, address, json=body if method == "POST" else None) as answer:
                    if told(answer.status_code) != expected(row, role, word):
                        wrong.append((route, word, answer.status_code, expected(row, role, word)))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_no_other_method_is_let_in_anywhere(yard: System, role: str, method: str):
    with client_of(yard, role) as http:
        for path in sorted({route.split(" ")[1] for route in ROUTES}):
            address = path.removeprefix("/api/v1").format(task_id=make_id(), pool=POOL, worker=WORKER)
            assert http.request(method, address, json={}).status_code == 405, (method, path)


def test_lists_and_counts_hold_own_tasks_only_where_the_role_sees_no_others(
    yard: System, tasks: dict[tuple[str, str], str]
):
    foreign, own = tasks["operator", "foreign"], tasks["operator", "own"]
    for role, sees in (("operator", {own}), ("viewer", {own, foreign}), ("admin", {own, foreign})):
        with client_of(yard, role) as http:
            listed = {item["id"] for item in http.get("/tasks", params={"queue": QUEUE}).json()["items"]}
            assert listed & {own, foreign} == sees, role
    counted: dict[str, int] = {}
    for role in ("operator", "viewer", "admin"):
        with client_of(yard, role) as http:
            counted[role] = sum(sum(counts.values()) for counts in http.get("/stats").json()["by_kind"].values())
    assert counted["operator"] < counted["viewer"] == counted["admin"]


def test_who_bears_no_token_is_told_whether_the_system_lives(yard: System):
    for route in FOR_EVERYBODY:
        assert httpx.get(f"{yard.connection['http_url']}{route.split(' ')[1]}", trust_env=False).status_code == 200


# -- over NATS -------------------------------------------------------------------------------------------------------------


def passwords(yard: System) -> dict[str, str]:
    return json.loads((yard.data / "nats" / "passwords.json").read_text())


async def connect(yard: System, user: str, refusals: list[str] | None = None) -> Client:
    async def note(error: Exception) -> None:
        if refusals is not None:
            refusals.append(str(error))

    return await nats.connect(
        yard.connection["nats_url"],
        user=user,
        password=passwords(yard)[user],
        inbox_prefix=f"_INBOX_{user}".encode(),
        allow_reconnect=False,
        error_cb=note,
    )


def test_every_verb_has_its_row():
    assert set(VERBS) == VERBS_OVER_NATS.keys()


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_verb_over_nats_is_let_in_where_the_table_says_so_and_nowhere_else(
    yard: System, tasks: dict[tuple[str, str], str], role: str
):
    async def ask() -> list[Any]:
        wrong = []
        async with await connect(yard, role) as client:
            for verb, row in VERBS_OVER_NATS.items():
                words: tuple[str | None, ...] = OBJECTS if row in (COMMAND_TASK, FORCE_TASK) else (None,)
                for word in words:
                    body = body_of(verb) | ({"task": tasks[role, word]} if word else {})
                    body |= {"queue": QUEUE} if verb in {"configure-queue", "lock", "unlock"} else {}
                    body |= {"worker": WORKER} if verb == "drain" else {}
                    subject = f"taskyard.request.{role}.{POOL}.{verb}"
                    reply = json.loads((await client.request(subject, json.dumps(body).encode(), timeout=10)).data)
                    if told(reply["code"]) != expected(row, role, word):
                        wrong.append((verb, word, reply["code"], expected(row, role, word)))
        return wrong

    assert asyncio.run(ask()) == []


SUBJECTS = (
    *(
        f"taskyard.{door}.{name}.{POOL}.submit"
        for door in ("command", "request")
        for name in ("admin", "operator", "viewer")
    ),
    *(f"taskyard.{what}.{name}" for what in ("report", "heartbeat") for name in ("worker-1", "worker-2")),
    *(f"taskyard.output.{name}.task" for name in ("worker-1", "worker-2")),
    *(f"taskyard.agent.{name}.{what}" for name in ("worker-1", "worker-2") for what in ("assign", "cancel")),
    "taskyard.log.0.scheduler",
    "taskyard.answer.api",
    "$JS.API.STREAM.PURGE.TASKYARD_COMMANDS",
    "$JS.API.STREAM.DELETE.TASKYARD_REPORTS",
    "$JS.API.STREAM.INFO.TASKYARD_LOG_0",
    "$JS.API.CONSUMER.CREATE.TASKYARD_OUTPUT",
    "$KV.taskyard_leases.scheduler",
    "$SYS.REQ.SERVER.PING",
    "_INBOX_admin.x",
    "_INBOX_operator.x",
    "_INBOX_worker-1.x",
    "elsewhere",
)
EVERYTHING = (">", "taskyard.>", "*.>", "$JS.>", "_INBOX.>")
MAY_PUBLISH = {
    "admin": {f"taskyard.{door}.admin.{POOL}.submit" for door in ("command", "request")},
    "operator": {f"taskyard.{door}.operator.{POOL}.submit" for door in ("command", "request")},
    "viewer": {f"taskyard.request.viewer.{POOL}.submit"},
    "worker-1": {"taskyard.report.worker-1", "taskyard.heartbeat.worker-1", "taskyard.output.worker-1.task"},
}
MAY_HEAR: dict[str, set[str]] = {
    "admin": {"_INBOX_admin.x"},
    "operator": {"_INBOX_operator.x"},
    "viewer": set(),
    "worker-1": {"_INBOX_worker-1.x", "taskyard.agent.worker-1.assign", "taskyard.agent.worker-1.cancel"},
}


@pytest.mark.parametrize("user", MAY_PUBLISH)
def test_a_user_of_nats_may_publish_and_hear_what_the_table_says_and_nothing_else(yard: System, user: str):
    async def attempt() -> tuple[set[str], set[str]]:
        refusals: list[str] = []
        async with await connect(yard, user, refusals) as client:
            for subject in SUBJECTS:
                await client.publish(subject, b"")
                await client.subscribe(subject)
            for everything in EVERYTHING:
                await client.subscribe(everything)
            await client.flush()
            due = 2 * len(SUBJECTS) - len(MAY_PUBLISH[user]) - len(MAY_HEAR[user]) + len(EVERYTHING)
            async with asyncio.timeout(10):  # refusals are told one after the other, behind our back
                while sum("permissions violation" in text.lower() for text in refusals) < due:
                    await asyncio.sleep(0.02)
        refused = [text.lower() for text in refusals]
        assert all(
            any("subscription" in text and f'"{all_of.lower()}"' in text for text in refused) for all_of in EVERYTHING
        )
        published = {s for s in SUBJECTS if not any("publish" in t and f'"{s.lower()}"' in t for t in refused)}
        heard = {s for s in SUBJECTS if not any("subscription" in t and f'"{s.lower()}"' in t for t in refused)}
        return published, heard

    published, heard = asyncio.run(attempt())
    assert published == MAY_PUBLISH[user]
    assert heard == MAY_HEAR[user]
