"""Makes the streams and buckets of a deployment, or checks those that are there: `python -m taskyard.setup --config FILE`.

It runs before the services, at the first start and at each upgrade, as the only program whose users may make and change
streams; services wait until it has.
"""

import asyncio

import structlog

from taskyard.service import linked, main
from taskyard.settings import Settings


async def run(settings: Settings, _: asyncio.Event) -> None:
    """Make or check everything, once."""
    async with linked("setup", settings):
        structlog.get_logger().info("streams are as they must be")


if __name__ == "__main__":
    main(run)
