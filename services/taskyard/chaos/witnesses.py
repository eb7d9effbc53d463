"""Witnesses outside Taskyard: a line in a file each time that a command or an apply really runs, and when it is over."""

import json
from dataclasses import replace
from pathlib import Path

from taskyard.judge.evidence import Ran
from taskyard.private_files import make_file, make_folder, write_private

BEGIN, END = "begin", "end"

# The agent names task and attempt in the environment of what it runs, and a folder of its own tells which agent that is.
# A line this short is written at once.
_LINE = 'echo "{what} {kind} $TASKYARD_TASK $TASKYARD_ATTEMPT ${folder} $(date +%s.%N)" >> {file}'


class Witnesses:
    """The file of all lines. Scripts and configurations are made to write to it."""

    def __init__(self, folder: Path, worker_directories: dict[str, Path]) -> None:
        self._file = folder / "witnesses"
        make_file(self._file)
        self._folders = [(str(directory) + "/", name) for name, directory in worker_directories.items()]

    def script(self, work: str) -> str:
        """A script that does `work` between two witnesses; it ends as `work` does."""
        begin, end = (self._line(what, "command", "PWD") for what in (BEGIN, END))
        return f"{begin}\n({work})\nstatus=$?\n{end}\nexit $status"

    def configuration(self, folder: Path, *, work: str = "") -> Path:
        """A Terraform configuration whose apply leaves a witness; every plan finds something to do.

        An apply that does `work` tells its end too.
        """
        make_folder(folder)
        begin, end = (self._line(what, "plan_and_apply", "TF_DATA_DIR") for what in (BEGIN, END))
        command = json.dumps(f"{begin}; {work}; {end}" if work else begin)
        write_private(
            folder / "main.tf",
            (
                'variable "run" {}\n'
                'resource "terraform_data" "it" {\n'
                "  triggers_replace = var.run\n"
                f'  provisioner "local-exec" {{ command = {command} }}\n'
                "}\n"
            ).encode(),
        )
        return folder

    def also(self, name: str, directory: Path) -> None:
        """Another folder of a worker."""
        self._folders.append((str(directory) + "/", name))

    def begun(self, task: str) -> Ran | None:
        """The first run of a task, if it was seen to begin by now."""
        return next((run for run in self.runs() if run.task == task), None)

    def runs(self) -> list[Ran]:
        """What really ran. An end that nobody wrote means that the process was killed, at an unknown time."""
        runs: dict[tuple[str, int], list[Ran]] = {}
        for line in self._file.read_text(encoding="utf-8").splitlines():
            what, kind, task, attempt, where, at = line.split(" ")
            seconds = float(at)
            same = runs.setdefault((task, int(attempt)), [])
            if what == END and same:
                same[-1] = replace(same[-1], ended=seconds)
                continue
            same.append(
                Ran(
                    host=self._worker_of(where),
                    slot=None,
                    position=None,
                    task=task,
                    attempt=int(attempt),
                    kind=kind,
                    apply=kind != "command",
                    began=seconds,
                    ended=seconds,
                )
            )
        return [run for same in runs.values() for run in same]

    def _line(self, what: str, kind: str, folder: str) -> str:
        return _LINE.format(what=what, kind=kind, folder=folder, file=self._file)

    def _worker_of(self, where: str) -> str:
        return next((name for folder, name in self._folders if where.startswith(folder)), where)
