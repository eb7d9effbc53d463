"""A control plane as it is deployed: two instances of each service, as processes, on real servers, with two agents.

`Installation` starts what it is told to and knows who leads. Each instance may reach NATS through a proxy of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import msgspec
from proxy import Proxy
from real_servers import give_cluster, own_users, service_settings

from taskyard.dev.together import ServiceUsers, Together
from taskyard.embedded import processes
from taskyard.embedded.nats_cluster import NatsCluster
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.postgres import Postgres
from taskyard.embedded.processes import Program
from taskyard.embedded.terraform import find_terraform
from taskyard.settings import AgentSettings, Principal, Role, Settings

SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
LEADING = SERVICES[:4]
"""Services of which one instance leads; of `api` both work."""
AGENTS = ("worker-1", "worker-2")
LEASE_SECONDS = 3.0
DRAIN_SECONDS = 0.5
API_DRAIN_SECONDS = 2.0
"""The clients here look ten times a second who is ready; on a busy machine it may be a second until they have looked."""
TOKEN = "token-of-admin"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = (0.02, 0.1)
"""How soon a condition is looked at again, at first and in the end: each look costs what is waited for some work."""


class Instance:
    """One process of a service. `services` are those that run in it: one, or all of them."""

    def __init__(self, name: str, program: Program, ready_url: str, http_url: str, proxy: Proxy | None) -> None:
        self.name = name
        self.http_url = http_url
        self.proxy = proxy
        self._program = program
        self._ready_url = ready_url
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def log(self) -> str:
        return self._program.log_file.read_text()

    def start(self) -> None:
        self._child = processes.spawn(self._program)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self._child is not None
        return self._child.wait(STOP_SECONDS_MAX)

    def is_ready(self) -> bool:
        try:
            # Without `verify` each look would load all certificates.
            return httpx.get(self._ready_url, timeout=3, trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def restart(self) -> None:
        """Start it again after its end, and wait until it is ready."""
        self.start()
        until(self.is_ready, lambda: f"{self.name} is ready\n{self.log[-3000:]}", START_SECONDS_MAX)

    def tell_to_stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)

    def stop(self) -> None:
        self.tell_to_stop()
        if self._child is not None:
            processes.stop_child(self._child, STOP_SECONDS_MAX)


class Installation:
    """Everything below `folder`. `combined` runs all services of an instance in one process."""

    def __init__(self, folder: Path, nats: NatsServer | NatsCluster, *, proxied: bool, combined: bool) -> None:
        self.folder = folder
        self.nats = nats
        self.nats_urls = nats.urls if isinstance(nats, NatsCluster) else [nats.url]
        self.postgres = Postgres(folder / "postgres")
        (folder / "config").mkdir(mode=0o700)
        self.instances: dict[str, Instance] = {}
        for letter in ("a", "b"):
            for service in ("services",) if combined else SERVICES:
                instance = self._instance(service, letter, proxied=proxied)
                self.instances[instance.name] = instance
        self.agents = {name: self._agent(name) for name in AGENTS}
        self._write("services", self._settings(self.nats_urls, 0, 0))  # for who reads the log from outside
        self.http = httpx.Client(
            base_url=f"{self.http_urls[0]}/api/v1",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=15,
            trust_env=False,
        )

    def start(self) -> None:
        self.nats.start()
        give_cluster(self.folder / "postgres")
        self.postgres.start()
        setup = [sys.executable, "-m", "taskyard.setup", "--config", str(self.folder / "config" / "services.json")]
        subprocess.run(setup, check=True, timeout=START_SECONDS_MAX)
        for instance in self.instances.values():
            instance.start()
        for agent in self.agents.values():
            agent.start()
        for instance in self.instances.values():
            until(
                instance.is_ready, lambda each=instance: f"{each.name} is ready\n{each.log[-3000:]}", START_SECONDS_MAX
            )
        until(self._takes_tasks, "every service has a leader and every agent has joined", START_SECONDS_MAX)

    def stop(self) -> None:
        self.http.close()
        for together in (self.agents.values(), self.instances.values()):
            for instance in together:
                instance.tell_to_stop()
            for instance in together:
                instance.stop()
                if instance.proxy is not None:
                    instance.proxy.close()
        self.postgres.stop()
        self.nats.stop()

    @property
    def http_urls(self) -> list[str]:
        return [instance.http_url for instance in self.instances.values() if instance.http_url]

    def pair(self, service: str) -> list[Instance]:
        """Both instances of a service."""
        return [self.instances[f"{service}-{letter}"] for letter in ("a", "b")]

    def of(self, instance_name: str) -> Instance | None:
        """The process that an instance's own name (of a lease, of a commit) means; None for one that is gone."""
        pid = int(instance_name.rsplit("-", 2)[1])
        return next((each for each in self.instances.values() if each.pid == pid), None)

    def _takes_tasks(self) -> bool:
        leaders = httpx.get(f"{self.http_urls[0]}/readyz", trust_env=False, verify=False).json()["leaders"]
        workers = self.http.get("/workers").json()["items"]
        return all(leaders.values()) and sum(worker["status"] == "active" for worker in workers) == len(AGENTS)

    def _instance(self, service: str, letter: str, *, proxied: bool) -> Instance:
        name = f"{service}-{letter}"
        proxy = Proxy(self.nats.port) if proxied and isinstance(self.nats, NatsServer) else None
        serves_http = service in ("services", "api")
        http_port = processes.free_port() if serves_http else 0
        health_port = 0 if serves_http else processes.free_port()
        urls = [f"nats://127.0.0.1:{proxy.port}"] if proxy else self.nats_urls
        module = "taskyard.dev.services" if service == "services" else f"taskyard.{service}"
        program = self._program(name, module, self._own(service, self._settings(urls, http_port, health_port)))
        http_url = f"http://127.0.0.1:{http_port}" if serves_http else ""
        return Instance(name, program, f"{http_url or f'http://127.0.0.1:{health_port}'}/readyz", http_url, proxy)

    def _agent(self, name: str) -> Instance:
        settings = AgentSettings(
            nats_urls=self.nats_urls,
            name=name,
            password=self.nats.password(name),
            directory=str(self.folder / name),
            slots=[["any"], ["plan"], ["plan"], *[["any"]] * 6],  # the template of most, and room for more
            terraform=find_terraform(),
            terraform_roots=["/"],
            allow_root=True,
        )
        return Instance(name, self._program(name, "taskyard.agent", settings), "", "", None)

    def _own(self, service: str, settings: Settings) -> Settings:
        """The settings of one service, or of all in one process, each of which connects as itself."""
        shared = msgspec.structs.asdict(settings) | {"makes_streams": False}
        if service != "services":
            return Settings(**shared | own_users(self.nats, service))
        return Together(**shared, users={each: ServiceUsers(**own_users(self.nats, each)) for each in SERVICES})

    def _settings(self, urls: Sequence[str], http_port: int, health_port: int) -> Settings:
        return service_settings(
            self.nats,
            nats_urls=list(urls),
            production=True,
            postgres_dsn=self.postgres.dsn,
            http_port=http_port,
            health_port=health_port or None,
            drain_seconds=API_DRAIN_SECONDS if http_port else DRAIN_SECONDS,
            lease_seconds=LEASE_SECONDS,
            principals=[Principal(name="admin", role=Role.ADMIN, token_sha256=sha256(TOKEN.encode()).hexdigest())],
        )

    def _program(self, name: str, module: str, settings: msgspec.Struct) -> Program:
        argv = (sys.executable, "-m", module, "--config", str(self._write(name, settings)))
        return Program(name=name, argv=argv, log_file=self.folder / "logs" / f"{name}.log")

    def _write(self, name: str, settings: msgspec.Struct) -> Path:
        path = self.folder / "config" / f"{name}.json"
        path.write_bytes(msgspec.json.encode(settings))
        return path


@contextmanager
def installed(
    make_nats: Callable[[Path], NatsServer | NatsCluster], *, proxied: bool, combined: bool
) -> Iterator[Installation]:
    """An installation that runs until the end of the block."""
    # Not in pytest's own folder: each pytest that starts closes that to other users, and as root PostgreSQL is one.
    with TemporaryDirectory(prefix="taskyard-ha-") as directory:
        folder = Path(directory)
        installation = Installation(folder, make_nats(folder / "nats"), proxied=proxied, combined=combined)
        try:
            installation.start()
            yield installation
        finally:
            installation.stop()


def until(condition: Callable[[], bool], what: str | Callable[[], str], seconds_max: float = 30.0) -> float:
    """Wait until a condition holds; how long it took."""
    began = time.monotonic()
    pause, longest = POLL_SECONDS
    while True:
        try:
            if condition():
                return time.monotonic() - began
        except (httpx.TransportError, json.JSONDecodeError, KeyError):
            pass
        if time.monotonic() - began > seconds_max:
            raise AssertionError(f"it did not come about that {what if isinstance(what, str) else what()}")
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


def is_open(url: str) -> bool:
    """Whether something listens there."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
