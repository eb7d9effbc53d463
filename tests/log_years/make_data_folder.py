"""Makes the data folder of this version that the tests open: a short real run of `taskyard dev`, stopped and packed.

    .venv/bin/python tests/log_years/make_data_folder.py 0.1

Made once for each released version and then kept for ever. PostgreSQL's files are left out: they are large, and the read
model is made again from the log. So are logs. The passwords in it are of a system that never ran anywhere else.
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scenarios"))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from nats_doors import command
from system import System

GOLDEN = Path(__file__).parent / "golden"
LEFT_OUT = ("postgres", "logs", "lock", "connection.json")


def make(version: str) -> None:
    """Run, stop, and pack the folder with what it should show when it is opened again."""
    with tempfile.TemporaryDirectory() as temporary:
        system = System(Path(temporary), arguments=())
        system.start()
        try:
            done = system.submit("noop", input={"text": "kept"}, labels={"team": "net"})
            system.wait(done, "completed")
            failed = system.command("exit 3")
            system.wait(failed, "failed")
            command(system, "pause", queue="later", create=True, reason="until the next version")
            waiting = system.command("true", queue="later")
            system.waits(waiting, "queue_paused")
            shown = {
                "tasks": {id: system.task(id) for id in (done, failed)},
                "histories": {id: system.history(id) for id in (done, failed)},
                "waiting": waiting,
            }
        finally:
            assert system.stop() == 0
        with tarfile.open(GOLDEN / f"data_folder_{version}.tar.xz", "w:xz") as packed:
            packed.add(system.data, "data", filter=lambda each: None if _is_left_out(each.name) else each)
    (GOLDEN / f"data_folder_{version}.json").write_text(json.dumps(shown, indent=1) + "\n")


def _is_left_out(name: str) -> bool:
    parts = Path(name).parts
    return len(parts) > 1 and (parts[1] in LEFT_OUT or name.endswith(".log"))


if __name__ == "__main__":
    make(sys.argv[1])
