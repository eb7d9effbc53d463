"""`python -m taskyard.chaos`."""

import sys

from taskyard.chaos.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
