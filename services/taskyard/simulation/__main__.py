"""`python -m taskyard.simulation`."""

import sys

from taskyard.simulation.app import main

sys.exit(main(sys.argv[1:]))
