"""Commanding queues, pools and workers: `queue …`, `pool …`, `worker drain`."""

from collections.abc import Callable
from typing import Annotated

import typer

from taskyard.cli.client import segment
from taskyard.cli.commanding import Ask, verb
from taskyard.cli.errors import WrongUsage
from taskyard.cli.session import PoolOption, ReasonOption
from taskyard.contracts.values import POOL_DEFAULT

queue_app = typer.Typer(no_args_is_help=True, help="Pause, resume, lock, unlock or configure a queue (admins).")
pool_app = typer.Typer(no_args_is_help=True, help="Pause, resume or configure a pool (admins).")
worker_app = typer.Typer(no_args_is_help=True, help="Drain a worker (admins).")

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="The pool.")]
CreateOption = Annotated[bool, typer.Option("--create", help="Also a queue that nobody has named yet.")]
WorkerArgument = Annotated[str, typer.Argument(metavar="WORKER", help="The worker.")]

_OF_A_QUEUE = (
    ("pause", "is paused", "Schedule nothing more of the queue; what runs goes on."),
    ("resume", "goes on", "End the pause of the queue."),
    ("lock", "is locked", "Lock the queue in your name, with a reason."),
    ("unlock", "is unlocked", "End the lock of the queue."),
)
_OF_A_POOL = (
    ("pause", "is paused", "Schedule nothing more of the pool; what runs goes on."),
    ("resume", "goes on", "End the pause of the pool; queues that were paused by themselves stay so."),
)


def _queue_verb(name: str, done: str) -> Callable[..., Ask]:
    def ask(
        queue: QueueArgument,
        pool: PoolOption = POOL_DEFAULT,
        reason: ReasonOption = "",
        *,
        create: CreateOption = False,
    ) -> Ask:
        body = {"queue": queue, "reason": reason or None, "create": create or None}
        return Ask(f"/queues/{segment(pool)}/{name}", body, f"{queue} {done}")

    return ask


def _pool_verb(name: str, done: str) -> Callable[..., Ask]:
    def ask(pool: PoolArgument, reason: ReasonOption = "") -> Ask:
        return Ask(f"/pools/{segment(pool)}/{name}", {"reason": reason or None}, f"{pool} {done}")

    return ask


for _name, _done, _help in _OF_A_QUEUE:
    queue_app.command(_name, help=_help)(verb(_queue_verb(_name, _done)))
for _name, _done, _help in _OF_A_POOL:
    pool_app.command(_name, help=_help)(verb(_pool_verb(_name, _done)))


@queue_app.command("configure")
@verb
def queue_configure(
    queue: QueueArgument,
    max_running: Annotated[int, typer.Option(min=0, help="How many may run at a time; 0 lifts the limit.")],
    pool: PoolOption = POOL_DEFAULT,
    *,
    create: CreateOption = False,
) -> Ask:
    """Change the settings of a queue."""
    body = {"queue": queue, "max_running": max_running, "create": create or None}
    return Ask(f"/queues/{segment(pool)}/configure", body, f"{queue} is configured")


@pool_app.command("configure")
@verb
def pool_configure(
    pool: PoolArgument,
    max_waiting: Annotated[int | None, typer.Option(min=0, help="How many tasks may wait.")] = None,
    approval_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long a plan waits for its answer.")
    ] = None,
    placement: Annotated[str | None, typer.Option(help="first-fit or keep-slot-0.")] = None,
) -> Ask:
    """Change the settings of a pool; what is left out stays."""
    body = {"max_waiting": max_waiting, "approval_timeout_seconds": approval_timeout, "placement": placement}
    if all(value is None for value in body.values()):
        raise WrongUsage("name at least one setting to change")
    return Ask(f"/pools/{segment(pool)}/configure", body, f"{pool} is configured")


@worker_app.command("drain")
@verb
def worker_drain(worker: WorkerArgument, reason: ReasonOption = "") -> Ask:
    """Let a worker finish what it has and give it nothing new."""
    return Ask(f"/workers/{segment(worker)}/drain", {"reason": reason or None}, f"{worker} drains")
