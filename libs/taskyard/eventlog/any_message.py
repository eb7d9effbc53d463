"""nats-py made to survive whatever a stranger sends.

nats-server passes on subjects and headers as they were sent: bytes that are no UTF-8, control characters, headers that
are none. On such a message nats-py's read loop ends and its client says that it is connected for ever after; of a stored
message that is so again after each restart. Worse, nats-py takes more characters for blanks than the server does: a
subject with a form feed inside is read as two arguments, and the message goes to a subscription that its sender chose.
And a flood that holds up the server's answer to a ping until nobody waits for it any more ends the loop as well.
"""

import asyncio
import re
from typing import Any

from nats.aio.client import Client
from nats.protocol import parser

# A server writes one blank between arguments, and no subject holds one. Its own messages may have an empty reply subject
# between two blanks.
parser.MSG_RE = re.compile(rb"\AMSG ([^ \n]+) (\d+) (([^ \n]+)? )?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG ([^ \n]+) (\d+) (([^ \n]+)? )?(\d+) (\d+)\r\n")


def survive_any_message(client: Client) -> None:
    """Let the client take every message: what is no UTF-8 in a subject is replaced, headers that are none are left out."""
    # Private, and the only place: nats-py offers no hook between reading a message and decoding its subject and headers.
    process_msg, process_headers = client._process_msg, client._process_headers  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    process_pong = client._process_pong  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    async def process_any_msg(sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        await process_msg(sid, _text(subject), _text(reply), data, headers)

    async def process_any_headers(headers: Any) -> dict[str, str] | None:
        try:
            return await process_headers(headers)
        except (ValueError, IndexError):  # of which a UnicodeDecodeError is one
            return None

    async def process_any_pong() -> None:
        waiting = client._pongs  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if waiting and waiting[0].done():  # who asked has given up; the others' answers must not move up
            waiting[0] = asyncio.get_running_loop().create_future()
        await process_pong()

    client._process_pong = process_any_pong  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    client._process_msg = process_any_msg  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    client._process_headers = process_any_headers  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _text(data: bytes) -> bytes:
    return data if data.isascii() else data.decode(errors="replace").encode()
