"""An agent needs nats-py and msgspec only: OpenTelemetry is looked for when its settings ask for traces."""

import subprocess
import sys

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"opentelemetry", "structlog", "prometheus_client", "faststream"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from taskyard.agent import app, logs
from taskyard.agent.tracing import make_tracing
from taskyard.settings import AgentSettings

logs.setup()
settings = AgentSettings(
    nats_urls=[], name="w", password="", directory="/", telemetry=True, otlp_endpoint="http://127.0.0.1:1"
)
assert make_tracing(settings) is None
"""


def test_an_agent_without_the_packages_says_so_and_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert '"message":"tells no traces: packages are missing"' in done.stderr
