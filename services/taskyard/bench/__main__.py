"""`python -m taskyard.bench`."""

import sys

from taskyard.bench.app import main

sys.exit(main(sys.argv[1:]))
