"""Random schedules: what may happen next, and how often."""

from taskyard.contracts.lifecycle import Phase
from world import KINDS, World

REMEMBERED_COMMANDS_MAX = 20
LIVE_TASKS_MAX = 12


class Chaos:
    """Drives a world through random steps, faults among them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._sent: list[tuple[str, dict]] = []
        self._steps = [
            (90, self._instance_step),
            (25, self._deliver),
            (40, self._work),
            (16, self._report),
            (8, self._beat),
            (10, self._pass_time),
            (8, self._submit),
            (6, self._command),
            (2, self._repeat_command),
            (2, self._crash),
            (2, self._campaign),
            (4, self._agent_fault),
        ]

    def run(self, steps: int) -> None:
        weights, calls = zip(*self._steps, strict=True)
        for call in self._rng.choices(calls, weights, k=steps):
            call()

    def _instance_step(self) -> None:
        rng = self._rng
        each = rng.choice(self._world.instances)
        match rng.randrange(12):
            case 0:
                each.fold(rng.randrange(1, 4))
            case 1:
                each.append(is_stored=rng.random() < 0.9, is_answered=rng.random() < 0.75)
            case 2:
                each.decide()
            case 3:
                each.read_inputs()
            case 4:
                each.act()
            case _:
                each.turn()

    def _deliver(self) -> None:
        net, rng = self._world.net, self._rng
        if not net:
            return
        sent = net[rng.randrange(len(net))]
        fate = rng.random()
        if fate < 0.85:  # else it stays and comes again
            net.remove(sent)
        if fate < 0.1:  # lost
            return
        is_answered = rng.random() < 0.75
        self._world.deliver(sent, is_answered=is_answered)
        if not is_answered and rng.random() < 0.3:  # the answer was lost with the connection
            self._world.agents[sent.effect.agent].is_up = False

    def _agent(self):
        return self._world.agents[self._rng.choice(sorted(self._world.agents))]

    def _work(self) -> None:
        agent = self._agent()
        if agent.is_up:
            agent.work(self._rng, self._world.now, may_fail=True)

    def _report(self) -> None:
        self._world.report(self._agent(), is_answered=self._rng.random() < 0.9)

    def _beat(self) -> None:
        if self._rng.random() < 0.9:
            self._world.beat(self._agent())

    def _pass_time(self) -> None:
        self._world.advance(self._rng.choice((0.001, 0.1, 1.0, 2.5)))

    def _submit(self) -> None:
        rng = self._rng
        if len(self._world.tasks().live) >= LIVE_TASKS_MAX:
            return
        spec: dict = {"priority": rng.choice((1, 5, 5, 10)), "max_attempts": rng.choice((1, 3))}
        if rng.random() < 0.1:
            spec["schedule_to_start_timeout_seconds"] = 60
        kind = rng.choice(KINDS)
        if kind == "command" and rng.random() < 0.15:
            spec["input"] = {"argv": ["forever"]}
        if kind.startswith("plan"):
            spec["queue"] = rng.choice(("prod", "test"))
        self._world.submit(kind, **spec)

    def _command(self) -> None:
        rng, world = self._rng, self._world
        if not world.ids:
            return
        task = rng.choice(world.ids[-8:])
        waiting = [each for each in world.tasks().live.values() if each.phase is Phase.APPLY_PENDING]
        verb = rng.choice(
            ("cancel", "confirm", "confirm", "discard", "retry", "reprioritise", "pause", "resume", "resume", "resume")
        )
        body: dict = {"task": task}
        if verb in ("confirm", "discard") and waiting:
            record = rng.choice(waiting)
            body = {"task": record.id}
            if rng.random() < 0.7:
                body["attempt"] = record.plan_attempt
        elif verb == "reprioritise":
            body["priority"] = rng.randrange(1, 11)
        elif verb in ("pause", "resume"):
            body = {"queue": "prod"} if rng.random() < 0.5 else {}
        body["id"] = world.new_id()
        world.command(verb, **body)
        self._sent = [*self._sent, (verb, body)][-REMEMBERED_COMMANDS_MAX:]

    def _repeat_command(self) -> None:
        if self._sent:
            verb, body = self._rng.choice(self._sent)
            self._world.command(verb, **body)

    def _crash(self) -> None:
        world, rng = self._world, self._rng
        number = rng.randrange(len(world.instances))
        each = world.instances[number]
        if rng.random() < 0.5:
            world.snapshots[each.writer] = each.snapshot()
        world.instances[number] = world.start(each.writer)

    def _campaign(self) -> None:
        each = self._rng.choice(self._world.instances)
        if each.in_flight is None and not each.leads:
            each.campaign()

    def _agent_fault(self) -> None:
        agent, rng = self._agent(), self._rng
        match rng.randrange(4):
            case 0:
                agent.is_up = False  # away, or dead: its processes go on until it is started again
            case 1:
                agent.is_up = True  # only the network was away
            case 2:
                agent.restart(self._world.now, keeps_journal=rng.random() < 0.8)
            case _:
                agent.is_leaving = rng.random() < 0.5
