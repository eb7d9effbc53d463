"""What may be an incarnation of a worker from now on."""

from typing import Any

import msgspec
import pytest

from taskyard.contracts.agent_protocol import Heartbeat

HEARTBEAT: dict[str, Any] = {"pool": "default", "slots": [["any"]], "kinds": ["noop"]}


@pytest.mark.parametrize("incarnation", [10**30, 7, "7", "1" + "0" * 30, "", "x" * 65, None])
def test_who_calls_a_run_by_a_number_or_by_nothing_is_not_heard_and_burns_no_name(incarnation: Any) -> None:
    told = msgspec.json.encode(HEARTBEAT | {"incarnation": incarnation})

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(told, type=Heartbeat)


def test_a_run_is_called_by_a_text_that_begins_with_a_letter() -> None:
    told = msgspec.json.encode(HEARTBEAT | {"incarnation": "r0123456789abcdef"})

    assert msgspec.json.decode(told, type=Heartbeat).incarnation == "r0123456789abcdef"
