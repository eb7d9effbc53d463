"""What can go wrong in an agent and is handled apart."""

from taskyard.agent.stopping import StopRequest

REPLACED_STATUS = 3
"""The exit status of an agent whose place another one took: whoever starts agents again should leave it."""


class JournalError(Exception):
    """The journal cannot be read or written (disk full, another format). The agent ends: it cannot keep promises."""


class DirectoryInUseError(Exception):
    """Another agent process works in the same directory. Stop it, or give each agent a directory of its own."""


class ReplacedError(Exception):
    """Another agent of this name runs on another host or in another folder, and the log counts that one. Give each its own
    name; do not start this one again as long as the other is there.
    """


class ModuleWithoutTasksError(Exception):
    """A module that the settings name is not there, or holds no function with `@task`."""


class TaskUserError(Exception):
    """Tasks cannot run as the users that the settings name. Mend the settings, or what keeps those users out."""


class NotStoredError(Exception):
    """JetStream did not acknowledge a message in time, or refused it. It may have been stored all the same."""


class ProgramNotFoundError(Exception):
    """The program of an attempt is not on this host, or its directory is not."""


class SupervisorLostError(Exception):
    """The supervisor is gone, and with it what it ran. The attempts that it had are lost."""


class AttemptStoppedError(Exception):
    """The attempt was told to stop, and its process group is dead."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request.message)
        self.request = request
