"""`python -m taskyard.api --config FILE`."""

from taskyard.api.app import run
from taskyard.service import main

if __name__ == "__main__":
    main(run)
