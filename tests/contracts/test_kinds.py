"""Kinds: what each row must hold, and how installed packages add theirs."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import msgspec
import pytest

from taskyard.contracts.kind import Kind
from taskyard.contracts.kinds import ENTRY_POINTS, KINDS, OURS, WrongKind, confirms_itself, decode_input, gather

OWN = Kind(name="resize", summary="resize a picture", input=dict[str, int], example={"width": 3}, timeout_seconds=60)
FOREIGN = Kind(name="noop", summary="do nothing else", input=Any, example={}, timeout_seconds=60)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_takes_its_own_example_and_shows_only_fields_that_its_input_has(kind: Kind) -> None:
    fields = getattr(kind.input, "__struct_fields__", ())

    decode_input(kind.name, msgspec.Raw(msgspec.json.encode(kind.example)))
    assert {*kind.shown_values, *kind.shown_names} <= {*fields}
    assert kind.summary and kind.timeout_seconds > 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_only_a_kind_that_asks_for_approval_can_be_told_to_confirm_itself(kind: Kind) -> None:
    fields = getattr(kind.input, "__struct_fields__", ())
    given = dict(kind.example) | ({"auto_confirm": True} if "auto_confirm" in fields else {})

    assert confirms_itself(kind, msgspec.Raw(msgspec.json.encode(given))) is kind.approval


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=f"{__name__}:{value}", group=ENTRY_POINTS)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This very file under its name, which an entry point would import."""
    module = ModuleType(__name__)
    vars(module).update(OWN=OWN, FOREIGN=FOREIGN, NUMBER=1)
    monkeypatch.setitem(sys.modules, __name__, module)


@pytest.mark.usefixtures("importable")
def test_an_installed_package_adds_a_kind_by_an_entry_point() -> None:
    assert gather(OURS, [point("resize", "OWN")])["resize"] is OWN


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("resize", "NUMBER", "must name a Kind"),
        ("Resize", "OWN", "must name a Kind of that name"),
        ("other", "OWN", "must name a Kind of that name"),
        ("noop", "FOREIGN", "there is another kind of that name"),
    ],
)
def test_a_package_that_brings_no_kind_or_takes_the_name_of_another_stops_whoever_starts_with_it(
    name: str, value: str, told: str
) -> None:
    with pytest.raises(WrongKind, match=told):
        gather(OURS, [point(name, value)])
