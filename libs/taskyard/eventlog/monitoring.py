"""What a nats-server tells of its JetStream at its monitoring port."""

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

ANSWER_SECONDS_MAX = 3.0


class MonitoringUnreachable(Exception):
    """The monitoring port gives no answer."""


def read_jetstream(url: str) -> bytes:
    """The page `/jsz` of a server, such as `http://127.0.0.1:8222`. Blocks for ANSWER_SECONDS_MAX at most.

    Raises:
        MonitoringUnreachable: it gives no answer.
    """
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.hostname or "127.0.0.1", parts.port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/jsz")
        return connection.getresponse().read()
    except (OSError, HTTPException) as error:
        raise MonitoringUnreachable(f"{url}: {error}") from error
    finally:
        connection.close()
