"""What the service counts, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

DURATION_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one instance; it has a registry of its own, so that several fit one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "taskyard_http_requests", "HTTP requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "taskyard_http_request_seconds",
            "Time to the start of an HTTP answer.",
            ("method", "route"),
            buckets=DURATION_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self._commands = Counter(
            "taskyard_commands", "Commands answered at the doors.", ("door", "verb", "code"), registry=self._registry
        )
        self._lag = Gauge(
            "taskyard_projection_lag_commits", "Commits that the read model lacks.", registry=self._registry
        )

    def http(self, method: str, route: str, status: int, duration_seconds: float) -> None:
        """Count one HTTP request. `route` is the pattern, never the path: its values would be without bound."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(duration_seconds)

    def command(self, door: str, verb: str, code: int) -> None:
        """Count one command. `verb` must be a known one."""
        self._commands.labels(door, verb, str(code)).inc()

    def projection_lag(self, commits: int) -> None:
        """Note how far the read model is behind."""
        self._lag.set(commits)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that is read when somebody asks."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
