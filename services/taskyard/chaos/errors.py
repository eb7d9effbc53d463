"""Why a run of the chaos suite came to no verdict."""


class ChaosError(Exception):
    """The run could not be finished; the message is for the person at the terminal."""


class SystemNotStarted(ChaosError):
    """`taskyard dev` did not become ready; its logs in the folder say why."""


class NotBroken(ChaosError):
    """A fault had no effect, so what came of it would prove nothing."""


class NotHealed(ChaosError):
    """After a fault was over the system did not go on in time."""


class NothingToJudge(ChaosError):
    """The log or the read model could not be read after everything was healed."""
