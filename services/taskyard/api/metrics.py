"""What the service counts: requests, commands, and how far the read model is behind."""

from collections import Counter
from collections.abc import Callable, Sequence

from taskyard.api.leaders import LATELY_SECONDS, Leaders
from taskyard.contracts.events import DECIDERS
from taskyard.eventlog.space import Fill, Room
from taskyard.http_server.connections import Connections
from taskyard.http_server.protocol import FAULTS
from taskyard.telemetry.metrics import Histogram, MetricsScope

DURATION_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one instance, shown with those of its process for as long as `scope` is open."""

    def __init__(self, scope: MetricsScope | None = None) -> None:
        self._scope = scope or MetricsScope()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._seconds: dict[tuple[str, str], Histogram] = {}
        self._commands: Counter[tuple[str, str, str]] = Counter()
        self._lag: int | None = None
        self._lag_seconds: float | None = None
        self._rooms: Sequence[Room] = ()
        self._fills: Sequence[Fill] = ()
        self._show()

    def http(self, method: str, route: str, status: int, duration_seconds: float) -> None:
        """Count one HTTP request. `route` is the pattern, never the path: its values would be without bound."""
        self._requests[method, route, str(status)] += 1
        histogram = self._seconds.get((method, route))
        if histogram is None:
            histogram = self._seconds[method, route] = Histogram(DURATION_BUCKETS_SECONDS)
        histogram.observe(duration_seconds)

    def command(self, door: str, verb: str, code: int) -> None:
        """Count one command. `verb` must be a known one."""
        self._commands[door, verb, str(code)] += 1

    def projection_lag(self, commits: int | None, seconds: float | None = None) -> None:
        """Note how far the read model is behind: how many commits, and the age of the first of them. None: not known."""
        self._lag = commits
        self._lag_seconds = seconds

    def log_rooms(self, rooms: Sequence[Room]) -> None:
        """Note how much room the log has, below each limit that is known."""
        self._rooms = rooms

    def stream_fills(self, fills: Sequence[Fill]) -> None:
        """Note how full the streams are that have a limit."""
        self._fills = fills

    def leaders(self, leaders: Leaders, clock: Callable[[], float]) -> None:
        """Show what is seen of the leaders of deciding services."""
        self._scope.gauge(
            "taskyard_writer_healthy",
            "1 while /api/v1/health finds nothing wrong with the leader of a service, otherwise 0.",
            lambda: [
                ({"service": writer}, float(writer not in reasons))
                for reasons in (leaders.health(clock()).reasons,)
                for writer in DECIDERS
            ],
        )
        self._scope.gauge(
            "taskyard_writer_leaderless_seconds",
            "How long a service has had no leader that stays; 0 where it has one.",
            lambda: [({"service": writer}, leaders.lacking_seconds(writer, clock())) for writer in DECIDERS],
        )
        self._scope.gauge(
            "taskyard_writer_leaders_begun",
            f"How often leadership of a service has begun in the last {LATELY_SECONDS:.0f} s.",
            lambda: [({"service": writer}, float(leaders.beginnings(writer, clock()))) for writer in DECIDERS],
        )

    def connections(self, connections: Connections) -> None:
        """Show how many connections there are, and how many were refused for what."""
        self._scope.gauge(
            "taskyard_http_connections", "Open HTTP connections.", lambda: [({}, float(len(connections)))]
        )
        self._scope.counter(
            "taskyard_http_connections_refused",
            "HTTP connections that were ended with a problem before their request was whole.",
            lambda: [({"reason": fault.name}, float(connections.refused[fault.name])) for fault in FAULTS],
        )

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that is read when somebody asks."""
        self._scope.gauge(name, text, read)

    async def text(self) -> bytes:
        """The metrics of the whole process."""
        return await self._scope.metrics.scrape()

    def _show(self) -> None:
        scope = self._scope
        scope.counter(
            "taskyard_http_requests",
            "HTTP requests answered.",
            lambda: [
                ({"method": method, "route": route, "status": status}, float(count))
                for (method, route, status), count in self._requests.items()
            ],
        )
        scope.histograms(
            "taskyard_http_request_seconds",
            "Time to the start of an HTTP answer.",
            lambda: [({"method": method, "route": route}, each) for (method, route), each in self._seconds.items()],
        )
        scope.counter(
            "taskyard_commands",
            "Commands answered at the doors.",
            lambda: [
                ({"door": door, "verb": verb, "code": code}, float(count))
                for (door, verb, code), count in self._commands.items()
            ],
        )
        scope.gauge(
            "taskyard_projection_lag_commits",
            "Commits that the read model lacks.",
            lambda: () if self._lag is None else (({}, float(self._lag)),),
        )
        scope.gauge(
            "taskyard_projection_lag_seconds",
            "Age of the first commit that the read model lacks; 0 where it lacks none.",
            lambda: () if self._lag_seconds is None else (({}, self._lag_seconds),),
        )
        scope.gauge(
            "taskyard_log_free_bytes",
            "Room that is left for the log, below each limit that is known.",
            lambda: [({"limit": room.limit}, float(room.free)) for room in self._rooms],
        )
        scope.gauge(
            "taskyard_log_room_scarce",
            "1 where that room will soon be used up, by the threshold of /readyz.",
            lambda: [({"limit": room.limit}, float(room.is_scarce)) for room in self._rooms],
        )
        scope.gauge(
            "taskyard_stream_bytes",
            "What a stream holds that refuses what is new once it is full.",
            lambda: [({"stream": fill.stream}, float(fill.held)) for fill in self._fills],
        )
        scope.gauge(
            "taskyard_stream_full_share",
            "The part of its limit that such a stream holds; 1 is full.",
            lambda: [({"stream": fill.stream}, fill.share) for fill in self._fills],
        )
