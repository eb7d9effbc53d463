"""Settings come from a file and the environment, and what is wrong is named."""

import json
from pathlib import Path

import pytest

from taskyard.settings import AgentSettings, Role, Settings, SettingsError, from_arguments, load

NEEDED = {
    "nats_urls": ["nats://127.0.0.1:4222"],
    "control_user": "service",
    "control_password": "p",
    "fleet_user": "fleet",
    "fleet_password": "p",
    "postgres_dsn": "postgresql:///",
}
AGENT = {"nats_urls": ["nats://127.0.0.1:4222"], "name": "worker-1", "password": "p", "directory": "/var/lib/taskyard"}


def write(folder: Path, values: object) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps(values))
    return path


def test_defaults_are_those_of_one_machine(tmp_path: Path) -> None:
    settings = load(Settings, write(tmp_path, NEEDED), {})
    assert (settings.http_host, settings.http_port, settings.partition) == ("127.0.0.1", 8420, "0")
    assert (settings.lease_seconds, settings.suspect_seconds, settings.worker_lost_seconds) == (3.0, 10.0, 30.0)
    agent = load(AgentSettings, write(tmp_path, AGENT), {})
    assert (agent.slots, agent.drain_seconds) == ([["any"], ["plan"], ["plan"]], 30.0)
    assert agent.output_bytes_max == 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("servers", "given", "replicas"),
    [(1, {}, 1), (2, {}, 1), (3, {}, 3), (3, {"replicas": 1}, 1), (1, {"replicas": 3}, 3)],
)
def test_three_servers_keep_every_stream_three_times(
    tmp_path: Path, servers: int, given: dict[str, int], replicas: int
) -> None:
    urls = [f"nats://server-{number}" for number in range(servers)]
    assert load(Settings, write(tmp_path, {**NEEDED, "nats_urls": urls, **given}), {}).stream_replicas == replicas


def test_principals_have_roles(tmp_path: Path) -> None:
    principals = [{"name": "alice", "role": "operator", "token_sha256": "00"}]
    settings = load(Settings, write(tmp_path, {**NEEDED, "principals": principals}), {})
    assert settings.principals[0].role is Role.OPERATOR


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    environment = {
        "TASKYARD_HTTP_PORT": "9000",
        "TASKYARD_CONTROL_PASSWORD": "12",
        "TASKYARD_OTLP_ENDPOINT": "https://collector.example",
        "TASKYARD_NATS_URLS": '["nats://a", "nats://b"]',
        "TASKYARD_NO_SETTING_AT_ALL": "ignored",
    }
    settings = load(Settings, write(tmp_path, NEEDED), environment)
    assert (settings.http_port, settings.control_password) == (9000, "12")
    assert settings.otlp_endpoint == "https://collector.example"
    assert settings.nats_urls == ["nats://a", "nats://b"]


def test_the_environment_alone_is_enough() -> None:
    environment = {
        "TASKYARD_NATS_URLS": '["nats://a"]',
        "TASKYARD_NAME": "worker-1",
        "TASKYARD_PASSWORD": "p",
        "TASKYARD_DIRECTORY": "/data",
        "TASKYARD_TERRAFORM": '["tofu"]',
    }
    assert load(AgentSettings, None, environment).terraform == ["tofu"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({**NEEDED, "http_port": "x"}, r"settings.json: .*http_port"),
        ({**NEEDED, "principals": [{"name": "a", "role": "boss", "token_sha256": ""}]}, r"principals\[0\].role"),
        ({**NEEDED, "htp_port": 1}, "htp_port"),
        ({}, "nats_urls"),
        ([], "is not a JSON object"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field(tmp_path: Path, values: object, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(Settings, write(tmp_path, values), {})


@pytest.mark.parametrize("text", ["x", '"x"', "1.5"])
def test_a_wrong_variable_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="TASKYARD_HTTP_PORT"):
        load(Settings, write(tmp_path, NEEDED), {"TASKYARD_HTTP_PORT": text})


def test_the_command_line_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert from_arguments(AgentSettings, ["--config", str(write(tmp_path, AGENT))]).name == "worker-1"
    with pytest.raises(SystemExit, match="2"):
        from_arguments(AgentSettings, ["--config", str(tmp_path / "missing.json")])
    assert "missing.json cannot be read" in capsys.readouterr().err


def test_a_text_may_come_from_a_file_which_the_environment_names_before_the_settings_do(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("one\n")
    (tmp_path / "other").write_text("two")
    without = {name: value for name, value in AGENT.items() if name != "password"}
    settings = write(tmp_path, {**without, "password_file": str(tmp_path / "first")})
    assert load(AgentSettings, settings, {}).password == "one"
    assert load(AgentSettings, settings, {"TASKYARD_PASSWORD_FILE": str(tmp_path / "other")}).password == "two"
    assert (
        load(AgentSettings, write(tmp_path, AGENT), {"TASKYARD_PASSWORD_FILE": str(tmp_path / "other")}).password
        == "two"
    )


def test_a_file_that_cannot_be_read_or_stands_beside_its_text_is_refused_with_its_name(tmp_path: Path) -> None:
    missing = {"TASKYARD_PASSWORD_FILE": str(tmp_path / "missing")}
    with pytest.raises(SettingsError, match=r"password_file: .*missing cannot be read"):
        load(AgentSettings, write(tmp_path, AGENT), missing)
    with pytest.raises(SettingsError, match="both given"):
        load(AgentSettings, write(tmp_path, {**AGENT, "password_file": "x"}), {})
    with pytest.raises(SettingsError, match="slots_file"):
        load(AgentSettings, write(tmp_path, {**AGENT, "slots_file": "x"}), {})


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("name", "Worker 2", "name: 'Worker 2' is not a name"),
        ("pool", "", "pool: '' is not a name"),
        ("slots", [["anything"]], "slots: there is no kind 'anything'; known are any, plan"),
        ("terraform_roots", ["rel"], "terraform_roots: 'rel' is not absolute"),
        ("output_bytes_max", -1, "output_bytes_max: must be more than 0"),
        ("drain_seconds", -1, "drain_seconds: must not be less than 0"),
    ],
)
def test_an_agent_does_not_start_with_what_can_never_work(field: str, value: object, told: str, tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    settings = {"nats_urls": ["nats://x"], "name": "worker-1", "password": "x", "directory": "/x"}
    file.write_text(json.dumps(settings | {field: value}))
    with pytest.raises(SettingsError, match=told):
        load(AgentSettings, file, {})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"http_port": "x"}, "http_port: must be a whole number, not a string"),
        ({"http_prot": 1}, "http_prot: unknown field; did you mean http_port?"),
        ({"log_level": "loud"}, 'log_level: "loud" is not one of the values that are allowed'),
    ],
)
def test_a_wrong_setting_is_told_in_words_for_people(tmp_path: Path, settings: dict[str, object], told: str) -> None:
    needed = dict.fromkeys(("control_user", "control_password", "fleet_user", "fleet_password"), "x")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"nats_urls": ["nats://x"], **needed, **settings}))
    with pytest.raises(SettingsError) as raised:
        load(Settings, file, {})
    assert str(raised.value) == f"{file}: {told}"
