"""Before anything else a service asks which version the log has: one that is too old for it does not even begin."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard import service
from taskyard.contracts.events import LOG_KEEPER, AnyEvent, LogVersionActivated, UnknownEvent
from taskyard.contracts.values import Instant
from taskyard.eventlog.commit import Commit, StoredCommit
from taskyard.eventlog.errors import LogVersionUnknown
from taskyard.eventlog.versions import KEEPER_INSTANCE, LOG_VERSION
from taskyard.settings import Settings

SETTINGS = Settings(
    nats_urls=["nats://nowhere"],
    control_user="",
    control_password="",
    fleet_user="",
    fleet_password="",
    postgres_dsn="",
)


class Broker:
    """A connection to nothing."""

    connection = SimpleNamespace()

    async def stop(self) -> None:
        """Nothing is there to be closed."""


class Log:
    """A log whose keeper says that a version is active."""

    def __init__(self, version: int) -> None:
        events: tuple[AnyEvent | UnknownEvent, ...] = (LogVersionActivated(version=version, by="root"),)
        commit = Commit(writer=LOG_KEEPER, instance=KEEPER_INSTANCE, epoch=1, at=Instant(1), events=events)
        self._last = StoredCommit(sequence=7, at=Instant(1), commit=commit, hash="7")

    async def last(self, writer: str) -> Any:
        """The last commit of a writer."""
        assert writer == LOG_KEEPER
        return self._last


async def _nothing(*_: object) -> None:
    pass


def _none(*_: object) -> None:
    pass


def _broker(*_: object) -> Broker:
    return Broker()


def begins_on(version: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a service begins where the log has this version."""
    monkeypatch.setattr(service, "_broker", _broker)
    monkeypatch.setattr(service, "_connect", _nothing)
    monkeypatch.setattr(service, "_prepare", _nothing)
    monkeypatch.setattr(service, "survive_any_message", _none)
    monkeypatch.setattr(service, "name_service", _none)

    def log(*_: object, **__: object) -> Log:
        return Log(version)

    monkeypatch.setattr(service, "JetStreamLog", log)

    async def begin() -> bool:
        async with service.linked("scheduler", SETTINGS):
            return True

    return asyncio.run(begin())


def test_a_service_does_not_start_on_a_log_whose_version_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LogVersionUnknown):
        begins_on(LOG_VERSION + 1, monkeypatch)


def test_it_starts_on_one_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begins_on(LOG_VERSION, monkeypatch)
