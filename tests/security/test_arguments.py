"""No secret need stand in the arguments of a command, where every user of the machine can read it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from taskyard.cli.app import app
from taskyard.cli.connection import PASSWORD_VARIABLE, other_server
from taskyard.cli.errors import WrongUsage

SECRET = re.compile(r"password|token|secret|credential|dsn|key\b")


def test_the_password_of_another_server_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p w\n")
    found = other_server("nats://me%40here@other:4222", file, {})
    assert (found.url, found.credentials) == ("nats://other:4222", {"user": "me@here", "password": "p w"})
    found = other_server("nats://me@other:4222", None, {PASSWORD_VARIABLE: "from outside"})
    assert found.credentials == {"user": "me", "password": "from outside"}
    assert other_server("nats://other:4222", None, {}).credentials == {}


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(WrongUsage, match="--password-file") as refused:
        other_server("nats://me:hunter2@other:4222", None, {PASSWORD_VARIABLE: "x"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("file", [None, Path("/nowhere")])
def test_a_password_that_is_missing_is_asked_for(file: Path | None) -> None:
    with pytest.raises(WrongUsage, match=r"password is missing|/nowhere"):
        other_server("nats://me@other:4222", file, {})


def options() -> Iterator[tuple[str, Any]]:
    """Every option of the command line."""
    waiting = [("taskyard", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        waiting += [(f"{name} {below}", each) for below, each in getattr(command, "commands", {}).items()]
        for parameter in command.params:
            yield f"{name} {parameter.opts[0]}", parameter


def test_the_only_option_for_a_secret_names_a_file() -> None:
    everything = dict(options())
    assert len(everything) > 100
    found = {name: parameter for name, parameter in everything.items() if SECRET.search(name.rpartition(" ")[2])}
    assert list(found) == ["taskyard log mirror --password-file"]
    assert found["taskyard log mirror --password-file"].metavar == "FILE"
