"""`plan` and `plan_and_apply`: Terraform (or OpenTofu) runs in the configuration's own directory.

Every task has a folder of its own for `TF_DATA_DIR` and the plan file, so tasks of one directory do not meet there.
They do meet at `.terraform.lock.hcl`, which `init` writes into the configuration: a lock on the directory itself lets
one `init` run at a time, also across the agents of a host.
"""

import fcntl
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from taskyard.agent.errors import AttemptStoppedError, ProgramNotFoundError
from taskyard.agent.executors import (
    RESULT_BYTES_MAX,
    Completed,
    Context,
    Head,
    Outcome,
    PlanKept,
    Unsuccessful,
    describe_exit,
)
from taskyard.agent.executors.directories import Roots, make_passable
from taskyard.agent.executors.environment import TERRAFORM_INHERITED, inherited
from taskyard.agent.executors.terraform_text import count_changes, count_done, first_error, read_outputs
from taskyard.contracts.agent_protocol import Assignment
from taskyard.contracts.events import Changes, TaskError
from taskyard.contracts.kinds import decode_input
from taskyard.contracts.kinds.terraform import TerraformInput
from taskyard.contracts.lifecycle import PLAN_MISSING
from taskyard.contracts.nesting import nests_too_deeply
from taskyard.contracts.readable import UNREADABLE
from taskyard.contracts.values import TaskId, is_uuid7
from taskyard.private_files import make_folder, write_private

PLAN = "plan"
PLAN_AND_APPLY = "plan_and_apply"
KINDS = (PLAN, PLAN_AND_APPLY)
KEPT_DAYS_MAX = 14
"""Folders of tasks that nobody spoke of for so long are removed when the agent starts."""
PLAN_JSON_BYTES_MAX = 64 << 20
OUTPUTS_BYTES_MAX = 4 << 20
ERRORS_BYTES_MAX = 64 * 1024
INIT_LOCK_POLL_SECONDS = 0.1
PROGRESS_INITIALISED = 10
PROGRESS_PLANNED = 90


class _StepFailedError(Exception):
    def __init__(self, error: TaskError, exit_code: int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One attempt: what to run and where."""

    context: Context
    configuration: Path
    folder: Path
    env: Mapping[str, str]

    @property
    def own(self) -> Path:
        """What Terraform writes. Beside it lies what the agent writes, where no link of Terraform's can lead it astray."""
        return self.folder / "own"

    def plan_file(self, attempt: int) -> Path:
        return self.own / f"{attempt}.tfplan"

    def changes_file(self, attempt: int) -> Path:
        return self.folder / f"{attempt}.changes.json"


def find_program() -> list[str] | None:
    """Terraform or OpenTofu on this host, None if there is neither."""
    found = shutil.which("terraform") or shutil.which("tofu")
    return [found] if found else None


class Terraform:
    """Runs the attempts of both kinds, with folders of tasks below `directory`."""

    kinds: tuple[str, ...] = KINDS
    stop_signal = signal.SIGINT  # TERM would kill the providers beside Terraform in the middle of a call

    def __init__(self, program: Sequence[str], directory: Path, *, roots: Roots, environment: Sequence[str]) -> None:
        """`environment` names what Terraform sees of the agent's besides what it always does."""
        self._program = list(program)
        self._directory = directory.resolve()
        self._roots = roots
        self._environment = (*TERRAFORM_INHERITED, *environment)
        make_passable(directory)
        self._sweep(time.time() - KEPT_DAYS_MAX * 86_400)

    async def run(self, assignment: Assignment, context: Context) -> Outcome:
        """Plan, or apply the plan that was shown. Failures are final: the same configuration fails again."""
        what: TerraformInput = decode_input(assignment.kind, assignment.input)
        configuration = self._roots.find(what.directory)
        if configuration is None:
            return _not_allowed(what.directory, self._roots)
        job = self._job(assignment, configuration, context)
        try:
            outcome = await (
                self._apply(job, assignment) if assignment.apply else self._plan(job, assignment, what.variables)
            )
        except ProgramNotFoundError as error:
            outcome = Unsuccessful(error=TaskError(code="not_found", message=str(error), retryable=False))
        except _StepFailedError as failure:
            result = {"exit_code": failure.exit_code} if failure.exit_code is not None else None
            outcome = Unsuccessful(error=failure.error, result=msgspec.Raw(msgspec.json.encode(result)))
        except Exception:
            self.forget(assignment.task)
            raise
        # Not in `finally`: an agent that goes leaves Terraform running, which needs its folder.
        if not isinstance(outcome, PlanKept):
            self.forget(assignment.task)
        return outcome

    def forget(self, task: TaskId) -> None:
        """Remove the folder of a task."""
        if is_uuid7(task):  # the name becomes a path
            shutil.rmtree(self._directory / task, ignore_errors=True)

    async def _plan(self, job: _Job, assignment: Assignment, variables: dict[str, Any]) -> Outcome:
        if not job.context.is_resumed:
            self.forget(assignment.task)  # of an earlier attempt
        make_passable(job.folder)
        make_folder(job.own)
        if job.context.user is not None:
            job.context.user.owns(job.own)
        if not job.configuration.is_dir():
            raise ProgramNotFoundError(f"there is no directory {job.configuration} on this worker")
        async with _only_one_init(job.configuration, job.context):
            await self._step(job, ["init", "-input=false"])
        job.context.progress(PROGRESS_INITIALISED, "initialised")
        plan_file = job.plan_file(assignment.attempt)
        with _variables_file(job, variables) as arguments:
            await self._step(job, ["plan", "-input=false", "-lock=false", f"-out={plan_file}", *arguments])
        job.context.progress(PROGRESS_PLANNED, "planned")
        shown = await self._read(job, ["show", "-json", str(plan_file)], PLAN_JSON_BYTES_MAX)
        changes = count_changes(shown)
        if assignment.kind == PLAN:
            return Completed(result=_result(changes, {}))
        write_private(job.changes_file(assignment.attempt), msgspec.json.encode(changes))
        return PlanKept(changes=changes)

    async def _apply(self, job: _Job, assignment: Assignment) -> Outcome:
        planned_in = assignment.plan_attempt if assignment.plan_attempt is not None else assignment.attempt
        plan_file = job.plan_file(planned_in)
        try:
            changes = msgspec.json.decode(job.changes_file(planned_in).read_bytes(), type=Changes)
        except (OSError, msgspec.DecodeError):
            changes = None
        if changes is None or not plan_file.is_file():
            message = f"the plan of attempt {planned_in} is not on this worker"
            return Unsuccessful(error=TaskError(code=PLAN_MISSING, message=message, retryable=False))
        tap = _count_progress(job.context, changes.add + changes.change + changes.destroy)
        await self._step(job, ["apply", "-input=false", str(plan_file)], tap)
        outputs: dict[str, Any] | None = None
        # From here on the apply is done, whatever becomes of the question for its outputs.
        with suppress(_StepFailedError, AttemptStoppedError, *UNREADABLE, OSError):
            outputs = read_outputs(await self._read(job, ["output", "-json"], OUTPUTS_BYTES_MAX))
        return Completed(result=_result(changes, outputs))

    async def _step(self, job: _Job, arguments: list[str], tap: Callable[[str], None] | None = None) -> None:
        """One shown run of Terraform that must end with 0."""
        errors = Head(ERRORS_BYTES_MAX)

        def take(stream: str, data: bytes) -> None:
            if stream == "stderr":
                errors.add(data)
            elif tap is not None:
                tap(data.decode(errors="replace"))

        await self._run(job, [*arguments[:1], "-no-color", *arguments[1:]], errors, take)

    async def _read(self, job: _Job, arguments: list[str], bytes_max: int) -> bytes:
        """What a run of Terraform says, kept from the output: it may hold secrets."""
        errors, found = Head(ERRORS_BYTES_MAX), Head(bytes_max)

        def take(stream: str, data: bytes) -> None:
            (errors if stream == "stderr" else found).add(data)

        await self._run(job, arguments, errors, take, bytes_max)
        if found.is_cut:
            message = f"terraform {arguments[0]} said more than {bytes_max} bytes"
            raise _StepFailedError(TaskError(code="too_large", message=message, retryable=False))
        return bytes(found.data)

    async def _run(
        self,
        job: _Job,
        arguments: list[str],
        errors: Head,
        take: Callable[[str, bytes], None],
        hidden_bytes_max: int | None = None,
    ) -> None:
        exit_code = await job.context.run(
            [*self._program, *arguments],
            step=arguments[0],
            cwd=job.configuration,
            env=job.env,
            tap=take,
            hidden_bytes_max=hidden_bytes_max,
        )
        if exit_code == 0:
            return
        message = describe_exit(f"terraform {arguments[0]}", exit_code)
        if details := first_error(errors.data.decode(errors="replace")):
            message += f": {details}"
        raise _StepFailedError(TaskError(code="exit_status", message=message, retryable=False), exit_code)

    def _job(self, assignment: Assignment, configuration: Path, context: Context) -> _Job:
        folder = self._directory / assignment.task
        env = inherited(context.user, self._environment) | {
            "TF_DATA_DIR": str(folder / "own" / "data"),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }
        if assignment.traceparent:
            env["TRACEPARENT"] = assignment.traceparent
        return _Job(context=context, configuration=configuration, folder=folder, env=env)

    def _sweep(self, before_unix_seconds: float) -> None:
        for folder in self._directory.iterdir():
            with suppress(OSError):  # one that cannot be looked at is no reason not to work
                if is_uuid7(folder.name) and folder.stat().st_mtime < before_unix_seconds:
                    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _only_one_init(configuration: Path, context: Context) -> AsyncIterator[None]:
    """Hold the lock of a configuration's directory; its release needs nobody, even after a crash."""
    descriptor = os.open(configuration, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await context.pause(INIT_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _variables_file(job: _Job, variables: dict[str, Any]) -> Iterator[list[str]]:
    """A file with the variables, readable by its user only, and only while Terraform plans: values may be secrets.

    Gives the arguments that name it.
    """
    if not variables:
        yield []
        return
    path = job.folder / "variables.tfvars.json"
    try:
        write_private(path, msgspec.json.encode(variables))
        if job.context.user is not None:
            job.context.user.owns(path)
        yield [f"-var-file={path}"]
    finally:
        path.unlink(missing_ok=True)


def _count_progress(context: Context, total: int) -> Callable[[str], None]:
    """Turn the lines of an apply into progress: resources done of those to do."""
    done = 0

    def tap(text: str) -> None:
        nonlocal done
        done += count_done(text)
        if done and total:
            context.progress(min(99, 100 * done // total), f"{min(done, total)} of {total} done")

    return tap


def _not_allowed(directory: str, roots: Roots) -> Unsuccessful:
    message = f"{directory} does not lie below a root of this worker (terraform_roots: {roots})"
    return Unsuccessful(error=TaskError(code="directory_not_allowed", message=message, retryable=False))


def _result(changes: Changes, outputs: dict[str, Any] | None) -> msgspec.Raw:
    """What is told of the run. Outputs that are not known (None), or that no event takes, cost nothing else of it."""
    if outputs is not None:
        encoded = msgspec.json.encode({"exit_code": 0, "changes": changes, "outputs": outputs})
        if len(encoded) <= RESULT_BYTES_MAX and not nests_too_deeply(encoded):
            return msgspec.Raw(encoded)
    told = {"exit_code": 0, "changes": changes, "outputs": {}, "outputs_omitted": True}
    return msgspec.Raw(msgspec.json.encode(told))
