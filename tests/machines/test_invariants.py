"""Whatever people, agents and time do, in any order: the rules hold after each event, and every task can end."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio import KINDS, Trio

_number = st.integers(0, 9)
_verbs = st.sampled_from(("cancel", "confirm", "confirm", "discard", "retry", "reprioritise", "force-stop", "release"))
_queues = st.sampled_from(("a", "b"))
_settings = st.sampled_from(
    (
        ("pause", {}),
        ("resume", {}),
        ("lock", {"queue": "a"}),
        ("unlock", {"queue": "a"}),
        ("configure-queue", {"queue": "a", "max_running": 1}),
        ("configure-queue", {"queue": "a", "max_running": 0}),
        ("configure-pool", {"placement": "keep-slot-0"}),
    )
)
_steps = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(KINDS), _queues, st.integers(1, 10)),
    st.tuples(st.just("submit"), st.just("plan_and_apply"), _queues, st.integers(1, 10)),
    st.tuples(st.just("about"), _verbs, _number, st.booleans()),
    st.tuples(st.just("report"), _number, st.sampled_from(("start", "progress", "end", "end", "fail", "fatal"))),
    st.tuples(st.just("wait"), st.sampled_from((1.0, 5.0, 70.0))),
    st.tuples(st.just("silence"), _number),
    st.tuples(st.just("restart"), _number),
    st.tuples(st.just("succeed"), st.integers(0, 2)),
    st.tuples(st.just("command"), _settings),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_steps, min_size=20, max_size=60))
def test_whatever_happens_the_rules_hold_and_every_task_ends(steps: list[tuple[Any, ...]]) -> None:
    trio = Trio()

    for name, *given_ in steps:
        arguments = given_[0] if name == "command" else given_
        getattr(trio, name)(*arguments)
    trio.finish()

    assert trio.checker.ended == set(trio.checker.submitted)
    for agent in trio.agents:
        assert len(agent.applied) == len(set(agent.applied)), "a plan was applied twice"
    head = trio.stream.head
    trio.settle()
    assert trio.stream.head == head, "what is quiet does not stay quiet"
