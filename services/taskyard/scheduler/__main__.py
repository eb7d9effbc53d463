"""`python -m taskyard.scheduler --config FILE`."""

from taskyard.scheduler.app import run
from taskyard.service import main

if __name__ == "__main__":
    main(run)
