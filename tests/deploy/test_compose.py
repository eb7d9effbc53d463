"""What is deployed fits together: the compose file, the Dockerfiles, the configuration of nats-server, the secrets."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from taskyard.embedded.nats_server import NatsServer
from taskyard.settings import AgentSettings, Settings, load

ROOT = Path(__file__).parents[2]
SERVICES = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]+)")


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
    configuration = (ROOT / "deploy/nats.conf").read_text(encoding="utf-8")
    assert set(VARIABLE.findall(COMPOSE)) == set(secrets)
    assert set(VARIABLE.findall(configuration)) <= set(secrets)


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
    assert settings.production and settings.nats_monitoring_urls
    port = settings.http_port if name == "api" else settings.health_port
    assert f":{port}/readyz" in service["healthcheck"]["test"][-1]
    assert bool(settings.principals) == (name in ("api", "scheduler"))


def test_the_agent_has_valid_settings_a_journal_that_stays_and_no_way_to_the_read_model(
    compose: dict[str, Any], secrets: dict[str, str]
) -> None:
    agent, postgres = compose["services"]["agent-1"], compose["services"]["postgres"]
    settings = load(AgentSettings, None, environment_of(agent, secrets))
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


def test_an_image_holds_the_versions_that_were_tested() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
        return set(re.findall(r"^([A-Za-z0-9_.-]+==[^ ;]+)", text, re.MULTILINE))

    assert pins("agent") < pins("runtime") < pins("dev")
    assert {pin.split("==")[0] for pin in pins("agent")} == {"msgspec", "nats-py"}


def test_an_agent_needs_only_what_its_image_has(tmp_path: Path) -> None:
    package = tmp_path / "taskyard"
    shutil.copytree(ROOT / "services/taskyard/agent", package / "agent")
    shutil.copytree(ROOT / "contracts/taskyard/contracts", package / "contracts")
    shutil.copy(ROOT / "libs/taskyard/settings.py", package)
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


def test_nats_server_takes_its_configuration(secrets: dict[str, str], tmp_path: Path) -> None:
    server = NatsServer(tmp_path).program.argv[0]
    argv = [server, "-t", "--config", str(ROOT / "deploy/nats.conf")]
    found = subprocess.run(argv, env={**os.environ, **secrets}, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr


def test_users_may_do_what_the_embedded_server_lets_them_do(tmp_path: Path) -> None:
    NatsServer(tmp_path, agents=["agent-1"])
    embedded = msgspec.json.decode((tmp_path / "nats-server.conf").read_bytes())["accounts"]
    text = (ROOT / "deploy/nats.conf").read_text(encoding="utf-8")
    for account in ("AGENTS", "CLIENTS"):
        for user in embedded[account]["users"]:
            allowed = user.get("permissions", {})
            subjects = [*allowed.get("publish", ()), *allowed.get("subscribe", ())]
            assert user["user"] in text
            assert all(f'"{subject}"' in text for subject in subjects)
