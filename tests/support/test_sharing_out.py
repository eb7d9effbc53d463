"""The shares of pytest-xdist: whole systems stay together, and what is named is there."""

from pathlib import Path

import pytest
from sharing_out import LONGEST_FIRST, TOGETHER, share_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("nodeid", "share"),
    [
        ("tests/scenarios/test_live.py::test_a", "tests/scenarios"),
        ("tests/scenarios/test_order.py::test_b[1::2]", "tests/scenarios"),
        ("tests/scenarios/test_outage.py::test_c", "tests/scenarios/test_outage.py"),
        ("tests/judge/test_turns.py::test_d", "tests/judge/test_turns.py"),
    ],
)
def test_files_that_share_a_system_are_one_share(nodeid: str, share: str) -> None:
    assert share_of(nodeid) == share


def test_every_named_file_is_there_and_a_share() -> None:
    apart = {f"{folder}/{name}.py" for folder, names in TOGETHER.items() for name in names}
    named = {*apart, *(share for share in LONGEST_FIRST if share not in TOGETHER)}
    assert not [name for name in named if not (ROOT / name).is_file()]
    assert not [name for name in named if share_of(f"{name}::test") != name]
