"""Mixed tasks whose commands leave a witness each time they run, so that what ran twice is seen outside Taskyard too."""

import random
from typing import Any

from log_checks import Run, check
from system import System

from taskyard.chaos.witnesses import Witnesses
from taskyard.client import make_id

NOOPS = 120
COMMANDS = 80
PLANS = 3
APPLIES = 1


class Load:
    """Tasks on one system, with witnesses of its commands."""

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        folder = system.folder / f"{name}.load"
        folder.mkdir()
        workers = {worker: system.data / "workers" / worker for worker in system.connection["processes"]}
        self.witnesses = Witnesses(folder, workers)
        self._configuration = system.configuration(f"load-{name}")
        self._name = name
        self._tasks_before: int = system.http.get("/stats").json()["tasks"]
        self.commands: list[str] = []
        self.ids: list[str] = []

    def submit(
        self, *, noops: int = NOOPS, commands: int = COMMANDS, plans: int = PLANS, applies: int = APPLIES
    ) -> None:
        """Submit everything at once, in a shuffled order that is the same each time."""
        tasks = [self.command_task() for _ in range(commands)]
        tasks += [{"id": make_id(), "kind": "noop", "input": {"n": number}} for number in range(noops)]
        plan = {"queue": self._name, "input": {"directory": str(self._configuration)}}
        tasks += [{"id": make_id(), "kind": "plan", **plan} for _ in range(plans)]
        confirmed = {**plan, "input": {**plan["input"], "auto_confirm": True}}
        tasks += [{"id": make_id(), "kind": "plan_and_apply", **confirmed} for _ in range(applies)]
        random.Random(1).shuffle(tasks)
        self.send(tasks)

    def command_task(self, script: str = ":") -> dict[str, Any]:
        """A command that leaves a witness, and then does what `script` says."""
        id = make_id()
        self.commands.append(id)
        return {"id": id, "kind": "command", "input": {"script": self.witnesses.script(script)}}

    def send(self, tasks: list[dict[str, Any]]) -> None:
        """Submit tasks that bear ids; again with the same ids as long as no answer comes."""
        self.ids += [task["id"] for task in tasks]
        self.system.until(lambda: self._sent(tasks), "the tasks are accepted")

    def _sent(self, tasks: list[dict[str, Any]]) -> bool:
        answer = self.system.http.post("/tasks", json={"tasks": tasks})
        if answer.status_code == 503:
            return False
        assert answer.status_code == 202, answer.text
        refused = [entry for entry in answer.json()["tasks"] if "error" in entry]
        assert not refused, refused[:3]
        return True

    def is_halfway(self) -> bool:
        """Whether some commands have run, and not all."""
        return len(self.lines()) >= len(self.commands) // 4

    def lines(self) -> list[str]:
        """The commands that have run so far, or do."""
        return [run.task for run in self.witnesses.runs()]

    def until_halfway(self) -> None:
        """Wait until the load is at work."""
        self.system.until(self.is_halfway, "the load is halfway")

    def finish(self, *, all_complete: bool = True) -> Run:
        """Wait until every task has ended and every slot is idle; judge the log, the read model and what ran."""
        self.system.until(lambda: not self.unfinished(), lambda: f"all have ended: {self.unfinished()}")
        self.system.all_idle()
        ran = self.witnesses.runs()
        run = check(self.system.data, self.system.http, self.ids, ran=ran, watched=self.commands)
        assert ran, "nothing was witnessed"
        if all_complete:
            status = {id: run.lives[id].status for id in self.ids}
            odd = {id: (status[id], run.types[id]) for id in self.ids if status[id] != "completed"}
            assert not odd, odd
        return run

    def unfinished(self) -> list[str]:
        """Statuses that are no end, of all tasks of the system."""
        answer = self.system.http.get("/stats")
        assert answer.status_code in {200, 503}, answer.text
        if answer.status_code == 503:
            return ["unknown"]
        live = {"pending", "scheduled", "assigned", "dispatched", "running", "apply_pending", "cancelling"}
        counts = answer.json()["by_status"]
        missing = ["missing"] if answer.json()["tasks"] < self._tasks_before + len(self.ids) else []
        return [status for status in sorted(live) if counts.get(status)] + missing
