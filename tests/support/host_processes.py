"""Processes of this host, as tests ask for them."""

from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether the process lives: one that nobody has waited for yet does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"
