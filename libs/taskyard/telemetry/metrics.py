"""The numbers of one process, in the text format of Prometheus, by the OpenTelemetry SDK.

Services count with plain integers where something happens, and say here how to read them: an observable instrument asks
when somebody scrapes. So counting costs nothing worth mentioning, and services that share a process share the
instruments: each adds its samples, and takes them away when it stops.

A histogram has no observable instrument in OpenTelemetry, and recording each value through the SDK would cost more than
deciding on a task: `Histogram` counts in a list, and is shown beside what the SDK shows.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.process_collector import ProcessCollector

REFRESH_SECONDS_MAX = 2.0
CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_BUCKETS_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
EXECUTION_BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0)

Sample = tuple[Mapping[str, str], float]
"""Labels and a value."""
Read = Callable[[], float | Iterable[Sample]]
"""Reads a number, or one for each of several sets of labels."""


class Histogram:
    """Counts of values up to each of `bounds`, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


HistogramRead = Callable[[], Iterable[tuple[Mapping[str, str], Histogram]]]


class ProcessMetrics:
    """All metrics of a process; usually there is one, see `process_metrics`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        provider = MeterProvider([reader], resource=Resource({}), shutdown_on_exit=False)
        self._meter = provider.get_meter("taskyard")
        self._reads: dict[str, list[Read]] = {}
        self._histograms: dict[str, tuple[str, list[HistogramRead]]] = {}
        self._refreshes: list[Callable[[], Awaitable[None]]] = []
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def scrape(self) -> bytes:
        """All of it, as of now; what cannot be asked in time is shown as it was."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_SECONDS_MAX):
                for refresh in list(self._refreshes):
                    await refresh()
        return self.text()

    def text(self) -> bytes:
        """All of it, without asking anybody else first."""
        return generate_latest(self._registry)

    @property
    def names(self) -> list[str]:
        """The names of what is shown now, as the instruments are called."""
        return sorted(
            [*(n for n, reads in self._reads.items() if reads), *(n for n, h in self._histograms.items() if h[1])]
        )

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histograms, as a collector of Prometheus gives them."""
        for name, (text, reads) in self._histograms.items():
            samples = [sample for read in reads for sample in read()]
            if samples:
                yield _family(name, text, samples)

    # -- for `MetricsScope` --------------------------------------------------------------------------------------------

    def add(self, name: str, text: str, read: Read, *, is_counter: bool) -> None:
        """Show what `read` gives under this name."""
        if name not in self._reads:
            self._reads[name] = []
            make = self._meter.create_observable_counter if is_counter else self._meter.create_observable_gauge
            make(name, [partial(self._observe, name)], description=text)
        self._reads[name].append(read)

    def add_histograms(self, name: str, text: str, read: HistogramRead) -> None:
        """Show the histograms that `read` gives under this name."""
        self._histograms.setdefault(name, (text, []))[1].append(read)

    def add_refresh(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Await `refresh` before each scrape."""
        self._refreshes.append(refresh)

    def remove(self, reads: Sequence[object]) -> None:
        """Take away what was added."""
        gone = {id(read) for read in reads}
        added: list[list[Any]] = [*self._reads.values(), *(h[1] for h in self._histograms.values()), self._refreshes]
        for each in added:
            each[:] = [read for read in each if id(read) not in gone]

    def _observe(self, name: str, _: CallbackOptions) -> Iterable[Observation]:
        for read in self._reads[name]:
            value = read()
            if isinstance(value, int | float):
                yield Observation(value)
            else:
                for labels, each in value:
                    yield Observation(each, labels)


class MetricsScope:
    """What one service shows; it is gone when the scope is closed."""

    def __init__(self, metrics: ProcessMetrics | None = None) -> None:
        self.metrics = metrics or process_metrics()
        self._added: list[object] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.metrics.remove(self._added)
        self._added.clear()

    def counter(self, name: str, text: str, read: Read) -> None:
        """Show a number that only rises; Prometheus adds `_total` to its name."""
        self._added.append(read)
        self.metrics.add(name, text, read, is_counter=True)

    def gauge(self, name: str, text: str, read: Read) -> None:
        """Show a number that rises and falls."""
        self._added.append(read)
        self.metrics.add(name, text, read, is_counter=False)

    def histograms(self, name: str, text: str, read: HistogramRead) -> None:
        """Show histograms by their labels."""
        self._added.append(read)
        self.metrics.add_histograms(name, text, read)

    def histogram(self, name: str, text: str, histogram: Histogram) -> None:
        """Show one histogram."""
        self.histograms(name, text, lambda: (({}, histogram),))

    def refresh(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Await `refresh` before each scrape; it fails never, and takes no longer than `REFRESH_SECONDS_MAX`."""
        self._added.append(refresh)
        self.metrics.add_refresh(refresh)


@cache
def process_metrics() -> ProcessMetrics:
    """The metrics of this process."""
    return ProcessMetrics()


def _family(name: str, text: str, samples: Sequence[tuple[Mapping[str, str], Histogram]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=sorted(samples[0][0]))
    for labels, histogram in samples:
        edges = [*(str(bound) for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(edges, accumulate(histogram.counts), strict=True))
        family.add_metric([labels[key] for key in sorted(labels)], buckets, histogram.sum)
    return family
