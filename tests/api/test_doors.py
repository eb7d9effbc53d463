"""The door behind HTTP and NATS, against a store and a scheduler that are told what to do."""

import asyncio
import json
from contextlib import suppress

import msgspec
import pytest
from fakes import FakeStore, accept

from taskyard.api import replies
from taskyard.api.clock import make_id
from taskyard.api.doors import Door
from taskyard.api.errors import Refusal
from taskyard.api.outcomes import Outcomes
from taskyard.api.principals import Caller
from taskyard.api.replies import with_code
from taskyard.api.submission import (
    HTTP_BODY_BYTES_MAX,
    HTTP_LIMITS,
    ITEM_BYTES_MAX,
    NATS_LIMITS,
    POOLS_MAX,
    REFUSALS_MAX,
    TASKS_PER_TURN,
    read_submission,
)
from taskyard.contracts.commands import COMMAND_BYTES_MAX, Answer, AnswerBatch, CommandAnswers
from taskyard.contracts.validation import FAULT_BYTES_MAX
from taskyard.contracts.values import Role, Status

pytestmark = pytest.mark.anyio

ADMIN = Caller(name="admin", role=Role.ADMIN)
OSCAR = Caller(name="oscar", role=Role.OPERATOR)
VERA = Caller(name="vera", role=Role.VIEWER)
ONE_ID = make_id()


class Room:
    """A door with everything behind it."""

    def __init__(self, *, decide=accept, answer_seconds: float = 5.0) -> None:
        self.outcomes = Outcomes(answer_seconds=answer_seconds)
        self.store = FakeStore(self.outcomes, decide=decide)
        self.door = Door(self.store, self.outcomes, make_id=make_id)

    async def submit(self, body: object, caller: Caller = ADMIN, **kwargs):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = await self.door.submit(caller, data, **{"pool": None, "limits": HTTP_LIMITS, **kwargs})
        return json.loads(with_code(reply))

    async def command(self, verb: str, body: object, caller: Caller = ADMIN):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(with_code(await self.door.command(caller, verb, data, pool="default")))

    @property
    def stored_tasks(self) -> list[dict]:
        return [task for _, body in self.store.stored for task in body.get("tasks", [body])]


def noop(**fields) -> dict:
    return {"kind": "noop", "input": 1, **fields}


async def test_a_task_without_id_gets_one_and_is_stored_under_its_author():
    room = Room()
    answer = await room.submit(noop(pool="gpu"), OSCAR)
    assert answer["code"] == 202
    assert answer["position"] == "7.0"
    ((subject, body),) = room.store.stored
    assert subject == "taskyard.command.oscar.gpu.submit"
    assert body["id"] == answer["id"]
    assert "pool" not in body


async def test_the_id_of_the_client_is_kept():
    room = Room()
    given = make_id()
    assert (await room.submit(noop(id=given)))["id"] == given
    assert room.store.stored[0][1]["id"] == given


async def test_tasks_that_arrive_while_one_is_stored_share_the_next_command():
    room = Room()
    room.store.gate.clear()
    first = asyncio.create_task(room.submit(noop()))
    while not room.outcomes:
        await asyncio.sleep(0)
    others = [asyncio.create_task(room.submit(noop(priority=1 + n % 10))) for n in range(700)]
    for _ in range(5):
        await asyncio.sleep(0)
    room.store.gate.set()
    answers = [await first, *[await other for other in others]]
    assert {answer["code"] for answer in answers} == {202}
    assert [len(body.get("tasks", [body])) for _, body in room.store.stored] == [1, 500, 200]
    assert len({answer["id"] for answer in answers}) == 701


async def test_tasks_of_different_principals_and_pools_never_share_a_command():
    room = Room()
    await asyncio.gather(
        *(room.submit(noop(pool=pool), caller) for caller in (ADMIN, OSCAR) for pool in ("a", "b") for _ in range(3))
    )
    assert sorted(subject for subject, _ in room.store.stored) == [
        f"taskyard.command.{name}.{pool}.submit" for name in ("admin", "oscar") for pool in ("a", "b")
    ]


async def test_a_command_never_exceeds_its_bytes():
    room = Room()
    script = "x" * 30_000
    body = {"tasks": [{"kind": "command", "input": {"script": script}} for _ in range(20)]}
    answer = await room.submit(body)
    assert len(answer["tasks"]) == 20
    assert max(room.store.sizes) <= COMMAND_BYTES_MAX
    assert len(room.store.stored) == 5


async def test_a_large_batch_is_split_and_answered_in_its_order():
    room = Room()
    tasks = [noop(id=make_id(), pool="a" if n % 3 else "b") for n in range(1_203)]
    answer = await room.submit({"tasks": tasks})
    assert [entry["id"] for entry in answer["tasks"]] == [task["id"] for task in tasks]
    assert all(entry["position"] == "7.0" for entry in answer["tasks"])
    assert max(len(body["tasks"]) for _, body in room.store.stored) == 500


async def test_each_task_of_a_batch_is_refused_by_itself():
    def decide(task: dict) -> Answer:
        if task.get("priority") == 9:
            return Answer(code=409, id=task["id"], error="id_conflict", message="this id is another task's")
        return accept(task)

    room = Room(decide=decide)
    bad_id = make_id()
    answer = await room.submit(
        {"tasks": [noop(priority=1), {"kind": "teapot", "input": 1, "id": bad_id}, noop(priority=9), noop()]}
    )
    first, second, third, fourth = answer["tasks"]
    assert answer["code"] == 202
    assert first["position"] == fourth["position"] == "7.0"
    assert second["id"] == bad_id
    assert second["error"]["status"] == 422
    assert second["error"]["errors"][0]["path"] == "kind"
    assert third["error"]["status"] == 409
    assert third["error"]["error"] == "id_conflict"
    assert len(room.stored_tasks) == 3


async def test_a_batch_of_which_every_task_is_refused_is_answered_as_a_refusal_that_lists_the_faults():
    room = Room()
    id = make_id()
    answer = await room.submit({"tasks": [{"kind": "teapot", "input": 1, "id": id}, noop(priority=11), 3]})
    assert (answer["code"], answer["status"], answer["error"]) == (422, 422, "invalid")
    assert [fault["path"] for fault in answer["errors"]] == ["tasks[0].kind", "tasks[1].priority", "tasks[2]"]
    assert answer["detail"].startswith("every task was refused: tasks[0].kind: there is no kind")
    assert [entry["error"]["errors"][0]["path"] for entry in answer["tasks"]] == ["kind", "priority", ""]
    assert answer["tasks"][0]["id"] == id
    assert room.stored_tasks == []


async def test_a_batch_whose_tasks_are_all_refused_alike_is_answered_as_each_of_them():
    refused = Answer(code=429, error="pool_full", message="the pool default has 5 waiting tasks, its limit")
    room = Room(decide=lambda _: refused)
    body = json.dumps({"tasks": [noop(), noop()]}).encode()
    reply = await room.door.submit(ADMIN, body, pool=None, limits=HTTP_LIMITS)
    answer = json.loads(with_code(reply))
    assert (reply.code, answer["error"]) == (429, "pool_full")
    assert reply.headers["Retry-After"]
    assert {fault["message"] for fault in answer["errors"]} == {refused.message}


async def test_a_batch_whose_tasks_are_refused_for_different_reasons_is_invalid():
    codes = iter((Answer(code=429, error="pool_full"), Answer(code=409, error="id_conflict")))
    answer = await Room(decide=lambda _: next(codes)).submit({"tasks": [noop(), noop()]})
    assert (answer["code"], answer["error"]) == (422, "invalid")
    assert [entry["error"]["status"] for entry in answer["tasks"]] == [429, 409]


async def test_the_faults_that_a_refused_batch_lists_are_bounded_and_its_tasks_are_all_told():
    answer = await Room().submit({"tasks": [1] * REFUSALS_MAX})
    assert answer["code"] == 422
    assert len(msgspec.json.encode(answer["errors"])) < 2 * FAULT_BYTES_MAX
    assert answer["errors"][-1]["message"].endswith("more")
    assert len(answer["tasks"]) == REFUSALS_MAX


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"kind":"noop","input":1,"kind":"noop"}', "kind"),
        (b'{"kind":"noop","input":{"a":{"b":1,"b":2}}}', "input.a.b"),
        (b'{"tasks":[],"tasks":[{"kind":"noop","input":1}]}', "tasks"),
        (b'{"tasks":[{"kind":"noop","input":1,"input":2}]}', "tasks[0].input"),
    ],
)
async def test_a_key_that_stands_twice_is_refused_by_name(body, path):
    room = Room()
    try:
        answer = await room.submit(body)
    except Refusal as refusal:
        answer = json.loads(with_code(replies.refused(refusal)))
    assert (answer["code"], answer["errors"][0]["path"]) == (422, path)
    assert f"{path}: appears twice" in answer["detail"]
    assert room.stored_tasks == []


async def test_who_names_a_kind_that_there_is_not_is_told_so_before_what_is_missing():
    with pytest.raises(Refusal) as raised:
        await Room().submit({"kind": "nope"})
    assert raised.value.detail.startswith('kind: there is no kind "nope"; did you mean noop?')


async def test_a_batch_with_an_id_makes_the_same_tasks_when_it_comes_again():
    room = Room()
    body = {"id": make_id(), "tasks": [noop() for _ in range(600)]}
    one = await room.submit(body)
    two = await room.submit(body)
    assert one == two
    assert room.store.stored[:2] == room.store.stored[2:]
    assert room.store.stored[0][1]["id"] == body["id"]
    assert room.store.stored[1][1]["id"] != body["id"]


async def test_without_an_answer_in_time_the_position_is_null():
    room = Room(answer_seconds=0.05)
    room.store.silent = True
    single = await room.submit(noop())
    assert (single["code"], single["position"]) == (202, None)
    batch = await room.submit({"tasks": [noop(), noop()]})
    assert [entry["position"] for entry in batch["tasks"]] == [None, None]
    cancel = await room.command("cancel", {"task": make_id()})
    assert cancel == {"code": 202, "position": None}
    assert await room.command("retry", {"task": make_id()}) == {"code": 202, "id": None, "position": None}
    assert len(room.outcomes) == 0


async def test_an_unacknowledged_store_is_503_and_leaves_nothing_waiting():
    room = Room()
    room.store.is_away = True
    for attempt in (
        room.submit(noop()),
        room.submit({"tasks": [noop()] * 600}),
        room.command("cancel", {"task": make_id()}),
    ):
        with pytest.raises(Refusal) as refused:
            await attempt
        assert refused.value.status == 503
        assert "Retry-After" in refused.value.headers
    await asyncio.sleep(0)
    assert len(room.outcomes) == 0
    room.store.is_away = False
    assert (await room.submit(noop()))["code"] == 202


async def test_the_verdict_is_the_answer():
    verdict = Answer(code=409, error="status_forbids", message="the task is completed", status=Status.COMPLETED)
    room = Room(decide=lambda _: verdict)
    answer = await room.command("confirm", {"task": make_id(), "attempt": 1, "comment": "go"})
    assert answer["code"] == answer["status"] == 409
    assert answer["task_status"] == "completed"
    assert answer["error"] == "status_forbids"


async def test_a_full_pool_says_when_to_come_again():
    room = Room(decide=lambda _: Answer(code=429, error="pool_full", message="full"))
    reply = await room.door.submit(ADMIN, msgspec.json.encode(noop()), pool=None, limits=HTTP_LIMITS)
    assert reply.code == 429
    assert int(reply.headers["Retry-After"]) > 0


async def test_retry_answers_the_id_of_the_new_task():
    new = make_id()
    room = Room(decide=lambda _: Answer(code=202, id=new, position=1024))
    assert await room.command("retry", {"task": make_id()}) == {"code": 202, "id": new, "position": "1.0"}


async def test_a_repeat_that_waits_at_the_same_time_gets_the_same_answer():
    room = Room()
    room.store.silent = True
    body = {"id": make_id(), "task": make_id()}
    both = [asyncio.create_task(room.command("cancel", body)) for _ in range(2)]
    while len(room.store.stored) < 2:
        await asyncio.sleep(0)
    room.outcomes.deliver(
        b'{"outcomes":[{"command":"%s","answers":[{"code":202,"position":2048}]}]}' % body["id"].encode()
    )
    assert [await one for one in both] == [{"code": 202, "position": "2.0"}] * 2


@pytest.mark.parametrize(
    ("caller", "verb", "status"),
    [
        (VERA, "submit", 403),
        (VERA, "cancel", 403),
        (OSCAR, "force-stop", 403),
        (OSCAR, "pause", 403),
        (OSCAR, "configure-pool", 403),
        (OSCAR, "drain", 403),
        (OSCAR, "cancel", 202),
        (OSCAR, "retry", 202),
        (ADMIN, "force-stop", 202),
    ],
)
async def test_roles(caller, verb, status):
    room = Room()
    body = noop() if verb == "submit" else {"task": make_id(), "reason": "r"}
    asking = room.submit(body, caller) if verb == "submit" else room.command(verb, body, caller)
    if status == 202:
        assert (await asking)["code"] == 202
        return
    with pytest.raises(Refusal) as refused:
        await asking
    assert refused.value.status == status
    assert room.store.stored == []


LONG = 2_000
BAD_SUBMISSIONS: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 422),
    "no json": (b"{", 422),
    "null": (b"null", 422),
    "an array": (b"[]", 422),
    "a number": (b"1", 422),
    "invalid utf-8": (b'{"kind":"noop","input":"\xff\xfe"}', 422),
    "invalid utf-8 in a key": (b'{"kind":"noop","input":1,"\xff":1}', 422),
    "a lone surrogate": (b'{"kind":"noop","input":"\\ud800x"}', 422),
    "a NUL byte": (b'{"kind":"noop","input":1}\x00', 422),
    "NUL in a label": (b'{"kind":"noop","input":1,"labels":{"a":"\\u0000"}}', 422),
    "deep nesting": (b'{"kind":"command","input":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 422),
    "deep nesting of the whole": (b"[" * 100_000, 422),
    "deep nesting in tasks": (b'{"tasks":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 422),
    "a huge priority": (b'{"kind":"noop","input":1,"priority":' + b"9" * LONG + b"}", 422),
    "a huge timeout": (b'{"kind":"noop","input":1,"timeout_seconds":1e999}', 422),
    "no kind": (b'{"input":1}', 422),
    "no input": (b'{"kind":"noop"}', 422),
    "an unknown kind": (b'{"kind":"teapot","input":1}', 422),
    "an unknown field": (b'{"kind":"noop","input":1,"colour":"red"}', 422),
    "priority 0": (b'{"kind":"noop","input":1,"priority":0}', 422),
    "priority 11": (b'{"kind":"noop","input":1,"priority":11}', 422),
    "an id that is none": (b'{"kind":"noop","input":1,"id":"7"}', 422),
    "a UUIDv4": (b'{"kind":"noop","input":1,"id":"0199f3c2-0000-4000-8000-000000000000"}', 422),
    "an id with a line break": (b'{"kind":"noop","input":1,"id":"0199f3c2-0000-7000-8000-000000000000\\n"}', 422),
    "a pool with dots": (b'{"kind":"noop","input":1,"pool":"a.b"}', 422),
    "a pool with a line break": (b'{"kind":"noop","input":1,"pool":"a\\n"}', 422),
    "a pool that is a number": (b'{"kind":"noop","input":1,"pool":3}', 422),
    "a wildcard pool": (b'{"kind":"noop","input":1,"pool":">"}', 422),
    "a queue with a line break": (b'{"kind":"noop","input":1,"queue":"a\\n"}', 422),
    "a plan without queue": (b'{"kind":"plan","input":{"directory":"/a"}}', 422),
    "a relative directory": (b'{"kind":"plan","queue":"q","input":{"directory":"a"}}', 422),
    "argv and script": (b'{"kind":"command","input":{"argv":["a"],"script":"b"}}', 422),
    "argv of numbers": (b'{"kind":"command","input":{"argv":[1]}}', 422),
    "a large noop": (b'{"kind":"noop","input":"' + b"x" * 1025 + b'"}', 422),
    "a time without zone": (b'{"kind":"noop","input":1,"not_before":"2026-01-01T00:00:00"}', 422),
    "no tasks": (b'{"tasks":[]}', 422),
    "tasks null": (b'{"tasks":null}', 422),
    "tasks an object": (b'{"tasks":{}}', 422),
    "tasks and more": (b'{"tasks":[{"kind":"noop","input":1}],"colour":1}', 422),
    "a batch id that is none": (b'{"id":3,"tasks":[{"kind":"noop","input":1}]}', 422),
    "a batch pool that is none": (b'{"pool":"A B","tasks":[{"kind":"noop","input":1}]}', 422),
    "more than a body holds": (b'{"kind":"noop","input":"' + b"x" * (1 << 20) + b'"}', 413),
}


@pytest.mark.parametrize("name", BAD_SUBMISSIONS)
async def test_a_bad_submission_is_refused_and_not_stored(name):
    data, status = BAD_SUBMISSIONS[name]
    room = Room()
    with pytest.raises(Refusal) as refused:
        await room.submit(data)
    assert refused.value.status == status
    assert room.store.stored == []


@pytest.mark.parametrize("limits", [HTTP_LIMITS, NATS_LIMITS], ids=["http", "nats"])
async def test_a_batch_is_refused_as_a_whole_behind_a_hundred_refusals_and_told_shortly(limits):
    room = Room()
    tasks = [noop()] + [{"kind": "k" * 100 + str(number), "input": 1} for number in range(400)]
    with pytest.raises(Refusal) as refused:
        await room.submit({"tasks": tasks}, limits=limits, pool="default")
    assert (refused.value.status, room.store.stored) == (422, [])
    told = with_code(replies.refused(refused.value))
    assert len(told) < 2 * FAULT_BYTES_MAX
    first, second, *_, last = json.loads(told)["errors"]
    assert first["path"] == "tasks" and second["path"] == "tasks[1]" and last["message"].endswith("more")


async def test_a_hundred_refusals_cost_the_other_tasks_of_a_batch_nothing():
    room = Room()
    answer = await room.submit({"tasks": [1] * 100 + [noop()] * 5})
    assert [("error" in entry) for entry in answer["tasks"]] == [True] * 100 + [False] * 5
    assert len(room.stored_tasks) == 5


async def test_many_unknown_fields_of_a_batch_are_told_shortly():
    room = Room()
    fields = {f"{number}-" + "x" * 1_000: 1 for number in range(500)}
    with pytest.raises(Refusal) as refused:
        await room.submit({"tasks": [noop()], **fields})
    assert len(with_code(replies.refused(refused.value))) < 2 * FAULT_BYTES_MAX


async def test_a_batch_names_a_bounded_number_of_pools():
    room = Room()
    with pytest.raises(Refusal) as refused:
        await room.submit({"tasks": [noop(pool=f"p{number}") for number in range(POOLS_MAX + 1)]})
    assert (refused.value.status, room.store.stored) == (422, [])


@pytest.mark.parametrize("task", [b"0", b'{"kind":"noop","input":1}'], ids=["faults", "tasks"])
async def test_others_have_their_turn_while_a_large_batch_is_read(task):
    count = (HTTP_BODY_BYTES_MAX - 64) // (len(task) + 1)
    data = b'{"tasks":[' + b",".join([task] * count) + b"]}"
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    with suppress(Refusal):
        await read_submission(data, pool=None, limits=HTTP_LIMITS, make_id=make_id)
    other.cancel()
    read = REFUSALS_MAX if task == b"0" else count
    assert turns >= read // TASKS_PER_TURN - 1


async def test_the_path_of_a_fault_is_told():
    room = Room()
    with pytest.raises(Refusal) as refused:
        await room.submit({"kind": "command", "input": {"argv": [1]}})
    assert refused.value.errors[0].path.startswith("input.argv")


async def test_an_input_that_grows_when_it_is_written_again_is_too_large():
    room = Room()
    data = (
        b'{"kind":"plan","queue":"q","input":{"directory":"/a","variables":{"n":['
        + b",".join([b"1e15"] * 12_000)
        + b"]}}}"
    )
    with pytest.raises(Refusal) as refused:
        await room.submit(data)
    assert refused.value.status in (413, 422)
    assert len(data) < ITEM_BYTES_MAX


async def test_over_nats_a_message_holds_500_tasks_of_the_subjects_pool():
    room = Room()
    nats = {"pool": "gpu", "limits": NATS_LIMITS}
    with pytest.raises(Refusal) as too_many:
        await room.submit({"tasks": [noop()] * 501}, **nats)
    assert too_many.value.status == 422
    with pytest.raises(Refusal) as other_pool:
        await room.submit(noop(pool="default"), **nats)
    assert other_pool.value.errors[0].path == "pool"
    answer = await room.submit({"tasks": [noop()] * 500}, **nats)
    assert len(answer["tasks"]) == 500
    assert {subject for subject, _ in room.store.stored} == {"taskyard.command.admin.gpu.submit"}


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("cancel", b"{}"),
        ("cancel", b'{"task":"x"}'),
        ("cancel", b"\xff"),
        ("cancel", b"[" * 100_000),
        ("explode", b"{}"),
        ("confirm", b'{"task":"0199f3c2-0000-7000-8000-000000000000","attempt":0}'),
        ("lock", b"{}"),
        ("lock", b'{"queue":"A"}'),
        ("configure-queue", b'{"queue":"a","max_running":-1}'),
        ("configure-pool", b'{"max_waiting":"many"}'),
        ("drain", b'{"worker":"a.b"}'),
        ("pause", b'{"pool":"other"}'),
    ],
)
async def test_a_bad_command_is_refused_and_not_stored(verb, body):
    room = Room()
    with pytest.raises(Refusal) as refused:
        await room.command(verb, body)
    assert refused.value.status == 422
    assert room.store.stored == []


def _told(sequence: int, code: int) -> bytes:
    outcome = CommandAnswers(command=ONE_ID, sequence=sequence, answers=(Answer(code=code),))
    return msgspec.json.encode(AnswerBatch(outcomes=(outcome,)))


async def test_two_who_use_one_id_for_different_tasks_each_get_their_own_answer():
    room = Room(decide=lambda task: accept(task) if task["priority"] == 1 else Answer(code=409, error="id_conflict"))
    room.store.gate.clear()
    asked = [asyncio.ensure_future(room.submit(noop(id=ONE_ID, priority=number % 2 + 1))) for number in range(6)]
    await asyncio.sleep(0)
    room.store.gate.set()
    answers = await asyncio.gather(*asked)
    assert [answer["code"] for answer in answers] == [202, 409, 202, 409, 202, 409]


async def test_an_answer_that_comes_before_the_acknowledgement_is_kept_for_its_command():
    outcomes = Outcomes()
    refused, accepted, silent = (outcomes.expect(ONE_ID) for _ in range(3))
    outcomes.deliver(_told(12, 202))
    outcomes.deliver(_told(11, 409))
    outcomes.stored(ONE_ID, refused, 11)
    outcomes.stored(ONE_ID, accepted, 12)
    outcomes.stored(ONE_ID, silent, 13)
    assert [answer.code for outcome in (refused, accepted) for answer in outcome.result()] == [409, 202]
    assert not silent.done()
    outcomes.deliver(_told(0, 202))  # a scheduler of an older version does not say which one it means
    assert silent.result()[0].code == 202
    await asyncio.sleep(0)
    assert len(outcomes) == 0


async def test_a_command_that_is_too_large_is_refused_and_not_stored():
    room = Room()
    with pytest.raises(Refusal) as refused:
        await room.command("cancel", {"task": ONE_ID, "reason": "x" * COMMAND_BYTES_MAX})
    assert refused.value.status == 413
    assert room.store.stored == []


async def test_parts_of_a_batch_for_several_pools_have_ids_of_their_own():
    """Else the second would be taken for the first that comes again."""
    room = Room()
    await room.submit({"id": make_id(), "tasks": [noop(pool="cpu"), noop(pool="gpu")]})
    first, second = (body["id"] for _, body in room.store.stored)
    assert first != second
