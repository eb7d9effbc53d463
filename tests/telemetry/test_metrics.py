"""Numbers are read when somebody asks; services that share a process share the names."""

import asyncio

from taskyard.api.metrics import Metrics
from taskyard.telemetry.metrics import Histogram, MetricsScope, ProcessMetrics


def numbers(metrics: ProcessMetrics) -> dict[str, str]:
    lines = metrics.text().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line.startswith("taskyard_"))


def test_a_counter_is_read_as_it_stands() -> None:
    metrics = ProcessMetrics()
    count = 0
    with MetricsScope(metrics) as scope:
        scope.counter("taskyard_things", "Things.", lambda: count)
        assert numbers(metrics) == {"taskyard_things_total": "0.0"}
        count = 3
        assert numbers(metrics) == {"taskyard_things_total": "3.0"}


def test_two_services_share_a_name_and_leave_one_by_one() -> None:
    metrics = ProcessMetrics()
    one, two = MetricsScope(metrics), MetricsScope(metrics)
    for number, scope in enumerate((one, two)):
        scope.gauge("taskyard_leader", "Who leads.", lambda number=number: (({"service": f"s{number}"}, number),))
    assert numbers(metrics) == {'taskyard_leader{service="s0"}': "0.0", 'taskyard_leader{service="s1"}': "1.0"}
    one.__exit__(None, None, None)
    assert numbers(metrics) == {'taskyard_leader{service="s1"}': "1.0"}
    two.__exit__(None, None, None)
    assert not numbers(metrics)
    assert not metrics.names


def test_a_histogram_counts_up_to_each_bound() -> None:
    metrics = ProcessMetrics()
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    with MetricsScope(metrics) as scope:
        scope.histogram("taskyard_wait_seconds", "Waiting.", histogram)
        assert numbers(metrics) == {
            'taskyard_wait_seconds_bucket{le="0.1"}': "2.0",
            'taskyard_wait_seconds_bucket{le="1.0"}': "3.0",
            'taskyard_wait_seconds_bucket{le="+Inf"}': "4.0",
            "taskyard_wait_seconds_count": "4.0",
            "taskyard_wait_seconds_sum": "7.65",
        }


def test_what_must_be_asked_for_is_asked_before_a_scrape_and_not_for_ever(monkeypatch) -> None:
    monkeypatch.setattr("taskyard.telemetry.metrics.REFRESH_SECONDS_MAX", 0.01)
    metrics = ProcessMetrics()
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    with MetricsScope(metrics) as scope:
        scope.refresh(ask)
        scope.gauge("taskyard_asked", "How often.", lambda: asked)
        assert b"taskyard_asked 1.0" in asyncio.run(metrics.scrape())


def test_the_api_counts_requests_and_commands() -> None:
    process = ProcessMetrics()
    metrics = Metrics(MetricsScope(process))
    metrics.http("GET", "/api/v1/tasks", 200, 0.02)
    metrics.http("GET", "/api/v1/tasks", 200, 20.0)
    metrics.command("nats", "submit", 202)
    shown = numbers(process)
    assert shown['taskyard_http_requests_total{method="GET",route="/api/v1/tasks",status="200"}'] == "2.0"
    assert shown['taskyard_commands_total{code="202",door="nats",verb="submit"}'] == "1.0"
    labels = 'method="GET",route="/api/v1/tasks"'
    assert shown[f'taskyard_http_request_seconds_bucket{{le="0.025",{labels}}}'] == "1.0"
    assert shown[f"taskyard_http_request_seconds_sum{{{labels}}}"] == "20.02"
    assert not [name for name in shown if "lag" in name]
    metrics.projection_lag(4, 1.5)
    assert numbers(process)["taskyard_projection_lag_commits"] == "4.0"
    assert numbers(process)["taskyard_projection_lag_seconds"] == "1.5"
