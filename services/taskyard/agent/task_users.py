"""Whom tasks run as: the agent's own user, or other ones where the agent is root. Found once, when the agent starts."""

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

from taskyard.agent.errors import TaskUserError
from taskyard.agent.supervisor.protocol import User

WORD_ROOT = "the worker runs tasks as root, and its configuration does not allow that: set run_as, or allow_root"


class TaskUser(User, frozen=True, kw_only=True):
    """A user that tasks run as, and what a login would tell them of it."""

    name: str
    home: str

    def owns(self, *paths: Path) -> None:
        """Give files and folders that are ours to it."""
        for path in paths:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


class TaskUsers:
    """The user of each slot. `run_as` names one for all slots, one for each of them, or none: then tasks run as we do.

    Raises `TaskUserError`: it cannot be so.
    """

    def __init__(self, run_as: Sequence[str], *, slots: int, allow_root: bool) -> None:
        if len(run_as) not in (0, 1, slots):
            raise TaskUserError(f"run_as names {len(run_as)} users: one for all slots or one for each of {slots}")
        found = [_find(text) for text in run_as]
        if found and os.geteuid() != 0:
            raise TaskUserError("run_as is set, and only root may run tasks as another user")
        self._users = found * slots if len(found) == 1 else found
        uids = [one.uid for one in found] or [os.geteuid()]
        self.may_run_code = allow_root or 0 not in uids
        """Whether kinds that run what users write may run here."""

    def of_slot(self, slot: int) -> TaskUser | None:
        """The user of a slot, None for ours; one that there is no more of an earlier run has the last one's."""
        return self._users[min(slot, len(self._users) - 1)] if self._users else None

    def open_way(self, directory: Path) -> None:
        """Let them walk through the agent's folder, and see that they can reach it. What is in it has its own modes.

        Raises:
            TaskUserError: they cannot, since a folder above is closed to them.
        """
        if not self._users:
            return
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o011)
        for user in self._users:
            for folder in (directory, *directory.resolve().parents):
                if not _may_pass(user, folder.stat()):
                    raise TaskUserError(f"{folder} keeps out {user.name}, as whom tasks are to run: chmod o+x {folder}")


def _find(text: str) -> TaskUser:
    """The user of this name or number. One of a number need not be in the list of users."""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        if not text.isdecimal():
            raise TaskUserError(f"run_as: there is no user {text} on this host") from None
        return TaskUser(uid=int(text), gid=int(text), groups=(), name=text, home="/")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return TaskUser(uid=entry.pw_uid, gid=entry.pw_gid, groups=groups, name=entry.pw_name, home=entry.pw_dir)


def _may_pass(user: TaskUser, folder: os.stat_result) -> bool:
    if user.uid == 0:
        return True
    if folder.st_uid == user.uid:
        return bool(folder.st_mode & stat.S_IXUSR)
    if folder.st_gid in (user.gid, *user.groups):
        return bool(folder.st_mode & stat.S_IXGRP)
    return bool(folder.st_mode & stat.S_IXOTH)
