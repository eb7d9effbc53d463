"""Where the server is and as whom to speak to it: a connection file, or address and token from the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from taskyard.cli.errors import WrongUsage

DEFAULT_FILE = Path(".taskyard/connection.json")
FILE_VARIABLE = "TASKYARD_CONNECTION"
URL_VARIABLE = "TASKYARD_URL"
TOKEN_VARIABLE = "TASKYARD_TOKEN"  # noqa: S105 - the name of a variable
SERVICES_SETTINGS = Path("config/services.json")
"""Where `taskyard dev` keeps the settings of its services, beside the connection file."""


class Connection(Struct, frozen=True, kw_only=True):
    """What of a `connection.json` the command line needs."""

    http_url: str
    admin_token: str


def find_connection(file: Path | None, environment: Mapping[str, str] = os.environ) -> Connection:
    """The connection that `--connection` names, else the environment's, else the default file's. Raises `WrongUsage`."""
    if file is None and environment.get(URL_VARIABLE):
        return Connection(http_url=environment[URL_VARIABLE], admin_token=environment.get(TOKEN_VARIABLE, ""))
    path = connection_file(file, environment)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Connection)
    except FileNotFoundError as error:
        raise WrongUsage(
            f"there is no {path}: start `taskyard dev`, or name another by --connection, {FILE_VARIABLE}, "
            f"or {URL_VARIABLE} and {TOKEN_VARIABLE}"
        ) from error
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise WrongUsage(f"{path} is no connection file: {error}") from error


def connection_file(file: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The connection file that is meant."""
    return file or Path(environment.get(FILE_VARIABLE) or DEFAULT_FILE)


def settings_file(config: Path | None, file: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The settings of the services: what `--config` names, else what lies beside the connection file."""
    return config or connection_file(file, environment).parent / SERVICES_SETTINGS
