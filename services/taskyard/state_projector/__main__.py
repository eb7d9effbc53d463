"""`python -m taskyard.state_projector --config FILE`."""

from taskyard.service import main
from taskyard.state_projector.app import run

if __name__ == "__main__":
    main(run)
