"""A rebuild as a process of its own, that tells each step of its progress: for tests that kill it."""

import asyncio
import sys
from pathlib import Path

from taskyard.service import linked
from taskyard.settings import Settings, load
from taskyard.state_projector import rebuild as rebuild_module
from taskyard.state_projector.rebuild import Progress, rebuild

WRITE_EVENTS = 100
"""Small, so that there are many moments to die at."""


def tell(progress: Progress) -> None:
    print(progress.phase, progress.sequence, flush=True)


async def main(path: Path) -> None:
    rebuild_module.WRITE_EVENTS = WRITE_EVENTS
    settings = load(Settings, path, {})
    async with linked("rebuild", settings) as links:
        report = await rebuild(links.log, settings.postgres_dsn, verify_only=False, tell=tell)
        print("equal" if report.is_equal else "differs", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
