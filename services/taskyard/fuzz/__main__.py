"""`python -m taskyard.fuzz`."""

import sys

from taskyard.fuzz.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
