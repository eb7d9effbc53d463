"""`taskyard dev` with fake services and workers on real servers: `fake_dev.py DIR HTTP_PORT WORKERS SEPARATE`."""

import sys
from pathlib import Path

from taskyard.dev.app import SERVICES, Options, run_to_end

MODULES = {**dict.fromkeys((*SERVICES, "worker"), "fake_program"), "api": "fake_api", "services": "fake_api"}

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
