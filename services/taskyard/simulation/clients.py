"""People and programs: they submit, answer plans, change their minds, repeat themselves, and hear only some of the answers.

What they see of tasks is what the log says, as somebody reads it who looks now and then.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from taskyard.contracts.commands import Answer, AnswerBatch
from taskyard.contracts.lifecycle import ATTEMPT_OPEN, Phase, TaskRecord
from taskyard.contracts.subjects import HEADER_ANSWER, command_subject
from taskyard.contracts.values import Incarnation, Instant, format_instant, make_uuid7, seconds
from taskyard.eventlog.memory import MemoryStream
from taskyard.simulation.network import Network
from taskyard.simulation.reader import Reader
from taskyard.simulation.services import ADMIN, OPERATOR, OTHER, VIEWER
from taskyard.simulation.streams import Servers

DOOR = "door-1"
WORKSPACES = ("network", "storage")
REPEATS_MAX = 3
REPEAT_SECONDS_MAX = 15.0
GREAT_COMMANDS, GREAT_CHARACTERS = 6, 60_000
"""So many commands of two tasks each, whose inputs are so long, are more than a commit takes."""
BURST, BURST_TASKS = 60, 100
PATIENCE_SECONDS = 30.0
"""So long after everything was healed, an admin force-stops what a worker has that will never come back."""

_encode = msgspec.json.Encoder().encode


class Clients:
    """All who command. `answers` is what doors heard, per command; `pools` are those that have workers."""

    def __init__(self, servers: Servers, network: Network, reader: Reader, pools: Sequence[str]) -> None:
        self.reader = reader
        self.pools = pools
        self.answers: dict[str, list[tuple[Answer, ...]]] = {}
        self._servers = servers
        self._network = network
        self._world = servers.world
        self._random = servers.world.source("clients")
        self._own_random = self._random
        self._healed_at = 0.0
        self._haste = self._random.choice((0.0, 0.0, 0.03, 0.1))
        servers.listeners.append(self._watch)
        self._paused: list[tuple[str, str, str, dict[str, Any]]] = []

    def hear(self, batch: AnswerBatch) -> None:
        """Outcomes reach the door."""
        for outcome in batch.outcomes:
            self.answers.setdefault(outcome.command, []).append(outcome.answers)

    # -- sending -------------------------------------------------------------------------------------------------------

    def command(self, principal: str, verb: str, body: dict[str, Any], pool: str) -> None:
        """Have a command stored; whoever hears nothing sends it again, and so may somebody who did."""
        data = _encode(body)
        subject = command_subject(principal, pool, verb)
        headers = {HEADER_ANSWER: DOOR} if self._random.random() < 0.5 else {}

        def store() -> None:
            if not self._network.is_log_away:
                self._servers.store(self._servers.commands, subject, data, headers=headers)

        self._network.carry(store, may_repeat=True)
        if body.get("id") is not None and self._chance(0.3):
            for _ in range(self._random.randrange(1, REPEATS_MAX)):
                self._world.later(self._random.uniform(0.0, REPEAT_SECONDS_MAX), store)

    def _chance(self, probability: float) -> bool:
        return self._world.chance(probability, self._random)

    def new_id(self) -> str:
        """An id of a client's own making, whose clock is not always right."""
        off = (
            self._random.choice((3600.0, -3600.0, -90_000.0))
            if self._chance(0.05)
            else self._random.uniform(-20.0, 20.0)
        )
        return make_uuid7(Instant(self._servers.clock() + seconds(off)), self._random.getrandbits(74))

    def _watch(self, stream: MemoryStream) -> None:
        """Some stop a task as soon as they see something happen."""
        if stream is self._servers.log and self._world.chance(self._haste, self._own_random):
            self._random = self._own_random
            self._world.later(self._random.uniform(0.0, 0.3), self._cancel_in_haste)

    def _cancel_in_haste(self) -> None:
        self.reader.catch_up()
        assigned = [record for record in self.reader.table.live.values() if record.phase is Phase.ASSIGNED]
        if assigned:
            self._about("cancel", self._random.choice(assigned), reason="at once")

    # -- submitting ----------------------------------------------------------------------------------------------------

    def submit(self, random: Random) -> None:
        """One task or a few."""
        self._random = random
        pool = random.choice(self.pools)
        principal = self._random.choice((ADMIN, OPERATOR, OPERATOR, OTHER))
        if self._random.random() < 0.3:
            body: dict[str, Any] = {"tasks": [self._spec() for _ in range(self._random.randrange(1, 5))]}
            if self._random.random() < 0.7:
                body["id"] = self.new_id()
        else:
            body = self._spec()
        if self._chance(0.05):
            principal = VIEWER
        if self._chance(0.05):
            body["nonsense"] = 1
        self.command(principal, "submit", body, pool)
        if body.get("id") is not None and self._chance(0.05):  # the same id for something else
            self.command(principal, "submit", {**body, "labels": {"other": "yes"}}, pool)

    def submit_much(self, random: Random) -> None:
        """More than fits one commit, all at once."""
        self._random = random
        pool = random.choice(self.pools)
        for _ in range(GREAT_COMMANDS):
            argv = ["true", "x" * GREAT_CHARACTERS]
            tasks = [{"kind": "command", "id": self.new_id(), "input": {"argv": argv}} for _ in range(2)]
            self.command(ADMIN, "submit", {"tasks": tasks, "id": self.new_id()}, pool)

    def submit_heavy(self, random: Random, pool: str, count: int) -> None:
        """So many commands at once of the longest inputs."""
        self._random = random
        for _ in range(count):
            argv = ["true", "x" * GREAT_CHARACTERS]
            self.command(ADMIN, "submit", {"kind": "command", "id": self.new_id(), "input": {"argv": argv}}, pool)

    def burst(self, random: Random) -> None:
        """Commands of which nothing can be accepted: each is refused in more words than it has."""
        self._random = random
        pool = random.choice(self.pools)
        for _ in range(BURST):
            self.command(
                random.choice((ADMIN, OTHER)), "submit", {"tasks": [random.choice((1, {}))] * BURST_TASKS}, pool
            )

    def _spec(self) -> dict[str, Any]:
        kind = self._random.choice(("plan", "plan_and_apply", "plan_and_apply", "command", "noop"))
        spec: dict[str, Any] = {
            "kind": kind,
            "priority": self._random.randrange(1, 11),
            "labels": {"n": str(self._random.random())},
        }
        if kind in {"plan", "plan_and_apply"}:
            spec["queue"] = self._random.choice(WORKSPACES)
            is_auto = kind == "plan_and_apply" and self._random.random() < 0.4
            spec["input"] = {"directory": "/srv/" + spec["queue"]} | ({"auto_confirm": True} if is_auto else {})
        else:
            spec["input"] = {"argv": ["true"]} if kind == "command" else None
        spec["timeout_seconds"] = self._random.choice((1.0, 3.0, 20.0, 60.0))
        if self._random.random() < 0.4:
            spec["max_attempts"] = self._random.randrange(1, 5)
        if self._random.random() < 0.15:
            spec["schedule_to_start_timeout_seconds"] = self._random.uniform(0.5, 20.0)
        if self._random.random() < 0.1:
            at = Instant(self._world.instant + seconds(self._random.uniform(0.0, 15.0)))
            spec["not_before"] = format_instant(at)
        if self._random.random() < 0.85:
            spec["id"] = self.new_id()
        return spec

    # -- commanding ----------------------------------------------------------------------------------------------------

    def meddle(self, random: Random) -> None:
        """Some command about something that is there, or was."""
        self._random = random
        self.reader.catch_up()
        acts: tuple[Callable[[], None], ...] = (
            self.answer_a_plan, self.answer_a_plan, self.answer_a_plan, self._cancel, self._cancel, self._retry,
            self._force_stop, self._reprioritise, self._pause, self._configure, self._drain,
        )  # fmt: skip
        self._random.choice(acts)()

    def _someone(self, record: TaskRecord) -> str:
        return self._random.choice((ADMIN, record.submitted_by, record.submitted_by, OTHER))

    def _some(self, *, ended: bool = False) -> TaskRecord | None:
        records = list(self.reader.ended.values()) if ended else list(self.reader.table.live.values())
        with_worker = [record for record in records if record.phase in ATTEMPT_OPEN]
        if with_worker and self._random.random() < 0.5:
            records = with_worker
        return self._random.choice(records) if records else None

    def answer_a_plan(self, *, every: bool = False) -> None:
        """Confirm or discard a plan that is shown."""
        plans = [record for record in self.reader.table.live.values() if record.phase is Phase.APPLY_PENDING]
        some = self._some()
        if not plans and some is not None and not every:
            plans = [some]
        for record in plans if every else plans[:1]:
            body: dict[str, Any] = {"task": record.id, "id": self.new_id()}
            seen = record.plan_attempt or record.attempt or 1
            if self._random.random() < 0.7:
                body["attempt"] = max(1, seen - 1) if self._chance(0.1) else seen
            if self._random.random() < 0.1:
                del body["id"]
            by = ADMIN if every else self._someone(record)
            self.command(by, "confirm" if self._random.random() < 0.75 else "discard", body, record.pool)

    def _about(self, verb: str, record: TaskRecord | None, **more: Any) -> None:
        if record is not None:
            body: dict[str, Any] = {"task": record.id, **more}
            if self._random.random() < 0.85:
                body["id"] = self.new_id()
            pool = record.pool if not self._chance(0.03) else self._random.choice(self.pools)
            self.command(self._someone(record), verb, body, pool)

    def _cancel(self) -> None:
        self._about("cancel", self._some(ended=self._random.random() < 0.1), reason="changed my mind")

    def _retry(self) -> None:
        self._about("retry", self._some(ended=self._random.random() < 0.9))

    def retry_one(self, random: Random) -> None:
        """Repeat a task that has ended."""
        self._random = random
        self.reader.catch_up()
        self._retry()

    def _force_stop(self) -> None:
        if self._random.random() < 0.4:
            self._about(self._random.choice(("force-stop", "release")), self._some(), reason="it hangs")

    def _reprioritise(self) -> None:
        self._about("reprioritise", self._some(), priority=self._random.randrange(1, 11))

    def _pause(self) -> None:
        random, pool = self._random, self._random.choice(self.pools)
        queue = random.choice((None, "default", *WORKSPACES))
        on, off = random.choice((("pause", "resume"), ("lock", "unlock")))
        queue = queue or "default" if on == "lock" else queue
        body: dict[str, Any] = {"reason": "maintenance"} | ({"queue": queue, "create": True} if queue else {})
        self.command(ADMIN, on, {**body, "id": self.new_id()}, pool)
        self._paused.append((ADMIN, off, pool, body))
        if random.random() < 0.7:
            self._world.later(random.uniform(0.5, 10.0), self._unpause_one)

    def _unpause_one(self) -> None:
        """End a pause or lock. It stays known: this may be lost, or overtaken by the pause itself."""
        if self._paused:
            self._random = self._own_random
            by, verb, pool, body = self._random.choice(self._paused)
            self.command(by, verb, {**body, "id": self.new_id()}, pool)

    def _configure(self) -> None:
        random, pool = self._random, self._random.choice(self.pools)
        id = {"id": self.new_id()}
        if random.random() < 0.5:
            limit = random.randrange(0, 4)
            body: dict[str, Any] = {
                "queue": random.choice(WORKSPACES),
                "max_running": limit,
                "create": random.random() < 0.9,
                **id,
            }
            self.command(ADMIN, "configure-queue", body, pool)
            return
        settings: dict[str, Any] = {"placement": random.choice(("first-fit", "keep-slot-0"))}
        if random.random() < 0.5:
            settings["approval_timeout_seconds"] = random.uniform(2.0, 40.0)
        if random.random() < 0.1:
            settings["max_waiting"] = random.randrange(2, 12)
        self.command(ADMIN, "configure-pool", {**settings, **id}, pool)

    def _drain(self) -> None:
        if self._random.random() < 0.5:
            worker = self._random.choice(sorted(self._network.agents))
            self.command(ADMIN, "drain", {"worker": worker, "id": self.new_id()}, self._random.choice(self.pools))

    # -- when all is healed --------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """From now on everybody wants everything to end."""
        self._healed_at = self._world.now

    def tidy_up(self, is_there: Callable[[str, Incarnation], bool]) -> None:
        """End every pause, answer every plan that waits, give up what only a worker that is not there could end."""
        self._random = self._own_random
        self.reader.catch_up()
        for by, verb, pool, body in self._paused:
            self.command(by, verb, {**body, "id": self.new_id()}, pool)
        if self._world.now - self._healed_at > REPEAT_SECONDS_MAX:  # no earlier command can come any more
            self._paused.clear()
        self.answer_a_plan(every=True)
        if self._world.now - self._healed_at > PATIENCE_SECONDS:
            for record in self.reader.table.live.values():
                has_worker = record.worker is not None and is_there(record.worker, record.incarnation)
                if not has_worker and record.phase in ATTEMPT_OPEN:
                    body = {"task": record.id, "reason": "its worker is gone", "id": self.new_id()}
                    verb = "release" if record.phase is Phase.HELD else "force-stop"
                    self.command(ADMIN, verb, body, record.pool)
