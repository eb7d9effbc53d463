"""The metrics of every machine loop, by the label `service`."""

from collections.abc import Callable
from typing import Any

from taskyard.machine.core import Role
from taskyard.machine.loop import MachineLoop
from taskyard.telemetry.metrics import MetricsScope, Read


def show_loop(metrics: MetricsScope, loop: MachineLoop[Any, Any]) -> None:
    """Show what a loop has done and where it stands."""
    core = loop.core

    def labelled(value: Callable[[], float]) -> Read:
        labels = {"service": core.machine.writer}
        return lambda: ((labels, value()),)

    metrics.counter(
        "taskyard_commits_appended", "Commits that this instance appended.", labelled(lambda: loop.commits_appended)
    )
    metrics.counter(
        "taskyard_commits_folded", "Commits of all writers that were folded.", labelled(lambda: core.commits_folded)
    )
    metrics.counter(
        "taskyard_events_folded", "Events of all writers that were folded.", labelled(lambda: core.events_folded)
    )
    metrics.counter(
        "taskyard_snapshots_saved", "Snapshots that this instance saved.", labelled(lambda: loop.snapshots.saved)
    )
    metrics.counter(
        "taskyard_inputs_failed",
        "Commands, reports and the like that could not be decided on for an error, and stood aside.",
        labelled(lambda: loop.inputs_failed),
    )
    metrics.counter(
        "taskyard_effects_failed",
        "Messages to agents and doors that could not be made or sent for an error, and stood aside.",
        labelled(lambda: loop.effects_failed),
    )
    metrics.gauge("taskyard_inputs_waiting", "Inputs that wait for a decision.", labelled(lambda: core.inputs_waiting))
    metrics.gauge("taskyard_leader", "1 for the instance that decides.", labelled(lambda: core.role is Role.LEADER))
    metrics.gauge("taskyard_epoch", "The writer's epoch as folded here.", labelled(lambda: core.epoch))
    metrics.gauge(
        "taskyard_folded_sequence", "Sequence of the last commit that was folded.", labelled(lambda: core.folded)
    )
