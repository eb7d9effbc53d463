"""`python -m taskyard.scheduler --config FILE`."""

from taskyard.service import main
from taskyard.scheduler.app import run

if __name__ == "__main__":
    main(run)
