"""Each verb is one body and one decision, by its own name."""

import pytest
from machine_story import joined
from scheduler_story import Commands

from taskyard.contracts.commands import QueueCommand
from taskyard.contracts.events import QueueLocked, QueuePaused, QueueResumed, QueueUnlocked
from taskyard.contracts.verbs import VERBS, Verb
from taskyard.scheduler import verbs
from taskyard.scheduler.machine import Scheduler

POSTPONE = Verb(name="postpone", bodies=(QueueCommand,), summary="", done="")


def test_every_verb_has_a_decision() -> None:
    verbs.check_verbs()


def test_a_verb_without_a_decision_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "postpone", POSTPONE)
    with pytest.raises(verbs.VerbsDiffer, match="postpone"):
        Scheduler({})


def test_a_decision_without_a_verb_refuses_the_start() -> None:
    with pytest.raises(verbs.VerbsDiffer, match="drain"):
        verbs.check_verbs(verbs=[verb for verb in VERBS if verb != "drain"])


@pytest.mark.parametrize(
    ("verb", "event"),
    [("pause", QueuePaused), ("resume", QueueResumed), ("lock", QueueLocked), ("unlock", QueueUnlocked)],
)
def test_verbs_that_share_a_body_are_told_by_their_names(verb: str, event: type) -> None:
    story = Commands()
    story.given(joined())
    decided = story.decide(story.said(verb, {"queue": "q", "create": True}, "root"))
    assert [type(each) for each in decided.events] == [event]
