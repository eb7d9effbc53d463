"""What is deployed fits together: the compose file, the Dockerfiles, the configuration of nats-server, the secrets."""

import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import sysconfig
import time
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from taskyard.embedded.deployment import render
from taskyard.embedded.nats_server import NatsServer
from taskyard.embedded.nats_users import AGENTS_KEEPER, CONTROL_KEEPER, agents_user, control_user
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
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of secrets, as the script makes it."""
    folder = tmp_path_factory.mktemp("deployed") / "secrets"
    make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> None:
    subprocess.run(["sh", ROOT / "deploy/make-secrets", folder], check=True, capture_output=True, timeout=60)


def environment_of(compose: dict[str, Any], name: str, secrets: Path) -> dict[str, str]:
    """What a container is told, with the secrets that it may read where they are here."""
    service = compose["services"][name]
    named = [secret for secret in service.get("secrets", ()) if isinstance(secret, str)]
    files = {f"/run/secrets/{secret}": compose["secrets"][secret]["file"] for secret in named}
    found: dict[str, str] = {}
    for variable, value in service["environment"].items():
        found[variable] = str(value)
        if variable.endswith("_FILE"):
            found[variable] = str(secrets / Path(files[str(value)]).name)
    return found


def test_no_secret_stands_in_the_environment_and_each_is_one_that_the_script_makes(
    compose: dict[str, Any], secrets: Path
) -> None:
    assert not VARIABLE.findall(COMPOSE.replace("$$NATS_MONITORING", "")), "whoever inspects a container reads those"
    made = {file.name for file in secrets.iterdir()}
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} <= made
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "TOKEN" in name or "DSN" in name:
                assert (name.endswith("_FILE"), value.startswith("/run/secrets/")) == (True, True)


def test_each_service_gets_its_own_secrets_and_no_other(compose: dict[str, Any]) -> None:
    for name in SERVICES:
        of_nats = [secret for secret in compose["services"][name]["secrets"] if secret.startswith("nats-")]
        assert of_nats == [f"nats-control.{name}", f"nats-agents.{name}"]
    keepers = [
        name
        for name, service in compose["services"].items()
        if any("keeper" in str(secret) for secret in service.get("secrets", ()))
    ]
    assert keepers == ["setup"]
    assert compose["services"]["agent-1"]["secrets"] == ["nats-agent-1"]


def test_secrets_that_are_there_stay_and_their_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    make_secrets(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    token = before["admin-token"].decode().strip()
    (admin,) = msgspec.json.decode(before["principals.json"])
    assert admin["token_sha256"] == sha256(token.encode()).hexdigest()


def test_every_program_is_bounded_and_has_no_right_that_it_does_not_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert service["logging"]["options"], name


def test_images_of_others_are_named_by_exact_versions(compose: dict[str, Any]) -> None:
    named = {str(service["image"]) for service in compose["services"].values() if "build" not in service}
    for dockerfile in (ROOT / "deploy").glob("*ockerfile"):
        named |= set(re.findall(r"^FROM (\S+)", dockerfile.read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert all(re.search(r":\d+\.\d+(\.\d+)?-\w+$", image) for image in named), named


def test_an_agent_reaches_of_a_nats_server_the_port_of_clients_and_nothing_else(compose: dict[str, Any]) -> None:
    """Who is in both networks listens for monitoring and routes on its address in the other one."""
    assert compose["services"]["agent-1"]["networks"] == ["agents"]
    both = {name for name, service in compose["services"].items() if {"control", "agents"} <= set(service["networks"])}
    assert both == set(NATS_SERVERS)
    for name in both:
        server = compose["services"][name]
        address = server["networks"]["control"]["ipv4_address"]
        told = server["environment"]
        assert (told["NATS_MONITORING"], told["NATS_ROUTES"]) == (f"{address}:8222", f"{address}:6222")
    assert compose["networks"]["control"]["internal"] is True


def test_every_command_is_a_module_that_can_be_imported(compose: dict[str, Any]) -> None:
    commands = {
        name: service["command"] for name, service in compose["services"].items() if "taskyard" in str(service["image"])
    }
    commands = {name: command for name, command in commands.items() if name not in NATS_SERVERS}
    assert set(commands) == {*SERVICES, "setup", "agent-1"}
    for name, (module,) in commands.items():
        assert module == ("taskyard.agent" if name == "agent-1" else f"taskyard.{name}")
        assert find_spec(module if name == "setup" else f"{module}.__main__") is not None


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_twice_with_valid_settings_and_tells_whether_it_is_ready(
    compose: dict[str, Any], secrets: Path, name: str
) -> None:
    service = compose["services"][name]
    settings = load(Settings, None, environment_of(compose, name, secrets))
    assert service["deploy"]["replicas"] == 2
    assert settings.production
    assert settings.nats_urls == [f"nats://{server}:4222" for server in NATS_SERVERS]
    assert settings.nats_monitoring_urls == [f"http://{server}:8222" for server in NATS_SERVERS]
    assert settings.stream_replicas == 3
    port = settings.http_port if name == "api" else settings.health_port
    assert f":{port}/readyz" in service["healthcheck"]["test"][-1]
    assert bool(settings.principals) == (name in ("api", "scheduler"))
    assert bool(settings.postgres_dsn) == (name in ("api", "state_projector"))
    assert (settings.control_user, settings.fleet_user) == (control_user(name), agents_user(name))
    assert not settings.makes_streams


def test_the_agent_has_valid_settings_a_journal_that_stays_and_no_way_to_the_read_model(
    compose: dict[str, Any], secrets: Path
) -> None:
    agent, postgres = compose["services"]["agent-1"], compose["services"]["postgres"]
    settings = load(AgentSettings, None, environment_of(compose, "agent-1", secrets))
    assert settings.nats_urls == [f"nats://{server}:4222" for server in NATS_SERVERS]
    assert settings.directory in [volume.split(":")[1] for volume in agent["volumes"]]
    assert not set(agent["networks"]) & set(postgres["networks"])


def test_streams_are_made_before_the_services_by_keepers(compose: dict[str, Any], secrets: Path) -> None:
    settings = load(Settings, None, environment_of(compose, "setup", secrets))
    assert (settings.makes_streams, settings.production, settings.stream_replicas) == (True, True, 3)
    assert (settings.control_user, settings.fleet_user) == (CONTROL_KEEPER, AGENTS_KEEPER)
    for name in (*SERVICES, "agent-1"):
        assert compose["services"][name]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}


def test_only_the_proxy_is_published_and_on_loopback_only(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(published) == ["proxy"]
    assert all(port.startswith("127.0.0.1:") for port in published["proxy"])


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
        assert copied or dockerfile.name == "nats.Dockerfile"
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


def nats_folder(compose: dict[str, Any], secrets: Path, folder: Path, server: str) -> dict[str, str]:
    """Put the configuration together as it is mounted; the environment of the server."""
    folder.mkdir(exist_ok=True)
    for file in ("nats.conf", "nats-cluster.conf", "nats-accounts.conf"):
        text = (ROOT / "deploy" / file).read_text(encoding="utf-8").replace("/data", str(folder / "data"))
        (folder / file).write_text(text, encoding="utf-8")
    for file in ("nats-passwords.conf", "nats-routes.conf"):
        shutil.copy(secrets / file, folder)
    return {**os.environ, **environment_of(compose, server, secrets)}


@pytest.mark.parametrize("name", ["nats.conf", "nats-cluster.conf"])
def test_nats_server_takes_its_configuration(compose: dict[str, Any], secrets: Path, tmp_path: Path, name: str) -> None:
    environment = nats_folder(compose, secrets, tmp_path / "nats", "nats-1")
    argv = [NatsServer(tmp_path).program.argv[0], "-t", "--config", str(tmp_path / "nats" / name)]
    found = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr


def test_each_nats_server_has_a_name_and_a_disk_of_its_own(compose: dict[str, Any]) -> None:
    servers = [compose["services"][name] for name in NATS_SERVERS]
    assert [server["environment"]["NATS_SERVER_NAME"] for server in servers] == list(NATS_SERVERS)
    assert len({volume for server in servers for volume in server["volumes"] if volume.endswith(":/data")}) == 3


def test_the_three_nats_servers_find_one_another_and_a_stranger_is_no_route(
    compose: dict[str, Any], secrets: Path, tmp_path: Path
) -> None:
    """As deployed, but for addresses: each server has one of loopback for clients, and another one for the rest."""
    children: list[subprocess.Popen[bytes]] = []
    ports = {what: free_port() for what in ("4222", "8222", "6222")}
    try:
        children += [start_on_loopback(compose, secrets, tmp_path / name, name, ports) for name in NATS_SERVERS]
        urls = [f"http://{inner(name)}:{ports['8222']}" for name in NATS_SERVERS]
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not all(is_healthy(url) for url in urls):
            assert time.monotonic() < deadline, (tmp_path / "nats-1" / "log").read_text()
            time.sleep(0.05)
        for url in urls:
            varz = httpx.get(f"{url}/varz", trust_env=False).json()
            assert varz["jetstream"]["config"]["sync_always"] is True
            assert varz["jetstream"]["config"]["strict"] is True
            assert len(httpx.get(f"{url}/routez", trust_env=False).json()["routes"]) >= 2
            assert "connect_urls" not in varz  # what a server believes to be its address is told to nobody
        with socket.create_connection((inner("nats-1"), ports["6222"]), 5) as stranger:
            stranger.recv(1 << 16)
            stranger.sendall(b'CONNECT {"name":"stranger","cluster":"taskyard"}\r\nPING\r\n')
            assert b"Authorization Violation" in stranger.recv(1 << 16)
        for name in NATS_SERVERS:  # from where agents are
            socket.create_connection((outer(name), ports["4222"]), 5).close()
            for what in ("8222", "6222"):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((outer(name), ports[what]), 5)
    finally:
        for child in children:
            child.kill()
            child.wait()


def inner(server: str) -> str:
    """An address that stands for the one in the network of the services."""
    return f"127.0.1.{server[-1]}"


def outer(server: str) -> str:
    """An address that stands for the one in the network of the agents."""
    return f"127.0.2.{server[-1]}"


def start_on_loopback(
    compose: dict[str, Any], secrets: Path, folder: Path, name: str, ports: dict[str, int]
) -> subprocess.Popen[bytes]:
    environment = nats_folder(compose, secrets, folder, name)
    environment |= {
        "NATS_MONITORING": f"{inner(name)}:{ports['8222']}",
        "NATS_ROUTES": f"{inner(name)}:{ports['6222']}",
    }
    file = folder / "nats-routes.conf"
    routes = file.read_text(encoding="utf-8")
    for other in NATS_SERVERS:
        routes = routes.replace(f"@{other}:6222", f"@{inner(other)}:{ports['6222']}")
    file.chmod(0o600)
    file.write_text(routes, encoding="utf-8")
    program = NatsServer(folder / "unused").program.argv[0]
    with (folder / "log").open("wb") as log:
        argv = [program, "--addr", outer(name), "--port", str(ports["4222"])]
        argv += ["--config", str(folder / "nats-cluster.conf")]
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
    argv = ["docker-compose", *chosen, "config", "--services"]
    found = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    assert set(found.stdout.split()) == {*SERVICES, *NATS_SERVERS, "setup", "proxy", "postgres", "agent-1"}


def test_with_one_nats_server_nothing_waits_for_the_others(compose: dict[str, Any], secrets: Path) -> None:
    single = yaml.safe_load((ROOT / "deploy/docker-compose.single.yml").read_text(encoding="utf-8"))["services"]
    assert {name for name, changes in single.items() if "profiles" in changes} == {"nats-2", "nats-3"}
    for name, service in compose["services"].items():
        assert not {"nats-2", "nats-3"} & set(service.get("depends_on", ()))
        if name in (*SERVICES, "setup"):
            changed = {**environment_of(compose, name, secrets), **single[name]["environment"]}
            settings = load(Settings, None, changed)
            assert (settings.nats_urls, settings.nats_monitoring_urls) == (
                ["nats://nats-1:4222"],
                ["http://nats-1:8222"],
            )
            assert settings.stream_replicas == 1
    assert single["agent-1"]["environment"]["TASKYARD_NATS_URLS"] == '["nats://nats-1:4222"]'
    assert single["nats-1"]["command"][-1].endswith("/nats.conf")


def test_users_may_do_what_the_embedded_server_lets_them_do(secrets: Path, tmp_path: Path) -> None:
    """One table gives both."""
    NatsServer(tmp_path, agents=["agent-1"])
    embedded = msgspec.json.decode((tmp_path / "nats-server.conf").read_bytes())["accounts"]
    text = (ROOT / "deploy/nats-accounts.conf").read_text(encoding="utf-8")
    assert text == render()
    deployed = msgspec.json.decode(re.sub(r"(\$NATS_\w+)", r'"\1"', text[text.index("accounts") + len("accounts") :]))
    passwords = (secrets / "nats-passwords.conf").read_text(encoding="utf-8")
    for accounts in (embedded, deployed):
        for account in accounts.values():
            for user in account["users"]:
                password = user.pop("password")
                assert accounts is embedded or f"{password[1:]}: " in passwords
    assert deployed == embedded


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on this machine")
def test_the_proxy_speaks_tls_hides_the_metrics_and_passes_on_what_comes(secrets: Path, tmp_path: Path) -> None:
    port, behind = free_port(), free_port()
    text = (ROOT / "deploy/proxy.conf").read_text(encoding="utf-8")
    for name, value in {
        "/tmp/": f"{tmp_path}/",  # first: what is put in after it may have it
        "/etc/taskyard": str(secrets),
        "listen 8443": f"listen 127.0.0.1:{port}",
        "http://api:8420": f"http://127.0.0.1:{behind}",
        "/dev/stderr": f"{tmp_path}/log",
    }.items():
        assert name in text
        text = text.replace(name, value)
    (tmp_path / "proxy.conf").write_text(text, encoding="utf-8")
    tmp_path.chmod(0o755)
    api = subprocess.Popen([sys.executable, "-m", "http.server", str(behind), "--bind", "127.0.0.1"], cwd=ROOT / "docs")
    argv = ["nginx", "-c", str(tmp_path / "proxy.conf"), "-g", "daemon off;", "-e", str(tmp_path / "log")]
    proxy = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        trust = ssl.create_default_context(cafile=str(secrets / "tls.crt"))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, trust_env=False) as client:
            deadline = time.monotonic() + READY_SECONDS_MAX
            while not _answers(client, "/telemetry.md"):
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            assert client.get("/metrics").status_code == 404
            assert client.get("/", headers={"x": "y" * 9_000}).status_code == 400
    finally:
        for child in (proxy, api):
            child.terminate()
            child.wait()


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False
