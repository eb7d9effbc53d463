"""`python -m taskyard.dispatcher --config FILE`."""

from taskyard.dispatcher.app import run
from taskyard.service import main

if __name__ == "__main__":
    main(run)
