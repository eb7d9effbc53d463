"""Installations with two instances of each service, shared by the tests of a file, whose log is checked whole at the end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "scenarios"))

from installation import AGENTS, installed
from witness import Watched, Witness

from taskyard.embedded.nats_cluster import NatsCluster
from taskyard.embedded.nats_server import NatsServer


@pytest.fixture(scope="package")
def pair(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """One nats-server; each instance is a process of its own behind a proxy of its own."""
    with _watched(lambda folder: NatsServer(folder, agents=AGENTS), proxied=True, combined=False) as watched:
        yield watched
        if not request.session.testsfailed:
            watched.check()


@pytest.fixture(scope="module")
def trio() -> Iterator[Watched]:
    """Three nats-servers; two processes, each of which runs one instance of every service."""
    with _watched(lambda folder: NatsCluster(folder, agents=AGENTS), proxied=False, combined=True) as watched:
        yield watched


@contextmanager
def _watched(make_nats, *, proxied: bool, combined: bool) -> Iterator[Watched]:
    with installed(make_nats, proxied=proxied, combined=combined) as installation:
        witness = Witness(installation)
        witness.open()
        try:
            yield Watched(installation, witness, [])
        finally:
            witness.close()
