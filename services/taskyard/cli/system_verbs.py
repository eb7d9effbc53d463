"""Commanding queues, pools and workers: `queue …`, `pool …`, `worker drain`."""

from typing import Annotated, Any

import typer

from taskyard.cli.client import segment
from taskyard.cli.errors import WrongUsage
from taskyard.cli.session import AsJson, ConnectionFile, PoolOption, ReasonOption, session
from taskyard.contracts.values import POOL_DEFAULT

queue_app = typer.Typer(no_args_is_help=True, help="Pause, resume, lock, unlock or configure a queue (admins).")
pool_app = typer.Typer(no_args_is_help=True, help="Pause, resume or configure a pool (admins).")
worker_app = typer.Typer(no_args_is_help=True, help="Drain a worker (admins).")

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="The pool.")]


@queue_app.command("pause")
def queue_pause(
    queue: QueueArgument,
    pool: PoolOption = POOL_DEFAULT,
    reason: ReasonOption = "",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Schedule nothing more of the queue; what runs goes on."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/queues/{segment(pool)}/pause", {"queue": queue, "reason": reason or None}, f"{queue} is paused")


@queue_app.command("resume")
def queue_resume(
    queue: QueueArgument,
    pool: PoolOption = POOL_DEFAULT,
    reason: ReasonOption = "",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """End the pause of the queue."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/queues/{segment(pool)}/resume", {"queue": queue, "reason": reason or None}, f"{queue} goes on")


@queue_app.command("lock")
def queue_lock(
    queue: QueueArgument,
    pool: PoolOption = POOL_DEFAULT,
    reason: ReasonOption = "",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Lock the queue in your name, with a reason."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/queues/{segment(pool)}/lock", {"queue": queue, "reason": reason or None}, f"{queue} is locked")


@queue_app.command("unlock")
def queue_unlock(
    queue: QueueArgument,
    pool: PoolOption = POOL_DEFAULT,
    reason: ReasonOption = "",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """End the lock of the queue."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/queues/{segment(pool)}/unlock", {"queue": queue, "reason": reason or None}, f"{queue} is unlocked")


@queue_app.command("configure")
def queue_configure(
    queue: QueueArgument,
    max_running: Annotated[int, typer.Option(min=0, help="How many may run at a time; 0 lifts the limit.")],
    pool: PoolOption = POOL_DEFAULT,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Change the settings of a queue."""
    with session(connection, as_json=as_json) as s:
        body = {"queue": queue, "max_running": max_running}
        s.command(f"/queues/{segment(pool)}/configure", body, f"{queue} is configured")


@pool_app.command("pause")
def pool_pause(
    pool: PoolArgument, reason: ReasonOption = "", connection: ConnectionFile = None, as_json: AsJson = False
) -> None:
    """Schedule nothing more of the pool; what runs goes on."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/pools/{segment(pool)}/pause", {"reason": reason or None}, f"{pool} is paused")


@pool_app.command("resume")
def pool_resume(
    pool: PoolArgument, reason: ReasonOption = "", connection: ConnectionFile = None, as_json: AsJson = False
) -> None:
    """End the pause of the pool; queues that were paused by themselves stay so."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/pools/{segment(pool)}/resume", {"reason": reason or None}, f"{pool} goes on")


@pool_app.command("configure")
def pool_configure(
    pool: PoolArgument,
    *,
    max_waiting: Annotated[int | None, typer.Option(min=0, help="How many tasks may wait.")] = None,
    approval_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long a plan waits for its answer.")
    ] = None,
    placement: Annotated[str | None, typer.Option(help="first-fit or keep-slot-0.")] = None,
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Change the settings of a pool; what is left out stays."""
    body: dict[str, Any] = {
        "max_waiting": max_waiting,
        "approval_timeout_seconds": approval_timeout,
        "placement": placement,
    }
    if all(value is None for value in body.values()):
        raise WrongUsage("name at least one setting to change")
    with session(connection, as_json=as_json) as s:
        s.command(f"/pools/{segment(pool)}/configure", body, f"{pool} is configured")


@worker_app.command("drain")
def worker_drain(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The worker.")],
    reason: ReasonOption = "",
    connection: ConnectionFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a worker finish what it has and give it nothing new."""
    with session(connection, as_json=as_json) as s:
        s.command(f"/workers/{segment(worker)}/drain", {"reason": reason or None}, f"{worker} drains")
