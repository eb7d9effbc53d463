"""What ends a simulation early."""


class SimulationError(Exception):
    """The root of the errors of this package."""


class UnknownDefect(SimulationError):
    """There is no defect of that name."""
