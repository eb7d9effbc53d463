"""What is said of a body that does not fit: words for people, whatever field it is, and nothing of how it was found."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from taskyard.contracts.faults import form_of
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.validation import InvalidCommand, decode_body, decode_spec, decode_submission
from taskyard.contracts.values import Instant, make_uuid7
from taskyard.contracts.verbs import SUBMIT, VERBS

ID = make_uuid7(Instant(1_790_000_000_000_000), 1)
PLAIN = {"kind": "noop", "input": {}}
WHOLE: dict[str, dict[str, Any]] = {
    "task": {"task": ID},
    "queue": {"queue": "prod"},
    "worker": {"worker": "worker-1"},
    "priority": {"priority": 3},
}
"""What each field that some command needs may be."""
ANYTHING = ("x", "", "a\0", "\n", "-", 1, -1, 0, 1.5, 10**30, True, None, [], {}, [1], {"": 1}, {"a": 1}, {"1 ": "x"})
LONG = "x" * 5_000
OF_THE_LIBRARY = re.compile(
    r"`|\bregex\b|Expected|Object|Invalid|RFC3339|\b(?:str|int|float|bool|datetime|array)\b|\(\?|\[\^|\\x|\$\("
)


def told(data: bytes, verb: str = SUBMIT) -> str | None:
    """The faults of a body as people read them; None if it is taken."""
    try:
        decode_submission(data, "default") if verb == SUBMIT else decode_body(verb, data, "default")
    except InvalidCommand as error:
        return str(error)
    return None


def whole(form: type[msgspec.Struct]) -> dict[str, Any]:
    """A body of a command that would be taken."""
    needed = [field.encode_name for field in msgspec.structs.fields(form) if field.required]
    return {name: value for field in needed for name, value in WHOLE[field].items()}


def wrong(body: dict[str, Any], form: type[msgspec.Struct]) -> Iterator[dict[str, Any]]:
    """The body with each of its fields being everything that it may not be, left out, or misspelt."""
    for field in msgspec.structs.fields(form):
        name = field.encode_name
        for value in (*ANYTHING, LONG, [LONG], {LONG: LONG}, {"a": LONG}, {str(n): "" for n in range(70)}, [0] * 600):
            yield {**body, name: value}
        yield {key: value for key, value in body.items() if key != name}
        yield {**body, name + "s": 1}
    yield {**body, "colour": 1}


def commands() -> Iterator[tuple[str, bytes]]:
    for verb in VERBS.values():
        if verb.name == SUBMIT:
            continue
        for body in wrong(whole(verb.body), verb.body):
            yield verb.name, json.dumps(body).encode()
    task, batch = VERBS[SUBMIT].bodies
    for body in wrong({**PLAIN, "queue": "prod"}, task):
        yield SUBMIT, json.dumps(body).encode()
    for body in wrong({"tasks": [PLAIN]}, batch):
        yield SUBMIT, json.dumps(body).encode()
    inputs: dict[str, dict[str, Any]] = {
        "plan": {"directory": "/tf"},
        "plan_and_apply": {"directory": "/tf"},
        "command": {},
    }
    for kind, right in inputs.items():
        for given in wrong(right, KINDS[kind].input):
            yield SUBMIT, json.dumps({"kind": kind, "queue": "prod", "input": given}).encode()
    for data in (b"", b"{", b"[]", b"nul", b'{"kind":"\xff"}', b'{"a":01}', b"{a:1}", b"1", b'{"kind":"noop"} x'):
        yield SUBMIT, data
        yield "cancel", data or b" "


def test_no_text_about_any_field_of_any_command_holds_a_pattern_or_a_word_of_the_library() -> None:
    texts = {text for verb, data in commands() if (text := told(data, verb)) is not None}

    assert len(texts) > 100
    assert [text for text in sorted(texts) if OF_THE_LIBRARY.search(text)] == []


def patterns(kind: inspect.Type) -> Iterator[str]:
    match kind:
        case inspect.StrType(pattern=str() as pattern):
            yield pattern
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from patterns(field.type)
        case inspect.UnionType(types=types):
            for each in types:
                yield from patterns(each)
        case inspect.Metadata(type=inner) | inspect.ListType(item_type=inner):
            yield from patterns(inner)
        case inspect.DictType(key_type=key, value_type=value):
            yield from patterns(key)
            yield from patterns(value)
        case _:
            return


def test_every_pattern_of_a_command_has_words_of_its_own() -> None:
    forms = [*(body for verb in VERBS.values() for body in verb.bodies), *(kind.input for kind in KINDS.values())]
    found = {pattern for form in forms for pattern in patterns(inspect.type_info(form))}

    assert len(found) > 5
    assert [pattern for pattern in found if form_of(pattern) == form_of("unheard of")] == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"priority": 11}, "priority: must be at most 10"),
        ({"priority": 0}, "priority: must be at least 1"),
        ({"priority": "high"}, "priority: must be a whole number, not a string"),
        ({"max_attempts": 1.5}, "max_attempts: must be a whole number or null, not a number"),
        ({"timeout_seconds": -1}, "timeout_seconds: must be at least 0"),
        ({"schedule_to_start_timeout_seconds": 0}, "schedule_to_start_timeout_seconds: must be more than 0"),
        ({"id": "1"}, "id: must be a UUIDv7 in lower case"),
        ({"not_before": "soon"}, "not_before: must be a time such as 2030-01-31T08:00:00Z"),
        ({"not_before": "2030-01-01T00:00:00"}, "not_before: needs a zone: end it with Z or +02:00"),
        ({"labels": {"": "x"}}, "labels: each name in it must not be empty"),
        ({"labels": {str(n): "" for n in range(65)}}, "labels: must have at most 64 entries"),
        ({"labels": {"a": "x" * 256}}, "labels[...]: must have at most 255 characters"),
        ({"prioritiy": 1}, "prioritiy: unknown field; did you mean priority?"),
        ({"input": {}, "kind": "command"}, "input: needs either argv or script, and not both"),
        ({"input": {"argv": []}, "kind": "command"}, "input.argv: must not be empty"),
        ({"input": {"argv": "ls"}, "kind": "command"}, "input.argv: must be a list or null, not a string"),
        ({"input": {"arg": ["ls"]}, "kind": "command"}, "input.arg: unknown field; did you mean argv?"),
        ({"input": {"directory": "tf"}, "kind": "plan"}, "input.directory: must be an absolute path: begin it with /"),
        ({"input": {}, "kind": "plan"}, "input.directory: is required"),
    ],
)
def test_a_text_says_what_is_wrong_and_what_would_be_right(fields: dict[str, Any], text: str) -> None:
    assert told(json.dumps({**PLAIN, "queue": "prod", **fields}).encode()) == text


def test_a_word_of_several_is_told_with_all_of_them() -> None:
    assert told(b'{"placement":"random"}', "configure-pool") == "placement: must be first-fit or keep-slot-0"


@pytest.mark.parametrize(
    "body", [{"kind": "nope"}, {"kind": "nope", "queue": "UPPER"}, {"kind": "nope", "input": 1, "labels": 3}]
)
def test_who_names_a_kind_that_there_is_not_is_told_that_first(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidCommand) as raised:
        decode_spec(json.dumps(body).encode(), "default")

    (error,) = raised.value.errors
    assert error.path == "kind"
    assert error.message == ('there is no kind "nope"; did you mean noop? (kinds: plan, plan_and_apply, command, noop)')


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not valid JSON: it ends too early, or is empty"),
        (b'{"kind": tru}', "not valid JSON: invalid character (byte 10)"),
        (b'{"kind":"\xff"}', "not valid JSON: the text is not UTF-8"),
        (b"[]", "must be an object, not a list"),
    ],
)
def test_what_is_no_object_is_told_where_it_breaks_off(data: bytes, text: str) -> None:
    assert told(data) == text
