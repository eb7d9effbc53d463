"""`taskyard health`: one word for whoever watches over an installation, and the service that lacks a leader."""

import json

from cli_server import FakeServer, Run

LEADERS = {"scheduler": "host-1", "slot_allocator": "host-2", "dispatcher": "host-3"}


def test_a_healthy_installation_shows_who_leads_and_ends_with_0(server: FakeServer, run: Run) -> None:
    server.on("GET", "/health", {"healthy": True, "reasons": {}, "leaders": LEADERS})
    ran = run("health")
    assert (ran.status, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()] == [list(pair) for pair in LEADERS.items()]


def test_a_service_without_a_leader_is_named_and_ends_with_1(server: FakeServer, run: Run) -> None:
    lost = {"healthy": False, "reasons": {"scheduler": "no leader for 30 s"}, "leaders": LEADERS | {"scheduler": None}}
    server.on("GET", "/health", lost, 503)
    ran = run("health")
    assert (ran.status, ran.err) == (1, "taskyard: scheduler: no leader for 30 s\n")
    as_json = run("health", "--json")
    assert (as_json.status, json.loads(as_json.out)) == (1, lost)


def test_a_503_of_somebody_else_is_not_taken_for_ours(server: FakeServer, run: Run) -> None:
    server.on("GET", "/health", {"detail": "bad gateway"}, 503)
    assert run("health").status == 4


def test_that_who_leads_was_not_learnt_is_told_apart_from_that_nobody_leads(server: FakeServer, run: Run) -> None:
    leaders = LEADERS | {"dispatcher": None}
    server.on("GET", "/health", {"healthy": True, "reasons": {}, "leaders": leaders, "unknown": ["scheduler"]})
    told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in run("health").out.splitlines()}
    assert told == {"scheduler": "not learnt just now", "slot_allocator": "host-2", "dispatcher": "-"}
