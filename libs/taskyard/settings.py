"""What a program of Taskyard is told from outside: a JSON file, and environment variables that go before it.

`TASKYARD_<FIELD>` sets the field of that name: text as it stands, everything else as JSON (`TASKYARD_HTTP_PORT=8420`,
`TASKYARD_NATS_URLS='["nats://127.0.0.1:4222"]'`). A wrong value is refused with the name of its field. A field that is
text may be given as `<field>_file` (`TASKYARD_PASSWORD_FILE=/run/secrets/agent`): the file that holds it is read, once;
and in the environment any other field too, as JSON (`TASKYARD_PRINCIPALS_FILE`).
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

import msgspec

from taskyard.contracts.faults import decoding_fault
from taskyard.contracts.fleet import ANY_KIND
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.subjects import COMMANDS_BYTES_MAX, REPORTS_BYTES_MAX
from taskyard.contracts.values import Role, is_name

ENVIRONMENT_PREFIX = "TASKYARD_"
FILE_SUFFIX = "_file"
DEFAULT_SLOTS = (("any",), ("plan",), ("plan",))
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
REPLICAS = 3
"""How often streams are kept where there are servers enough: any one of three may be gone."""

Kind = TypeVar("Kind", bound=msgspec.Struct)


class SettingsError(Exception):
    """The file or the environment holds something that is no valid setting; the message names the field."""


class Principal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use the API. The file holds no token, but its SHA-256 in hexadecimal digits."""

    name: str
    role: Role
    token_sha256: str


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a service. `control_*` is a NATS user in the account of the log, `fleet_*` one in that of agents.

    `makes_streams` says that these users may make and change streams, and that this program is to; all others wait for that.
    `nats_urls` are those of all servers: a service uses one and turns to another when that is gone.
    `nats_monitoring_urls` are asked whether the servers write to disk before they acknowledge, which `production` demands.
    `log_archive` is where the log's archive is (a folder or `s3://…`): what the log no longer holds is read from there.
    `nats_store_directory` is the folder that nats-server stores in, where it is on this host: its disk is watched.
    Every stream is kept `replicas` times: by default three times where there are three servers, else once.
    The streams of commands and of reports take `commands_bytes_max` and `reports_bytes_max` (the users that make streams raise
    them at their next start): one that is full refuses what is new, and nats-server sets as much room aside.
    The HTTP port takes `http_connections_max` connections, of one address (other than loopback)
    `http_connections_per_address_max`: behind a proxy, whose address all have, that must be as many as of all.
    `details` says who is shown metrics and what readiness found: `anyone`, who bears a `token` of a principal, or
    `by-host` anyone where `http_host` is loopback and else who bears a token. Whether a service is ready is told to all.
    `health_port` serves health and metrics over HTTP, `None` for nowhere. A service that is told to stop says at once
    that it is not ready and goes on for `drain_seconds`, so that who sends it requests can turn elsewhere.
    `telemetry` sends traces to the OTLP collector at `otlp_endpoint` (a base address, `http://host:4318`), `None` for
    nowhere; metrics and logs are always there.
    """

    nats_urls: list[str]
    control_user: str
    control_password: str
    fleet_user: str
    fleet_password: str
    postgres_dsn: str = ""
    makes_streams: bool = False
    http_host: str = "127.0.0.1"
    http_port: int = 8420
    principals: list[Principal] = []
    partition: str = "0"
    nats_monitoring_urls: list[str] = []
    nats_store_directory: str | None = None
    log_archive: str | None = None
    replicas: int | None = None
    commands_bytes_max: int = COMMANDS_BYTES_MAX
    reports_bytes_max: int = REPORTS_BYTES_MAX
    production: bool = False
    http_connections_max: int = 1_000
    http_connections_per_address_max: int = 250
    details: Literal["by-host", "anyone", "token"] = "by-host"
    health_port: int | None = None
    drain_seconds: float = 0.0
    lease_seconds: float = 3.0
    suspect_seconds: float = 10.0
    worker_lost_seconds: float = 30.0
    telemetry: bool = False
    otlp_endpoint: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def stream_replicas(self) -> int:
        """How often every stream is kept."""
        return self.replicas or (REPLICAS if len(self.nats_urls) >= REPLICAS else 1)

    @property
    def shows_details_to_anyone(self) -> bool:
        """Whether metrics and what readiness found are shown without a token."""
        return self.details == "anyone" or (self.details == "by-host" and self.http_host in LOOPBACK)


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an agent. `name` is the worker's id and its NATS user; `directory` keeps its journal and its work.

    Each entry of `slots` lists the kinds that the slot accepts (`any` for all). `terraform` is the argument vector that
    Terraform's arguments are appended to; `None` means that the agent looks for one itself.
    An agent that is told to stop gives what runs `drain_seconds` to end (an apply ten more), then stops it in order. Of
    each stream of a program's output `output_bytes_max` bytes are kept: the first and the last half of them.
    `telemetry` and `otlp_endpoint` are as for services; they need the packages of OpenTelemetry on the agent's host.

    Directories of plans must lie below `terraform_roots`, also by their links. Of the agent's environment programs see what
    every program needs (`executors/environment.py`), and Terraform what `terraform_environment` names besides (`AWS_*`).
    Where the agent is root, tasks run as the users `run_as`, by name or number: one for all slots or one for each. Kinds that
    run what users write are not taken as root unless `allow_root`. `modules` are Python modules whose functions with `@task`
    the agent runs as kinds of their own.
    """

    nats_urls: list[str]
    name: str
    password: str
    directory: str
    pool: str = "default"
    slots: list[list[str]] = msgspec.field(default_factory=lambda: [list(kinds) for kinds in DEFAULT_SLOTS])
    labels: dict[str, str] = {}
    terraform: list[str] | None = None
    drain_seconds: float = 30.0
    output_bytes_max: int = 16 << 20
    terraform_roots: list[str] = []
    terraform_environment: list[str] = []
    run_as: list[str] = []
    allow_root: bool = False
    modules: list[str] = []
    telemetry: bool = False
    otlp_endpoint: str | None = None

    def __post_init__(self) -> None:
        """What could never work ends the agent at its start, and does not fail tasks later."""
        for field, value in (("name", self.name), ("pool", self.pool)):
            if not is_name(value):
                raise ValueError(
                    f"{field}: {value!r} is not a name: a to z, 0 to 9, - and _, and neither of these in front"
                )
        for kind in (kind for kinds in self.slots for kind in kinds):
            if kind != ANY_KIND and kind not in KINDS:
                raise ValueError(f"slots: there is no kind {kind!r}; known are {', '.join((ANY_KIND, *KINDS))}")
        for root in self.terraform_roots:
            if not Path(root).is_absolute():
                raise ValueError(f"terraform_roots: {root!r} is not absolute")
        if self.output_bytes_max <= 0:
            raise ValueError("output_bytes_max: must be more than 0")
        if self.drain_seconds < 0:
            raise ValueError("drain_seconds: must not be less than 0")


def from_arguments(kind: type[Kind], arguments: Sequence[str] | None = None) -> Kind:
    """Read the settings that the command line (`--config FILE`) names; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(description="The environment's TASKYARD_<FIELD> goes before the file.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON file with the settings")
    path = parser.parse_args(arguments).config
    try:
        return load(kind, path)
    except SettingsError as error:
        parser.error(str(error))


def load(kind: type[Kind], path: Path | None, environment: Mapping[str, str] = os.environ) -> Kind:
    """Read the settings from the file, if there is one, and from the environment. Raises `SettingsError`."""
    values = _read(path) if path else {}
    values = _with_files(kind, values) | _with_files(kind, _from_environment(kind, environment))
    try:
        return msgspec.convert(values, type=kind)
    except msgspec.ValidationError as error:
        where = path or "the environment"
        fault = decoding_fault(error, "", kind.__struct_fields__)
        message = f"{where}: {fault.path}: {fault.message}" if fault.path else f"{where}: {fault.message}"
        raise SettingsError(message) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise SettingsError(message) from error
    except msgspec.DecodeError as error:
        message = f"{path} is not a JSON object: {decoding_fault(error, '').message}"
        raise SettingsError(message) from error


def _with_files(kind: type[msgspec.Struct], values: dict[str, Any]) -> dict[str, Any]:
    """Take the text of a field from the file that is named in its place."""
    found = dict(values)
    for name, declared in get_type_hints(kind).items():
        if _is_text(declared) and (file := found.pop(name + FILE_SUFFIX, None)) is not None:
            if name in found:
                message = f"{name} and {name}{FILE_SUFFIX} are both given"
                raise SettingsError(message)
            try:
                found[name] = Path(str(file)).read_text(encoding="utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                message = f"{name}{FILE_SUFFIX}: {file} cannot be read: {error}"
                raise SettingsError(message) from error
    return found


def _json_in(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{variable}_FILE: {path} cannot be read: {error}"
        raise SettingsError(message) from error


def _both_given(variable: str) -> str:
    message = f"{variable} and {variable}_FILE are both given"
    raise SettingsError(message)


def _is_text(declared: Any) -> bool:
    return declared in (str, str | None)


def _from_environment(kind: type[msgspec.Struct], environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, declared in get_type_hints(kind).items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        text, file = environment.get(variable), environment.get(f"{variable}_FILE")
        if file is not None and _is_text(declared):
            values[name + FILE_SUFFIX] = file
        elif file is not None:
            text = _json_in(Path(file), variable) if text is None else _both_given(variable)
        if text is None:
            continue
        try:
            value = text if _is_text(declared) or get_origin(declared) is Literal else msgspec.json.decode(text)
            values[name] = msgspec.convert(value, type=declared)
        except msgspec.DecodeError as error:  # of which ValidationError is one
            message = f"{variable}: {decoding_fault(error, '').message}"
            raise SettingsError(message) from error
    return values
