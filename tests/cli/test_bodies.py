"""Bodies made from options and files."""

import pytest

from taskyard.cli.bodies import TASKS_PER_REQUEST_MAX, InputOptions, in_requests, make_input, parse_variable, read_tasks
from taskyard.cli.errors import WrongUsage


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("-2.5", -2.5),
        ("true", True),
        ("null", None),
        ('["a",1]', ["a", 1]),
        ('"2"', "2"),
        ("prod", "prod"),
        ("1.10", "1.10"),
        ("007", "007"),
        ("1e3", "1e3"),
        ("", ""),
    ],
)
def test_a_variable_is_json_only_where_it_is_plainly_that(text: str, value: object) -> None:
    assert parse_variable(text) == value


@pytest.mark.parametrize(
    ("kind", "options", "made"),
    [
        ("command", InputOptions(argv=("uname", "-a")), {"argv": ["uname", "-a"]}),
        ("command", InputOptions(script="ls", environment=(("A", "b=c"),)), {"script": "ls", "env": {"A": "b=c"}}),
        ("plan", InputOptions(directory="/srv"), {"directory": "/srv"}),
        (
            "plan_and_apply",
            InputOptions(directory="/srv", variables=("n=2", "url=a=b"), auto_confirm=True),
            {"directory": "/srv", "variables": {"n": 2, "url": "a=b"}, "auto_confirm": True},
        ),
        ("noop", InputOptions(), None),
        ("noop", InputOptions(json='{"a": [1]}'), {"a": [1]}),
        ("later_kind", InputOptions(json="7"), 7),
    ],
)
def test_options_become_the_input_of_the_kind(kind: str, options: InputOptions, made: object) -> None:
    assert make_input(kind, options) == made


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("command", InputOptions()),
        ("command", InputOptions(argv=("ls",), script="ls")),
        ("command", InputOptions(argv=("ls",), directory="/srv")),
        ("plan", InputOptions()),
        ("plan", InputOptions(directory="/srv", script="ls")),
        ("plan", InputOptions(directory="/srv", variables=("n",))),
        ("plan", InputOptions(json="{}", directory="/srv")),
        ("noop", InputOptions(script="ls")),
        ("noop", InputOptions(json="{")),
        ("later_kind", InputOptions()),
    ],
)
def test_options_that_do_not_fit_the_kind_are_refused(kind: str, options: InputOptions) -> None:
    with pytest.raises(WrongUsage):
        make_input(kind, options)


@pytest.mark.parametrize(
    "data",
    [b'[{"kind":"a"},{"kind":"b"}]', b'{"tasks":[{"kind":"a"},{"kind":"b"}]}', b'{"kind":"a"}\n\n{"kind":"b"}\n'],
)
def test_tasks_of_a_file_come_in_any_of_three_forms(data: bytes) -> None:
    assert read_tasks(data, "f") == [{"kind": "a"}, {"kind": "b"}]


def test_one_task_in_a_file_is_one_task() -> None:
    assert read_tasks(b'{\n "kind": "a"\n}', "f") == [{"kind": "a"}]


@pytest.mark.parametrize("data", [b"", b"[]", b"[1]", b"3", b'{"tasks":{}}', b'{"kind":\n', b"\xff"])
def test_a_file_without_tasks_is_refused(data: bytes) -> None:
    with pytest.raises(WrongUsage):
        read_tasks(data, "f")


def test_tasks_are_sent_in_few_requests_in_order() -> None:
    tasks = [{"n": n} for n in range(TASKS_PER_REQUEST_MAX + 3)]
    requests = list(in_requests(tasks))
    assert [len(request) for request in requests] == [TASKS_PER_REQUEST_MAX, 3]
    assert [task for request in requests for task in request] == tasks


def test_large_tasks_are_sent_in_requests_below_the_limit() -> None:
    requests = list(in_requests([{"input": "x" * 60_000}] * 20))
    assert [len(request) for request in requests] == [8, 8, 4]
