"""`python -m taskyard.dispatcher --config FILE`."""

from taskyard.service import main
from taskyard.dispatcher.app import run

if __name__ == "__main__":
    main(run)
