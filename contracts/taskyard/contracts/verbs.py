"""The table of verbs: what each asks for, of what, in which form, and who may ask it.

Routes, the command line, the OpenAPI and AsyncAPI documents and the checks of every door follow from it. What a verb becomes
is decided in the scheduler, which does not start when its decisions are not those of this table.
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

from taskyard.contracts.commands import (
    ApprovalCommand,
    Command,
    ConfigurePoolCommand,
    ConfigureQueueCommand,
    DrainCommand,
    LockCommand,
    QueueCommand,
    ReprioritiseCommand,
    TaskBatch,
    TaskCommand,
    TaskSpec,
)
from taskyard.contracts.values import Role


class Target(StrEnum):
    """What a verb is about; the value names the field of its body that says which one."""

    TASK = "task"
    POOL = "pool"
    QUEUE = "queue"
    WORKER = "worker"


class Verb(Struct, frozen=True, kw_only=True):
    """One row.

    `bodies` are the forms of its body; `targets` what it may be about, none for what makes something new; `role` is the least
    one that may use it; `word` is the end of its address, where that is not its name. `summary` says what it does and `done`
    that it was done; `{target}` stands for what the verb is about, and other names in braces are fields of the body.
    `needs_reason`: an empty reason is refused; `needs_change`: a body that says nothing is of no use.
    """

    name: str
    bodies: tuple[type[Command], ...]
    targets: tuple[Target, ...] = (Target.TASK,)
    role: Role = Role.ADMIN
    word: str = ""
    summary: str
    done: str
    needs_reason: bool = False
    needs_change: bool = False

    def __post_init__(self) -> None:
        """The word is the name unless it is given."""
        if not self.word:
            msgspec.structs.force_setattr(self, "word", self.name)

    @property
    def body(self) -> type[Command]:
        """The form of its body, where there is one."""
        return self.bodies[0]


SUBMIT = "submit"
VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            name=SUBMIT,
            bodies=(TaskSpec, TaskBatch),
            targets=(),
            role=Role.OPERATOR,
            summary="Submit one task or many.",
            done="submitted",
        ),
        Verb(
            name="cancel",
            bodies=(TaskCommand,),
            role=Role.OPERATOR,
            summary="Cancel a task; one that runs is stopped.",
            done="cancel was taken",
        ),
        Verb(
            name="force-stop",
            bodies=(TaskCommand,),
            needs_reason=True,
            summary="End a task at once, whatever its process does; its slot and workspace are freed on your word.",
            done="stopped by force",
        ),
        Verb(
            name="release",
            bodies=(TaskCommand,),
            needs_reason=True,
            summary="Give up a held apply whose host is gone for good: it fails; its slot and workspace are freed on your word.",
            done="released",
        ),
        Verb(
            name="retry",
            bodies=(TaskCommand,),
            role=Role.OPERATOR,
            summary="Run a task that ended badly again, as a new task.",
            done="retry was taken",
        ),
        Verb(
            name="confirm",
            bodies=(ApprovalCommand,),
            role=Role.OPERATOR,
            summary="Approve the plan of a task, so that it is applied.",
            done="confirmed",
        ),
        Verb(
            name="discard",
            bodies=(ApprovalCommand,),
            role=Role.OPERATOR,
            summary="Reject the plan of a task, so that it is not applied.",
            done="discarded",
        ),
        Verb(
            name="reprioritise",
            bodies=(ReprioritiseCommand,),
            role=Role.OPERATOR,
            summary="Give a waiting task another priority.",
            done="priority is {priority}",
        ),
        Verb(
            name="configure-pool",
            bodies=(ConfigurePoolCommand,),
            targets=(Target.POOL,),
            word="configure",
            needs_change=True,
            summary="Change the settings of a pool; what is left out stays.",
            done="{target} is configured",
        ),
        Verb(
            name="configure-queue",
            bodies=(ConfigureQueueCommand,),
            targets=(Target.QUEUE,),
            word="configure",
            needs_change=True,
            summary="Change the settings of a queue; what is left out stays.",
            done="{target} is configured",
        ),
        Verb(
            name="pause",
            bodies=(QueueCommand,),
            targets=(Target.POOL, Target.QUEUE),
            summary="Schedule nothing more from a {target}; running tasks continue.",
            done="{target} is paused",
        ),
        Verb(
            name="resume",
            bodies=(QueueCommand,),
            targets=(Target.POOL, Target.QUEUE),
            summary="Resume a paused {target}. Queues that were paused individually stay paused when their pool is resumed.",
            done="{target} is resumed",
        ),
        Verb(
            name="lock",
            bodies=(LockCommand,),
            targets=(Target.QUEUE,),
            summary="Lock a queue in your name, with a reason.",
            done="{target} is locked",
        ),
        Verb(
            name="unlock",
            bodies=(LockCommand,),
            targets=(Target.QUEUE,),
            summary="End the lock of a queue.",
            done="{target} is unlocked",
        ),
        Verb(
            name="drain",
            bodies=(DrainCommand,),
            targets=(Target.WORKER,),
            summary="Let a worker finish the tasks that it has and give it no new ones.",
            done="{target} is draining",
        ),
    )
}
"""All verbs, by their names."""


def may_command(role: Role, verb: str) -> bool:
    """Whether a principal of this role may use the verb at all; of one that is unknown an admin may learn so."""
    if role is Role.ADMIN:
        return True
    return role is Role.OPERATOR and verb in VERBS and VERBS[verb].role is Role.OPERATOR
