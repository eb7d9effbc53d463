"""Where the server is and as whom to speak to it: a connection file, or address and token from the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from taskyard.cli.errors import WrongUsage

DEFAULT_FILE = Path(".taskyard/connection.json")
FILE_VARIABLE = "TASKYARD_CONNECTION"
URL_VARIABLE = "TASKYARD_URL"
TOKEN_VARIABLE = "TASKYARD_TOKEN"  # noqa: S105 - the name of a variable
SERVICES_SETTINGS = Path("config/services.json")
"""Where `taskyard dev` keeps the settings of its services, beside the connection file."""


PASSWORD_VARIABLE = "TASKYARD_MIRROR_PASSWORD"  # noqa: S105 - the name of a variable


class OtherServer(Struct, frozen=True, kw_only=True):
    """A nats-server that no settings name: its address, which bears neither user nor password, and who we are there."""

    url: str
    user: str = ""
    password: str = ""

    @property
    def credentials(self) -> dict[str, str]:
        """What nats-py is to connect with."""
        return {"user": self.user, "password": self.password} if self.user else {}


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
            f"{path} does not exist: start `taskyard dev`, or name another file with --connection or {FILE_VARIABLE}, "
            f"or set {URL_VARIABLE} and {TOKEN_VARIABLE}"
        ) from error
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise WrongUsage(
            f"{path} is not a connection file of `taskyard dev`: an object with http_url and admin_token is needed"
        ) from error


def connection_file(file: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The connection file that is meant."""
    return file or Path(environment.get(FILE_VARIABLE) or DEFAULT_FILE)


def settings_file(config: Path | None, file: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The settings of the services: what `--config` names, else what lies beside the connection file."""
    return config or connection_file(file, environment).parent / SERVICES_SETTINGS


def other_server(address: str, password_file: Path | None, environment: Mapping[str, str] = os.environ) -> OtherServer:
    """The server at `nats://user@host:port`, with the password from a file or the environment.

    Raises:
        WrongUsage: the address is none, or holds the password, which everybody on this machine could read in it.
    """
    try:
        parts = urlsplit(address)
        password = parts.password
    except ValueError as error:
        raise WrongUsage(f"{address} is not an address: {error}") from error
    if password is not None:
        told = (
            f"put it into a file (--password-file) or the variable {PASSWORD_VARIABLE}, and write nats://user@host:port"
        )
        raise WrongUsage(f"other users of this machine can read a password in the address: {told}")
    if not parts.username:
        return OtherServer(url=address)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return OtherServer(url=url, user=unquote(parts.username), password=_password(password_file, environment))


def _password(file: Path | None, environment: Mapping[str, str]) -> str:
    if file is None:
        if found := environment.get(PASSWORD_VARIABLE):
            return found
        raise WrongUsage(f"the password is missing: name its file with --password-file, or set {PASSWORD_VARIABLE}")
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from error
