"""A key that stands twice in one object is refused with its name: who wrote it meant one of the two, and nobody knows which."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.contracts.doubled import doubled_key
from taskyard.contracts.validation import InvalidCommand, decode_body, decode_spec, decode_submission
from taskyard.contracts.values import Instant, make_uuid7

ID = make_uuid7(Instant(1_790_000_000_000_000), 1)


def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(InvalidCommand) as raised:
        call()
    (error,) = raised.value.errors
    return error.path, error.message


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ('{"kind":"noop","input":{},"kind":"noop"}', "kind"),
        ('{"kind":"noop","input":{},"input":{"a":1}}', "input"),
        ('{"kind":"noop","input":{},"priority":5,"priority":5}', "priority"),
        ('{"kind":"noop","input":{},"labels":{"a":"1","a":"2"}}', "labels.a"),
        ('{"kind":"noop","input":{"a":{"b":1,"b":2}}}', "input.a.b"),
        ('{"kind":"noop","input":[0,{"b":1,"b":1}]}', "input[1].b"),
        ('{"kind":"noop","input":{"b":"\\u003a","b":"::"}}', "input.b"),
        ('{"kind":"noop","input":{"b":1,"\\u0062":":"}}', "input.b"),
        ('{"kind":"noop","input":{"":1,"":2}}', "input."),
        ('{"kind":"command","input":{"argv":["a"],"env":{"A":"1","A":"2"}}}', "input.env.A"),
        ('{"kind":"plan","queue":"q","input":{"directory":"/a","variables":{"n":1,"n":2}}}', "input.variables.n"),
    ],
)
def test_a_task_in_which_a_key_stands_twice_is_refused_with_its_name(data: str, path: str) -> None:
    assert refused(lambda: decode_spec(data.encode(), "default")) == (path, "appears twice; leave one out")
    assert refused(lambda: decode_submission(data.encode(), "default"))[0] == path


@pytest.mark.parametrize(
    ("verb", "data", "path"),
    [
        ("cancel", f'{{"task":"{ID}","task":"{ID}"}}', "task"),
        ("pause", '{"reason":"a:b","reason":"c"}', "reason"),
        ("submit", '{"tasks":[{}],"tasks":[{}]}', "tasks"),
        ("submit", f'{{"id":"{ID}","tasks":[{{}}],"id":"{ID}"}}', "id"),
    ],
)
def test_a_command_in_which_a_field_stands_twice_is_refused_with_its_name(verb: str, data: str, path: str) -> None:
    decode = decode_submission if verb == "submit" else lambda data, pool: decode_body(verb, data, pool)
    assert refused(lambda: decode(data.encode(), "default"))[0] == path


@pytest.mark.parametrize(
    "data",
    [
        '{"kind":"noop","input":{"a":{"b":1},"c":{"b":1}}}',
        '{"kind":"noop","input":[{"b":1},{"b":1}],"priority":5,"max_attempts":null}',
        '{"kind":"noop","input":"a:b \\u003a \\" : \\\\"}',
        '{"kind":"noop","input":{"n":123456789012345678901234567890}}',
        '{ "kind" : "noop" , "input" : { "a:" : ":" } , "labels" : { "a" : "1:2" } }',
        '{"kind":"noop","input":{},"not_before":"2030-01-01T00:00:00+01:00"}',
    ],
)
def test_what_only_looks_alike_is_taken(data: str) -> None:
    assert decode_spec(data.encode(), "default").kind == "noop"


_texts = st.text(alphabet=':\\"ab\u00e9{}, ', max_size=4)
_values = st.recursive(
    st.none() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=10,
)


@given(_values, st.booleans())
def test_json_without_doubled_keys_is_taken_however_it_is_written(value: Any, as_ascii: bool) -> None:
    written = json.dumps({"kind": "noop", "input": value}, ensure_ascii=as_ascii).encode()

    assert doubled_key(written) is None
    assert decode_spec(written, "default").kind == "noop"


@given(st.dictionaries(_texts, _values, min_size=1, max_size=3), st.data(), st.booleans())
def test_no_doubled_key_is_overlooked(value: dict[str, Any], data: st.DataObject, as_ascii: bool) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    once = json.dumps(value, ensure_ascii=as_ascii)
    twice = f"{once[:-1]},{json.dumps(key, ensure_ascii=as_ascii)}:{json.dumps(data.draw(_values))}}}"
    written = f'{{"kind":"noop","input":{twice}}}'.encode()

    assert refused(lambda: decode_spec(written, "default"))[0] == f"input.{key}"


def test_only_the_outermost_object_is_looked_at_where_that_is_asked() -> None:
    assert doubled_key(b'{"a":{"b":1,"b":2}}', within=False) is None
    assert doubled_key(b'{"a":1,"a":{"b":1,"b":2}}', within=False) == "a"


def test_what_is_no_json_or_nests_without_end_has_none() -> None:
    assert doubled_key(b'{"a":1,"a":') is None
    assert doubled_key(b'{"a":' * 100_000) is None
