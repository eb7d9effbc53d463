"""Locks that processes hold as long as they live, asked for by others who wait for their end."""

import fcntl


def is_free(lock: int) -> bool:
    """Whether nobody holds the lock of this open file; afterwards we hold a share of it until the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
