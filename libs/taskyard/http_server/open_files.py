"""How many files the process may open, of which each connection is one."""

import resource

import structlog

FILES_WANTED = 65_536
FILES_RESERVED = 256
"""What is left to everything but connections: the servers, the log, programs, and connections that are being refused."""

_logger = structlog.get_logger()


def allow_open_files() -> int:
    """Raise the limit of this process as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return FILES_WANTED if soft == resource.RLIM_INFINITY else soft


def fitting_connections(wanted: int, files: int) -> int:
    """How many connections there may be where so many files may be open; with fewer than wanted it is said."""
    fitting = max(1, min(wanted, files - FILES_RESERVED))
    if fitting < wanted:
        _logger.warning(
            "takes fewer connections, since the limit of open files is low", connections=fitting, files=files
        )
    return fitting
