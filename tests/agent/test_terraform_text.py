"""What Terraform says, as values."""

import json

import msgspec
import pytest

from taskyard.agent.executors.terraform_text import count_changes, count_done, first_error, read_outputs
from taskyard.contracts.events import Changes

ERROR = """\
╷
│ Warning: Unable to open CLI configuration file
│
│ The CLI configuration file at "/home/alice/.terraformrc" does not exist.
╵
\x1b[31m╷\x1b[0m
\x1b[31m│\x1b[0m \x1b[1mError: Reference to undeclared resource\x1b[0m
│
│   on wrong.tf line 1, in output "wrong":
│    1: output "wrong" { value = terraform_data.nothing.id }
╵
╷
│ Error: Another
╵
"""


def plan(*actions: list[str]) -> bytes:
    return json.dumps(
        {"format_version": "1.2", "resource_changes": [{"change": {"actions": a}} for a in actions]}
    ).encode()


def test_changes_are_counted_as_terraform_counts_them() -> None:
    found = count_changes(
        plan(
            ["create"],
            ["create"],
            ["update"],
            ["delete"],
            ["delete", "create"],
            ["create", "delete"],
            ["no-op"],
            ["read"],
        )
    )
    assert found == Changes(add=4, change=1, destroy=3)


def test_a_plan_without_resources_changes_nothing() -> None:
    assert count_changes(b'{"format_version":"1.2"}') == Changes()


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        count_changes(b"Error")


def test_sensitive_outputs_are_replaced() -> None:
    raw = (
        b'{"a":{"sensitive":false,"type":"number","value":2},"b":{"sensitive":true,"type":"string","value":"hunter2"}}'
    )
    assert read_outputs(raw) == {"a": 2, "b": "(sensitive value)"}


def test_the_first_error_is_found_among_boxes_colours_and_warnings() -> None:
    found = first_error(ERROR)
    assert found.startswith('Error: Reference to undeclared resource on wrong.tf line 1, in output "wrong":')
    assert "Another" not in found
    assert "\x1b" not in found


def test_without_a_marked_error_the_last_line_tells() -> None:
    assert first_error("one\ntwo\n\n") == "two"
    assert first_error("") == ""


def test_done_resources_are_counted() -> None:
    assert (
        count_done("a: Creation complete after 1s [id=x]\nb: Still creating...\nc: Destruction complete after 0s\n")
        == 2
    )
