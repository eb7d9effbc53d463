"""`python -m taskyard.agent.supervisor FOLDER`: supervise the programs of one agent, whose supervisor's folder this is."""

import sys
from pathlib import Path

from taskyard.agent.supervisor.serving import serve

if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
