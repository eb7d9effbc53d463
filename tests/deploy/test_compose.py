"""What is deployed fits together: the compose file, the Dockerfiles, the configuration of nats-server, the secrets."""

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.processes import free_port
from taskyard.settings import AgentSettings, Settings, load

ROOT = Path(__file__).parents[2]
SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]+)")
NATS_SERVERS = ("nats-1", "nats-2", "nats-3")
READY_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE)


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    lines = (ROOT / "deploy/example.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment_of(service: dict[str, Any], secrets: dict[str, str]) -> dict[str, str]:
    text = {name: str(value) for name, value in service["environment"].items()}
    return {name: re.sub(r"\$\{([A-Z0-9_]+):\?\}", lambda m: secrets[m[1]], value) for name, value in text.items()}


def test_every_variable_is_documented_and_every_documented_one_is_used(secrets: dict[str, str]) -> None:
    given = set(yaml.safe_load(COMPOSE)["services"]["nats-1"]["environment"])
    assert set(VARIABLE.findall(COMPOSE)) == set(secrets)
    for name in ("nats.conf", "nats-cluster.conf"):
        assert set(VARIABLE.findall((ROOT / "deploy" / name).read_text(encoding="utf-8"))) <= given


def test_every_command_is_a_module_that_can_be_imported(compose: dict[str, Any]) -> None:
    commands = {
        name: service["command"] for name, service in compose["services"].items() if "taskyard" in str(service["image"])
    }
    assert set(commands) == {*SERVICES, "agent-1"}
    for name, (module,) in commands.items():
        assert module == ("taskyard.agent" if name == "agent-1" else f"taskyard.{name}")
        assert find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_twice_with_valid_settings_and_tells_whether_it_is_ready(
    compose: dict[str, Any], secrets: dict[str, str], name: str
) -> None:
    service = compose["services"][name]
    settings = load(Settings, None, environment_of(service, secrets))
    assert service["deploy"]["replicas"] == 2
    assert settings.production
    assert settings.nats_urls == [f"nats://{server}:4222" for server in NATS_SERVERS]
    assert settings.nats_monitoring_urls == [f"http://{server}:8222" for server in NATS_SERVERS]
    assert settings.stream_replicas == 3
    port = settings.http_port if name == "api" else settings.health_port
    assert f":{port}/readyz" in service["healthcheck"]["test"][-1]
    assert bool(settings.principals) == (name in ("api", "scheduler"))


def test_the_agent_has_valid_settings_a_journal_that_stays_and_no_way_to_the_read_model(
    compose: dict[str, Any], secrets: dict[str, str]
) -> None:
    agent, postgres = compose["services"]["agent-1"], compose["services"]["postgres"]
    settings = load(AgentSettings, None, environment_of(agent, secrets))
    assert settings.nats_urls == [f"nats://{server}:4222" for server in NATS_SERVERS]
    assert settings.directory in [volume.split(":")[1] for volume in agent["volumes"]]
    assert not set(agent["networks"]) & set(postgres["networks"])


def test_only_the_api_is_published_and_on_loopback_only(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_what_is_named_is_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("networks", ())) <= set(compose["networks"])
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        named = {volume.split(":")[0] for volume in service.get("volumes", ()) if not volume.startswith(".")}
        assert named <= set(compose["volumes"])
        files = [volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith(".")]
        files += [service["build"]["dockerfile"]] if "build" in service else []
        assert all((ROOT / file).is_file() for file in files)


def test_everything_that_dockerfiles_copy_is_there() -> None:
    for dockerfile in (ROOT / "deploy").glob("*ockerfile"):
        lines = dockerfile.read_text(encoding="utf-8").splitlines()
        copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
        assert copied
        assert all((ROOT / source).exists() for sources in copied for source in sources)
        assert any(line.startswith("USER 10001") for line in lines)


def test_the_first_process_of_an_agents_image_is_one_that_reaps() -> None:
    (entry,) = re.findall(
        r"^ENTRYPOINT (.*)$", (ROOT / "deploy/agent.Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    python, _, init, *_ = msgspec.json.decode(entry)
    assert (python, init) == ("python", "taskyard.agent.init")
    assert find_spec(init) is not None


def test_an_image_holds_the_versions_that_were_tested() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
        return set(re.findall(r"^([A-Za-z0-9_.-]+==[^ ;]+)", text, re.MULTILINE))

    assert pins("agent") < pins("runtime") < pins("dev")
    assert {pin.split("==")[0] for pin in pins("agent")} == {"msgspec", "nats-py"}


def test_an_agent_needs_only_what_its_image_has(tmp_path: Path) -> None:
    text = (ROOT / "deploy/agent.Dockerfile").read_text(encoding="utf-8")
    for sources, target in re.findall(r"^COPY (\S+(?: \S+)*) /srv/(\S+)$", text, re.MULTILINE):
        for source in (ROOT / one for one in sources.split()):
            if source.is_dir():
                shutil.copytree(source, tmp_path / target, dirs_exist_ok=True)
            else:
                shutil.copy(source, tmp_path / target)
    # Without site-packages nothing else can be found; the two packages are linked beside it.
    installed = Path(sysconfig.get_path("purelib"))
    for name in ("nats", "msgspec"):
        (tmp_path / name).symlink_to(installed / name)
    found = subprocess.run(
        [sys.executable, "-S", "-B", "-m", "taskyard.agent", "--help"],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "TASKYARD_" in found.stdout


def nats_environment(compose: dict[str, Any], secrets: dict[str, str], server: str) -> dict[str, str]:
    return {**os.environ, **environment_of(compose["services"][server], secrets)}


@pytest.mark.parametrize("name", ["nats.conf", "nats-cluster.conf"])
def test_nats_server_takes_its_configuration(
    compose: dict[str, Any], secrets: dict[str, str], tmp_path: Path, name: str
) -> None:
    server = NatsServer(tmp_path).program.argv[0]
    argv = [server, "-t", "--config", str(ROOT / "deploy" / name)]
    environment = nats_environment(compose, secrets, "nats-1")
    found = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr


def test_each_nats_server_has_a_name_and_a_disk_of_its_own(compose: dict[str, Any]) -> None:
    servers = [compose["services"][name] for name in NATS_SERVERS]
    assert [server["environment"]["NATS_SERVER_NAME"] for server in servers] == list(NATS_SERVERS)
    assert len({volume for server in servers for volume in server["volumes"] if volume.endswith(":/data")}) == 3


def test_the_three_nats_servers_find_one_another_and_a_stranger_is_no_route(
    compose: dict[str, Any], secrets: dict[str, str], tmp_path: Path
) -> None:
    """As deployed, but for addresses: names are loopback's, and each server has other ports."""
    ports = {(name, what): free_port() for name in NATS_SERVERS for what in ("4222", "8222", "6222")}
    children: list[subprocess.Popen[bytes]] = []
    try:
        children += [start_on_loopback(compose, secrets, tmp_path / name, name, ports) for name in NATS_SERVERS]
        urls = [f"http://127.0.0.1:{ports[name, '8222']}" for name in NATS_SERVERS]
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not all(is_healthy(url) for url in urls):
            assert time.monotonic() < deadline, (tmp_path / "nats-1" / "log").read_text()
            time.sleep(0.05)
        for url in urls:
            varz = httpx.get(f"{url}/varz", trust_env=False).json()
            assert varz["jetstream"]["config"]["sync_always"] is True
            assert len(httpx.get(f"{url}/routez", trust_env=False).json()["routes"]) >= 2
            assert "connect_urls" not in varz  # what a server believes to be its address is told to nobody
        with socket.create_connection(("127.0.0.1", ports["nats-1", "6222"]), 5) as stranger:
            stranger.recv(1 << 16)
            stranger.sendall(b'CONNECT {"name":"stranger","cluster":"taskyard"}\r\nPING\r\n')
            assert b"Authorization Violation" in stranger.recv(1 << 16)
    finally:
        for child in children:
            child.kill()
            child.wait()


def start_on_loopback(
    compose: dict[str, Any], secrets: dict[str, str], folder: Path, name: str, ports: dict[tuple[str, str], int]
) -> subprocess.Popen[bytes]:
    folder.mkdir()
    for file in ("nats.conf", "nats-cluster.conf"):
        text = (ROOT / "deploy" / file).read_text(encoding="utf-8").replace("/data", str(folder / "data"))
        for what in ("4222", "8222", "6222"):
            text = text.replace(f"port: {what}", f"port: {ports[name, what]}")
        (folder / file).write_text(text, encoding="utf-8")
    environment = nats_environment(compose, secrets, name)
    for number, other in enumerate(NATS_SERVERS, 1):
        route = environment[f"NATS_ROUTE_{number}"].replace(f"{other}:6222", f"127.0.0.1:{ports[other, '6222']}")
        environment[f"NATS_ROUTE_{number}"] = route
    program = NatsServer(folder / "unused").program.argv[0]
    with (folder / "log").open("wb") as log:
        argv = [program, "--addr", "127.0.0.1", "--config", str(folder / "nats-cluster.conf")]
        return subprocess.Popen(argv, env=environment, stdout=log, stderr=log)


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False, verify=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not on this machine")
@pytest.mark.parametrize("files", [("docker-compose.yml",), ("docker-compose.yml", "deploy/docker-compose.single.yml")])
def test_docker_compose_takes_the_files(files: tuple[str, ...]) -> None:
    chosen = [argument for file in files for argument in ("-f", file)]
    argv = ["docker-compose", "--env-file", "deploy/example.env", *chosen, "config", "--services"]
    found = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    assert set(found.stdout.split()) == {*SERVICES, *NATS_SERVERS, "postgres", "agent-1"}


def test_with_one_nats_server_nothing_waits_for_the_others(compose: dict[str, Any], secrets: dict[str, str]) -> None:
    single = yaml.safe_load((ROOT / "deploy/docker-compose.single.yml").read_text(encoding="utf-8"))["services"]
    assert {name for name, changes in single.items() if "profiles" in changes} == {"nats-2", "nats-3"}
    for name, service in compose["services"].items():
        assert not {"nats-2", "nats-3"} & set(service.get("depends_on", ()))
        if name in SERVICES:
            changed = {**environment_of(service, secrets), **single[name]["environment"]}
            settings = load(Settings, None, changed)
            assert (settings.nats_urls, settings.nats_monitoring_urls) == (
                ["nats://nats-1:4222"],
                ["http://nats-1:8222"],
            )
            assert settings.stream_replicas == 1
    assert single["agent-1"]["environment"]["TASKYARD_NATS_URLS"] == '["nats://nats-1:4222"]'
    assert single["nats-1"]["command"][-1].endswith("/nats.conf")


def test_users_may_do_what_the_embedded_server_lets_them_do(tmp_path: Path) -> None:
    NatsServer(tmp_path, agents=["agent-1"])
    embedded = msgspec.json.decode((tmp_path / "nats-server.conf").read_bytes())["accounts"]
    text = (ROOT / "deploy/nats.conf").read_text(encoding="utf-8")
    for account in ("WORKERS", "CLIENTS"):
        for user in embedded[account]["users"]:
            allowed = user.get("permissions", {})
            subjects = [*allowed.get("publish", ()), *allowed.get("subscribe", ())]
            assert user["user"] in text
            assert all(f'"{subject}"' in text for subject in subjects)
