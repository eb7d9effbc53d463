"""Reading commands: what is refused names the field, and what is accepted is canonical."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskyard.contracts.commands import COMMAND_BYTES_MAX, QueueCommand, TaskBatch, TaskSpec
from taskyard.contracts.kind import INPUT_BYTES_MAX
from taskyard.contracts.kinds.noop import NOOP_INPUT_BYTES_MAX
from taskyard.contracts.nesting import NESTING_MAX, nests_too_deeply
from taskyard.contracts.validation import (
    InvalidCommand,
    content_digest,
    decode_body,
    decode_spec,
    decode_submission,
)
from taskyard.contracts.values import Instant, make_uuid7
from taskyard.contracts.verbs import VERBS

ID = make_uuid7(Instant(1_790_000_000_000_000), 1)
NOOP: dict[str, Any] = {"kind": "noop", "input": {}}
PLAN: dict[str, Any] = {"kind": "plan", "queue": "network", "input": {"directory": "/tf"}}
COMMAND: dict[str, Any] = {"kind": "command", "input": {"argv": ["uptime"]}}


def spec(**fields: Any) -> TaskSpec:
    return decode_spec(json.dumps(fields).encode(), "default")


def fault(call: Any) -> tuple[str, str]:
    with pytest.raises(InvalidCommand) as raised:
        call()
    (error,) = raised.value.errors
    return error.path, error.message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"input": {}}, "kind"),
        ({"kind": "noop"}, "input"),
        (NOOP | {"kind": "nonsense"}, "kind"),
        (NOOP | {"kind": 1}, "kind"),
        (NOOP | {"colour": "red"}, "colour"),
        (NOOP | {"id": "1"}, "id"),
        (NOOP | {"id": ID + "\n"}, "id"),
        (NOOP | {"id": ID.upper()}, "id"),
        (NOOP | {"pool": "other"}, "pool"),
        (NOOP | {"pool": "No Name"}, "pool"),
        (NOOP | {"queue": "UPPER"}, "queue"),
        (NOOP | {"queue": "line\n"}, "queue"),
        (NOOP | {"priority": 0}, "priority"),
        (NOOP | {"priority": 11}, "priority"),
        (NOOP | {"priority": "high"}, "priority"),
        (NOOP | {"timeout_seconds": -1}, "timeout_seconds"),
        (NOOP | {"timeout_seconds": 1e300}, "timeout_seconds"),
        (NOOP | {"schedule_to_start_timeout_seconds": 0}, "schedule_to_start_timeout_seconds"),
        (NOOP | {"max_attempts": 0}, "max_attempts"),
        (NOOP | {"max_attempts": 101}, "max_attempts"),
        (NOOP | {"labels": {"": "x"}}, "labels"),
        (NOOP | {"labels": {"a": "x" * 256}}, "labels[...]"),
        (NOOP | {"labels": {str(n): "" for n in range(65)}}, "labels"),
        (NOOP | {"not_before": "soon"}, "not_before"),
        (NOOP | {"not_before": "2030-01-01T00:00:00"}, "not_before"),
        ({"kind": "plan", "input": {"directory": "/tf"}}, "queue"),
        (PLAN | {"input": {}}, "input.directory"),
        (PLAN | {"input": {"directory": "relative"}}, "input.directory"),
        (PLAN | {"input": {"directory": "/tf", "variables": {"1st": 1}}}, "input.variables"),
        (PLAN | {"input": {"directory": "/tf", "auto_confirm": "yes"}}, "input.auto_confirm"),
        (PLAN | {"input": {"directory": "/tf", "unheard": 1}}, "input.unheard"),
        (COMMAND | {"input": {}}, "input"),
        (COMMAND | {"input": {"argv": []}}, "input.argv"),
        (COMMAND | {"input": {"argv": ["a\0b"]}}, "input.argv[0]"),
        (COMMAND | {"input": {"argv": ["a"], "script": "b"}}, "input"),
        (NOOP | {"input": "x" * NOOP_INPUT_BYTES_MAX}, "input"),
        (COMMAND | {"input": {"argv": ["x" * INPUT_BYTES_MAX]}}, "input"),
    ],
)
def test_a_fault_of_a_task_names_its_field(fields: dict[str, Any], path: str) -> None:
    found, message = fault(lambda: spec(**fields))

    assert found == path
    assert message


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"nonsense", b"\xff\xfe", b'{"kind":"\xff"}', b"null", b"1"])
def test_what_is_no_object_is_refused_as_a_whole(data: bytes) -> None:
    assert fault(lambda: decode_submission(data, "default"))[0] in ("", "kind")


def test_deep_nesting_is_refused_and_ends_nothing() -> None:
    deep = b"[" * 5_000 + b"]" * 5_000
    data = b'{"kind":"command","input":{"argv":' + deep + b"}}"

    fault(lambda: decode_submission(data, "default"))
    fault(lambda: decode_body("cancel", b'{"task":' + deep + b"}", "default"))


def test_a_message_that_is_too_long_is_not_read() -> None:
    path, message = fault(lambda: decode_submission(b" " * (COMMAND_BYTES_MAX + 1), "default"))

    assert (path, message) == ("", f"larger than {COMMAND_BYTES_MAX} bytes")
    assert fault(lambda: decode_body("cancel", b" " * (COMMAND_BYTES_MAX + 1), "default"))[0] == ""


def test_one_task_is_read_whole() -> None:
    body = decode_submission(json.dumps(PLAN | {"id": ID, "pool": "default"}).encode(), "default")

    assert isinstance(body, TaskSpec)
    assert (body.id, body.queue, body.priority, bytes(body.input)) == (ID, "network", 5, b'{"directory":"/tf"}')


def test_a_batch_leaves_its_tasks_to_be_read_one_by_one() -> None:
    body = decode_submission(b'{"tasks":[{"kind":"noop","input":{}},{"nonsense":1}]}', "default")

    assert isinstance(body, TaskBatch)
    assert [bytes(raw) for raw in body.tasks] == [b'{"kind":"noop","input":{}}', b'{"nonsense":1}']


@pytest.mark.parametrize(
    ("batch", "path"),
    [
        ({"tasks": []}, "tasks"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": [{}] * 501}, "tasks"),
        ({"tasks": [{}], "kind": "noop"}, "kind"),
        ({"tasks": [{}], "pool": "other"}, "pool"),
        ({"tasks": [{}], "id": "1"}, "id"),
    ],
)
def test_a_fault_of_a_batch_names_its_field(batch: dict[str, Any], path: str) -> None:
    assert fault(lambda: decode_submission(json.dumps(batch).encode(), "default"))[0] == path


@pytest.mark.parametrize(
    ("verb", "body", "path"),
    [
        ("dance", {}, ""),
        ("submit", {}, ""),
        ("cancel", {}, "task"),
        ("cancel", {"task": "1"}, "task"),
        ("cancel", {"task": ID, "reason": "x" * 1025}, "reason"),
        ("cancel", {"task": ID, "reason": "a\0"}, "reason"),
        ("confirm", {"task": ID, "attempt": 0}, "attempt"),
        ("reprioritise", {"task": ID}, "priority"),
        ("configure-pool", {"placement": "random"}, "placement"),
        ("configure-pool", {"placement": "first-fit\n"}, "placement"),
        ("configure-pool", {"approval_timeout_seconds": 1e18}, "approval_timeout_seconds"),
        ("configure-pool", {"max_waiting": -1}, "max_waiting"),
        ("configure-queue", {"max_running": 1}, "queue"),
        ("lock", {}, "queue"),
        ("drain", {}, "worker"),
        ("pause", {"pool": "other"}, "pool"),
    ],
)
def test_a_fault_of_another_command_names_its_field(verb: str, body: dict[str, Any], path: str) -> None:
    assert fault(lambda: decode_body(verb, json.dumps(body).encode(), "default"))[0] == path


def test_an_empty_message_is_an_empty_object() -> None:
    assert decode_body("pause", b"", "default") == QueueCommand()


def test_the_order_of_fields_and_white_space_do_not_make_another_content() -> None:
    one = decode_spec(b'{"kind":"noop","input":{"a":1,"b":{"y":1,"x":2}}}', "default")
    other = decode_spec(b'{ "input": {"b": {"x":2, "y":1}, "a":1}, "kind": "noop" }', "default")

    assert bytes(one.input) == bytes(other.input) == b'{"a":1,"b":{"x":2,"y":1}}'
    assert content_digest(one, "default") == content_digest(other, "default")


@pytest.mark.parametrize(
    "fields",
    [{"priority": 4}, {"queue": "q"}, {"labels": {"a": "b"}}, {"input": {"a": 1}}, {"max_attempts": 1}],
    ids=lambda fields: next(iter(fields)),
)
def test_anything_else_makes_another_content(fields: dict[str, Any]) -> None:
    assert content_digest(spec(**NOOP), "default") != content_digest(spec(**NOOP | fields), "default")


def test_an_id_is_no_content_and_a_pool_is_however_it_is_named() -> None:
    assert content_digest(spec(**NOOP), "default") == content_digest(spec(**NOOP, id=ID, pool="default"), "default")
    assert content_digest(spec(**NOOP), "default") != content_digest(spec(**NOOP), "other")


def test_the_default_queue_is_the_same_content_whether_it_is_named_or_left_out() -> None:
    assert content_digest(spec(**NOOP), "default") == content_digest(spec(**NOOP, queue="default"), "default")
    assert content_digest(spec(**NOOP), "default") != content_digest(spec(**NOOP, queue="defaults"), "default")


@pytest.mark.parametrize("when", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_time_that_another_zone_could_not_hold_is_refused(when: str) -> None:
    body = json.dumps({"kind": "noop", "input": {}, "not_before": when}).encode()
    assert fault(lambda: decode_spec(body, "default"))[0] == "not_before"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_fields = st.dictionaries(
    st.sampled_from(("kind", "input", "queue", "priority", "labels", "tasks", "id", "not_before", "x")),
    _json | st.sampled_from(("noop", "plan", "command", ID)),
    max_size=6,
)


# A busy machine is no fault of the code: neither how long one example takes nor how fast they are made is measured.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60) | _fields.map(msgspec.json.encode), st.sampled_from(sorted(VERBS)))
def test_whatever_comes_is_read_or_refused(data: bytes, verb: str) -> None:
    try:
        body = decode_submission(data, "default") if verb == "submit" else decode_body(verb, data, "default")
    except InvalidCommand:
        return
    if isinstance(body, TaskSpec):
        again = decode_spec(msgspec.json.encode(body), "default")
        assert content_digest(again, "default") == content_digest(body, "default")


def plan_of_depth(levels: int, variable: str = "") -> bytes:
    """A plan whose input nests so deeply: two levels are its own."""
    inner = "[" * (levels - 2) + variable + "]" * (levels - 2)
    return b'{"kind":"plan","queue":"net","input":{"directory":"/tf","variables":{"a":%s}}}' % inner.encode()


@pytest.mark.parametrize("levels", [NESTING_MAX + 1, 500, 10_000])
def test_an_input_that_another_program_might_be_too_deep_in_its_own_calls_to_read_is_refused(levels: int) -> None:
    path, message = fault(lambda: decode_spec(plan_of_depth(levels), "default"))
    assert path in {"input", ""}
    assert message.startswith("nested too deeply")


def test_what_nests_as_deeply_as_may_be_is_read_from_deep_within_calls() -> None:
    """The log must be readable for everybody, so its events may not be just within the limit of who took them in."""

    def at_depth(calls: int) -> Any:
        return decode_spec(plan_of_depth(NESTING_MAX), "default") if calls == 0 else at_depth(calls - 1)

    assert at_depth(500).kind == "plan"


def test_brackets_within_texts_are_no_levels() -> None:
    assert decode_spec(plan_of_depth(2, '"' + '[{\\"' * NESTING_MAX + '"'), "default").kind == "plan"


@given(
    st.recursive(
        st.text() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=NESTING_MAX * 2,
    ),
    st.integers(0, NESTING_MAX + 5),
)
def test_levels_are_counted_as_they_are(value: Any, around: int) -> None:
    def depth(value: Any) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(depth, children), default=0) if isinstance(value, dict | list) else 0

    for number in range(around):
        value = [value, "[{"] if number % 2 else {"]": value}
    assert nests_too_deeply(msgspec.json.encode(value)) == (depth(value) > NESTING_MAX)
