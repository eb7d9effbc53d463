"""`taskyard dev` with fake services and workers on real servers: `fake_dev.py DIR HTTP_PORT WORKERS SEPARATE`."""

import os
import sys
from pathlib import Path

from taskyard.dev.app import run_to_end
from taskyard.dev.options import SERVICES, Options

API = os.environ.get("FAKE_API", "fake_api")
MODULES = {
    **dict.fromkeys((*SERVICES, "worker"), "fake_program"),
    "api": API,
    "services": API,
    "setup": "fake_setup",
}

if __name__ == "__main__":
    data, http_port, workers, separate = sys.argv[1:]
    options = Options(
        data=Path(data),
        http_port=int(http_port),
        workers=int(workers),
        separate=separate == "separate",
        modules=MODULES,
    )
    sys.exit(run_to_end(options))
